"""The course of a test where Locust's master is, or its only process: it is ready, it begins, it is over.

By hand, Locust's page or `--headless` begins it. With HOLD=1 it says `{"crowdspike":"armed"}` and waits for a line on
its standard input: `fire`, or `stop`; the end of input is a stop too, so that a test never outlives who started it.
"""

from __future__ import annotations

import gc
import logging
import os
import time

import gevent
import gevent.os
from gevent.event import Event
from locust import LoadTestShape, events
from locust.env import Environment
from locust.rpc import Message
from locust.runners import MasterRunner, Runner, WorkerRunner

from loadgen.locustfiles._http import Connections
from loadgen.locustfiles._load import OVER
from loadgen.locustfiles._options import first_model, plan_of
from loadgen.locustfiles._reports import tell
from loadgen.spike.point import Began

_log = logging.getLogger(__name__)
LEAD_S, WORKERS_LEAD_S = 0.25, 1.5
"""Between `fire` and moment 0, in which users are made; longer where workers have to hear of it."""
LATE_S = 5.0
"""After the plan's deadline the test ends, even when a process has not said that it has."""


class Course:
    """`go` is set by `fire` and by `stop`; `over` when every process has nothing more to wait for."""

    def __init__(self, runner: Runner) -> None:
        self.go, self.over = Event(), Event()
        self.stopped = False
        self.processes: list[str] = []
        self._runner = runner
        self._ended: set[str] = set()
        self._held = os.environ.get("HOLD") == "1"
        runner.register_message(OVER, self._hear_over)
        if self._held:
            gevent.spawn(self._listen)

    def begins(self) -> bool:
        """Waits for `fire`; False when the test is not to be, or there is no worker to send anything."""
        self.over.clear()
        self._ended.clear()
        if self._held:
            tell('{"crowdspike":"armed"}')
            self.go.wait()
        clients = getattr(self._runner, "clients", None)
        self.processes = [self._runner.client_id] if clients is None else sorted(one.id for one in clients.ready)
        if not self.processes:
            _log.error("No worker has connected.")
        return not self.stopped and bool(self.processes)

    def _hear_over(self, environment: Environment, msg: Message) -> None:
        self._ended.add(msg.data)
        if self._ended.issuperset(self.processes):
            self.over.set()

    def _listen(self) -> None:
        gevent.os.make_nonblocking(0)
        said = b""
        while not self.stopped:
            data = gevent.os.nb_read(0, 4096)
            *lines, said = (said + data).split(b"\n")
            self.stopped = not data or b"stop" in lines
            if self.stopped or b"fire" in lines:
                self.go.set()
        self._runner.quit()


class Shape(LoadTestShape):
    """Locust's own way to let a test end by itself. The users of the plan's peak are all there from the start (`_turns`
    says why); in an open loop there is one for each process. Locust files name their `scenario`."""

    scenario = "spike"

    def tick(self) -> tuple[int, float] | None:
        environment = self.runner.environment
        if self.runner.shape_last_tick is not None:  # its state is still "ready" for a moment after the start
            return None if environment.course.over.wait(1.0) or time.time() > self._late_s else self._users
        options = environment.parsed_options
        plan = plan_of(options, self.scenario)
        Connections(
            environment.host or "", plan.timeout_s, options.insecure
        )  # while nothing has begun it may still raise
        options.model_name = plan.model or first_model(environment.host, options.insecure)
        if not environment.course.begins():
            return None
        options.processes_of_test = environment.course.processes
        options.began_s = time.time() + (WORKERS_LEAD_S if isinstance(self.runner, MasterRunner) else LEAD_S)
        environment.reports.say(Began(options.began_s))
        self._late_s = options.began_s + plan.deadline_s + LATE_S
        users = len(environment.course.processes) if plan.loop == "open" else round(plan.peak)
        self._users = users, float(users)
        return self._users


def end_with(parent: int) -> None:
    """A worker that was forked goes when the master has gone, which kill -9 gives no time to say so."""
    while os.getppid() == parent:
        gevent.sleep(1)
    os._exit(1)


@events.init.add_listener
def _begin(environment: Environment, runner: Runner, **_: object) -> None:
    gc.collect()
    gc.freeze()  # all that is loaded stays: looking through it in the midst of the load takes a tenth of a second
    if not isinstance(runner, WorkerRunner):
        environment.course = Course(runner)
    elif environment.parsed_options.processes:
        gevent.spawn(end_with, os.getppid())
