"""One process of ours: what it prints, line by line, and how it ended, told to the event loop."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

LINE_BYTES = 4096


class Process:
    """Runs from when it is made, as the leader of a process group, so that Ctrl-C in the terminal does not reach it.
    Raises OSError where it can't be started.

    Its standard input stays open as long as this program runs: a replica started with `--with-parent` ends with it,
    however that ends. `on_line` gets each line of standard output and error, then `on_exit` the exit status (negative:
    the signal), both in the loop.
    """

    def __init__(self, command: Sequence[str], on_line: Callable[[str], None], on_exit: Callable[[int], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_line = on_line
        self._on_exit = on_exit
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            # Not a session of its own: Linux divides the CPUs among sessions first, and ten replicas would each get as
            # much of a busy machine as the web app and all else.
            process_group=0,
        )
        # A thread, which sleeps but for these lines: uvloop starts no process groups, and asyncio's watchers differ.
        threading.Thread(target=self._follow, name=f"pod-{self._process.pid}", daemon=True).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        """kill -9."""
        self._process.kill()

    def _follow(self) -> None:
        assert self._process.stdout is not None and self._process.stdin is not None
        # The loop may be closed while a process lives on for a moment.
        with suppress(RuntimeError), self._process.stdout as output, self._process.stdin:
            while line := output.readline(LINE_BYTES):
                self._loop.call_soon_threadsafe(self._on_line, line.decode(errors="replace").rstrip())
            status = self._process.wait()
            self._loop.call_soon_threadsafe(self._on_exit, status)


def how_it_ended(status: int) -> str:
    """An exit status in words."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"
