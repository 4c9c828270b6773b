"""A room's questions, each some times: `locust -f loadgen/locustfiles/amplify.py --host … --room KWXM --copies 10`.

So many users look for new questions about once a second, and each sends every question once, all new ones at the same
time. A question that is asked before the end is sent by all of them. The gateway counts them as amplified, never as the
audience's. The room tells its questions to its presenter only: the token is $PRESENTER_TOKEN.
"""

from __future__ import annotations

import os
from typing import Any, NoReturn

import gevent
from locust import FastHttpUser, task
from locust.env import Environment
from locust.exception import StopUser

from loadgen.locustfiles import _course, _load
from loadgen.spike.plan import Prompt

LOOKS_PER_S = 50.0
"""Of all users together."""
LAST_LOOK_S = 1.5
"""After the end: a web process has what others were asked within less than that."""
NEVER = frozenset({401, 403, 404})


class Shape(_course.Shape):
    scenario = "amplify"


class Amplify(FastHttpUser):
    connection_timeout = network_timeout = 8.0

    def __init__(self, environment: Environment) -> None:
        self.insecure = environment.parsed_options.insecure
        super().__init__(environment)

    def on_start(self) -> None:
        self.load: _load.Load = self.environment.load
        self.load.under_way += 1  # it may send something until its last look
        self.known: set[str] = set()
        copies = self.load.plan.copies
        self.look_s = max(1.0, copies / LOOKS_PER_S)
        self.until_ms = (self.environment.parsed_options.began_s + self.load.plan.duration_s) * 1000
        self.load.wait_until(self.look_s * self.load.user_number() / copies)

    @task
    def look(self) -> None:
        late = self.load.at_s >= self.load.plan.duration_s + LAST_LOOK_S
        try:
            found = self.questions()
        except PermissionError as error:
            self.environment.reports.say_trouble(error, None)
            self.over()
        for one in found or ():
            if one["id"] not in self.known and one["at_ms"] <= self.until_ms:
                words = self.load.plan.prompt(len(self.known))
                self.known.add(one["id"])
                self.load.spawn(self.load.ask, self.load.request_number(), Prompt(one["question"], words.max_tokens))
        if late and found is not None:
            self.over()
        gevent.sleep(self.look_s)

    def over(self) -> NoReturn:
        gevent.sleep(0)  # what was spawned is under way before this is not
        self.load.under_way -= 1
        raise StopUser

    def questions(self) -> list[dict[str, Any]] | None:
        """None where the room does not answer just now. Raises PermissionError where it never will."""
        plan = self.load.plan
        headers = {"authorization": f"Bearer {os.environ.get('PRESENTER_TOKEN', '')}"}
        path = f"/api/rooms/{plan.room}/questions"
        with self.client.get(path, headers=headers, name="/api/rooms/[code]/questions", catch_response=True) as answer:
            if answer.status_code in NEVER:
                raise PermissionError(f"the questions of room {plan.room}: {answer.status_code}")
            return answer.json()["questions"] if answer.status_code == 200 else None
