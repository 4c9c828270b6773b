"""Batch sizes × users × models, one cell after the other: `locust -f loadgen/locustfiles/matrix.py --host http://…`.

`PLAN=plan.json` or `--plan` says which cells. Each user sends a batch of requests at once and waits for all of them.
"""

from __future__ import annotations

import gevent
from locust import User, task
from locust.exception import StopUser

from loadgen.locustfiles import _course
from loadgen.locustfiles._load import Load
from loadgen.locustfiles._turns import cell_at, cell_turn_s


class Shape(_course.Shape):
    scenario = "matrix"


class Matrix(User):
    def on_start(self) -> None:
        self.load: Load = self.environment.load
        self.number = self.load.user_number()

    @task
    def ask_a_batch(self) -> None:
        turn = cell_turn_s(self.load.plan, self.number, self.load.at_s)
        if turn is None:
            raise StopUser
        self.load.wait_until(turn)
        index = cell_at(self.load.plan, turn)
        cell = self.load.plan.cells[index]
        numbers = [self.load.request_number() for _ in range(cell.batch)]
        gevent.joinall([self.load.spawn(self.load.ask, n, model=cell.model, cell=index) for n in numbers])
