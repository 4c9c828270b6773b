"""What one Locust process sends of the plan, and what it reports of it. Users have it as `self.environment.load`."""

from __future__ import annotations

import time
from itertools import count

import gevent
from gevent.event import Event
from gevent.pool import Group
from locust import events
from locust.env import Environment
from locust.runners import MasterRunner

from loadgen.locustfiles._http import Connections
from loadgen.locustfiles._options import api_key, plan_of
from loadgen.spike.plan import Prompt
from loadgen.spike.point import Dropped, Sent
from loadgen.spike.reply import request

BY = "locust"
OVER = "crowdspike-over"
"""Locust's message, with the id of the process that has nothing more to send or to wait for."""


class Load:
    """Of several processes, the i-th of m sends the requests, and has the users, whose number has the remainder i by m.
    All times are seconds since the run's start."""

    def __init__(self, environment: Environment) -> None:
        options, runner = environment.parsed_options, environment.runner
        self.plan = plan_of(options, environment.shape_class.scenario)
        self.under_way = 0
        self._environment = environment
        self._runner = runner
        self._began_s = options.began_s
        self._model = options.model_name
        self._index, self._of = options.processes_of_test.index(runner.client_id), len(options.processes_of_test)
        self._requests, self._users = count(self._index, self._of), count(self._index, self._of)
        self._connections = Connections(environment.host, self.plan.timeout_s, options.insecure)
        self._group = Group()
        self._sent_all = Event()

    @property
    def at_s(self) -> float:
        return time.time() - self._began_s

    def wait_until(self, at_s: float) -> None:
        gevent.sleep(max(0.0, at_s - self.at_s))  # even when it is past: the others are to have their turn

    def user_number(self) -> int:
        return next(self._users)

    def request_number(self) -> int:
        return next(self._requests)

    def send_arrivals(self) -> None:
        """Every request of this process's share, when it is due, whatever becomes of those before it. With
        `max_in_flight` under way one is dropped."""
        most = -(-self.plan.max_in_flight // self._of)
        for n, due_s in enumerate(self.plan.arrivals()):
            if n % self._of != self._index:
                continue
            self.wait_until(due_s)
            if self.under_way < most:
                self.spawn(self.ask, n, due_s=due_s)
            else:
                self._environment.reports.say(Dropped(time.time()))
                self._fire("dropped", 0.0, error=f"{most} requests were under way")
        gevent.sleep(0)  # the last is under way before it is said that all are
        self._sent_all.set()

    def spawn(self, ask: object, *args: object, **more: object) -> gevent.Greenlet:
        """`ask` beside everything else; it ends with the test, and what goes wrong in it is told."""
        greenlet = self._group.spawn(ask, *args, **more)
        greenlet.link_exception(self._tell)
        return greenlet

    def ask(
        self,
        n: int,
        prompt: Prompt | None = None,
        *,
        due_s: float | None = None,
        model: str = "",
        cell: int | None = None,
    ) -> None:
        """One request, to the end of its reply; without a `prompt` the plan's."""
        asked = request(
            self._connections.host,
            model or self._model,
            prompt or self.plan.prompt(n),
            source=self.plan.source,
            api_key=api_key(),
            ignore_eos=self.plan.ignore_eos,
        )
        self.under_way += 1
        sent_s = time.time()
        self._environment.reports.say(Sent(n, sent_s))
        try:
            reply = self._connections.ask(asked)
        finally:
            self.under_way -= 1
        due_at_s = None if due_s is None else self._began_s + due_s
        self._environment.reports.say(reply.point(n, BY, due_s=due_at_s, sent_s=sent_s, cell=cell))
        self._fire("chat completions", reply.ended_s - sent_s, reply.completion_tokens or 0, reply.error)
        if reply.first_s is not None:
            self._fire("ttft", reply.first_s - sent_s)

    def run(self) -> None:
        """Says when there is nothing more to send or to wait for here."""
        self.wait_until(self.plan.duration_s)
        if self.plan.loop == "open":
            self._sent_all.wait(max(0.0, self.plan.deadline_s - self.at_s))  # the last may be due at the very end
        while self.under_way and self.at_s < self.plan.deadline_s:
            gevent.sleep(0.05)
        self._environment.reports.flush()
        self._runner.send_message(OVER, self._runner.client_id)

    def stop(self) -> None:
        """What is under way is given up and has no point."""
        self._group.kill(block=False)
        self._connections.close()

    def _tell(self, greenlet: gevent.Greenlet) -> None:
        self._environment.reports.say_trouble(greenlet.exception, greenlet.exc_info[2])

    def _fire(self, name: str, took_s: float, length: int = 0, error: str = "") -> None:
        """What Locust itself counts and shows; the length is in tokens."""
        self._environment.events.request.fire(
            request_type="LLM",
            name=name,
            response_time=took_s * 1000,
            response_length=length,
            exception=error or None,
            context={},
        )


@events.test_start.add_listener
def _begin(environment: Environment, **_: object) -> None:
    if not isinstance(environment.runner, MasterRunner):
        environment.load = Load(environment)
        environment.load.spawn(environment.load.run)


@events.test_stopping.add_listener
def _stop(environment: Environment, **_: object) -> None:
    if hasattr(environment, "load"):
        environment.load.stop()
