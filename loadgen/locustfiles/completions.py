"""A spike of chat completions: `locust -f loadgen/locustfiles/completions.py --host http://127.0.0.1:8000`.

`PLAN=plan.json` or `--plan` says what to send, else `--peak` and `--duration` do. An open loop sends at the planned
times whatever the answers do; in a closed one each user asks again when it has its answer.
"""

from __future__ import annotations

from locust import User, task
from locust.exception import StopUser

from loadgen.locustfiles._course import Shape
from loadgen.locustfiles._load import Load
from loadgen.locustfiles._turns import turn_s

__all__ = ["Completions", "Shape"]


class Completions(User):
    def on_start(self) -> None:
        self.load: Load = self.environment.load
        self.number = self.load.user_number()

    @task
    def ask(self) -> None:
        if self.load.plan.loop == "open":
            self.load.send_arrivals()
            raise StopUser
        turn = turn_s(self.load.plan, self.number, self.load.at_s)
        if turn is None:
            raise StopUser
        self.load.wait_until(turn)
        self.load.ask(self.load.request_number())
