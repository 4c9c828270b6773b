"""One `crowdspike spike … --control` as a child process: orders go in and progress comes out, a line each.

It ends by itself when its standard input ends. So a run never outlives this program, not even one that was killed.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import IO, Any, Literal

from loadgen.spike.progress import Progress

LINE_BYTES = 65_536
Order = Literal["fire", "stop", "kill"]


class Runner:
    """Runs from when it is made, with a process group of its own, so that Ctrl-C in the terminal does not reach it.
    Raises OSError where it can't be started. `errors` gets its standard error. `changed` is called in the loop after
    each line, and when it has ended. `last` is what it said at its very end, empty when it said nothing."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], errors: IO[bytes], changed: Callable[[], None]
    ) -> None:
        self.progress = Progress(state="arming")
        self.last: dict[str, Any] = {}
        self.ended = asyncio.Event()
        self.exit_code: int | None = None
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=dict(environment),
            process_group=0,
        )
        # A thread, which sleeps but for these lines: uvloop starts no process groups.
        threading.Thread(target=self._follow, name=f"spike-{self.pid}", daemon=True).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def say(self, order: Order) -> None:
        """An order to one that has ended is lost."""
        assert self._process.stdin is not None
        with suppress(OSError, ValueError):
            self._process.stdin.write(order.encode() + b"\n")
            self._process.stdin.flush()

    def kill(self) -> None:
        """kill -9, its tools too. Nothing is written then."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def _follow(self) -> None:
        assert self._process.stdout is not None and self._process.stdin is not None
        # The loop may be closed while a process lives on for a moment.
        with suppress(RuntimeError):
            with self._process.stdout as output:
                while line := output.readline(LINE_BYTES):
                    self._loop.call_soon_threadsafe(self._hear, line)
            status = self._process.wait()
            with suppress(OSError):
                self._process.stdin.close()
            self._loop.call_soon_threadsafe(self._end, status)

    def _hear(self, line: bytes) -> None:
        with suppress(ValueError, TypeError):  # a warning of some library's is no progress
            data = json.loads(line)
            if "exit_code" in data:
                self.last = data
            else:
                self.progress = Progress.from_json(line)
        self._changed()

    def _end(self, status: int) -> None:
        self.exit_code = status
        self.ended.set()
        self._changed()
