"""Tells whoever started Locust with REPORT=1 what happens, in lines on its standard output (loadgen.spike.tools.lines).

Workers send theirs to the master by Locust's own messages, so that one process says everything, in whole lines.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from pathlib import Path
from types import TracebackType

import gevent
import gevent.os
from gevent.lock import BoundedSemaphore
from locust import events
from locust.env import Environment
from locust.rpc import Message
from locust.runners import Runner, WorkerRunner

from loadgen.spike.point import Report, Trouble
from loadgen.spike.tools.lines import encode

FLUSH_S = 0.1
MAX_TROUBLES = 50
"""Different ones are told; what goes wrong in every request would be told in each."""
_MESSAGE = "crowdspike-reports"
_writing = BoundedSemaphore()  # two threads' long writes would mix


class Reports:
    def __init__(self, runner: Runner) -> None:
        self.on = os.environ.get("REPORT") == "1"
        self._runner = runner
        self._lines: list[str] = []
        self._troubles: set[str] = set()
        if self.on and not isinstance(runner, WorkerRunner):
            runner.register_message(_MESSAGE, _write)
        if self.on:
            gevent.spawn(self._flush_again_and_again)

    def say(self, report: Report) -> None:
        if self.on:
            self._lines.append(encode(report))

    def say_trouble(self, error: BaseException, tb: TracebackType | None) -> None:
        where = traceback.extract_tb(tb)[-1:]
        place = "".join(f" ({Path(at.filename).name}:{at.lineno})" for at in where)
        text = f"{type(error).__name__}: {error}{place}"
        if text not in self._troubles and len(self._troubles) < MAX_TROUBLES:
            self._troubles.add(text)
            self.say(Trouble(text))

    def flush(self) -> None:
        lines, self._lines = self._lines, []
        if lines and isinstance(self._runner, WorkerRunner):
            self._runner.send_message(_MESSAGE, lines)
        elif lines:
            tell("\n".join(lines))

    def _flush_again_and_again(self) -> None:
        while True:
            gevent.sleep(FLUSH_S)
            self.flush()


def tell(line: str) -> None:
    """At once, on standard output. Whoever does not read it holds up a thread and not the load; nobody may be there."""
    with _writing, contextlib.suppress(OSError):
        sys.stdout.flush()
        gevent.os.tp_write(1, line.encode() + b"\n")


def _write(environment: Environment, msg: Message) -> None:
    tell("\n".join(msg.data))


@events.init.add_listener
def _begin(environment: Environment, runner: Runner, **_: object) -> None:
    environment.reports = Reports(runner)


@events.user_error.add_listener
def _trouble(user_instance: object, exception: BaseException, tb: TracebackType, **_: object) -> None:
    user_instance.environment.reports.say_trouble(exception, tb)


@events.test_stop.add_listener
def _end(environment: Environment, **_: object) -> None:
    environment.reports.flush()
