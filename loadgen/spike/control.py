"""What a runner and the program that started it say to each other: commands on its standard input, one JSON object a
line on its standard output.

In: `fire`, `stop`, `kill`; the end of the input is a `stop`, so that a run ends with the program, however that ends.
Out: a Progress each second and at each change of state, and at last {"state": "ended", "verdict": …, "exit_code": …,
"folder": …, "headline": …, "problems": […]}.
"""

from __future__ import annotations

import asyncio
import json
import os
import stat
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

from loadgen.spike.order import Order, Outcome
from loadgen.spike.progress import Progress
from loadgen.spike.run import run

COMMANDS = frozenset({"fire", "stop", "kill"})
LAST_WORD_WITHIN_S = 5.0
_LINE_BYTES = 1024

Go = Callable[[Order, AsyncIterator[str], Callable[[Progress], None]], Awaitable[Outcome]]
"""`run`, wherever the tool is."""


async def controlled(order: Order, in_fd: int = 0, out_fd: int = 1, go: Go = run) -> Outcome:
    """Runs the order under the control of whoever holds the other ends of the two pipes."""
    control = Control(in_fd, out_fd)
    outcome = await go(order, control.commands(), control.said)
    await control.ended(outcome, order)
    return outcome


class Control:
    def __init__(self, in_fd: int, out_fd: int) -> None:
        self._out_fd = out_fd
        self._heard: asyncio.Queue[str] = asyncio.Queue()
        self._broken = False
        if stat.S_ISFIFO(os.fstat(out_fd).st_mode):
            # Whoever does not read must not hold up the run. A line is shorter than what a pipe takes whole (pipe(7)).
            os.set_blocking(out_fd, False)
        # A thread, since an event loop can't wait for a file or for /dev/null; it reads the descriptor itself, as one
        # that holds the lock of sys.stdin can't be left behind at exit.
        loop = asyncio.get_running_loop()
        threading.Thread(target=_read, args=(in_fd, loop, self._heard), name="commands", daemon=True).start()

    async def commands(self) -> AsyncIterator[str]:
        while True:
            yield await self._heard.get()

    def said(self, progress: Progress) -> None:
        """Says it unless nobody reads for now. Where nobody can any more, the run is to stop."""
        if progress.state != "ended":  # that is said with the outcome
            with suppress(BlockingIOError):
                self._write(progress.to_json())

    async def ended(self, outcome: Outcome, order: Order) -> None:
        """The last line is waited for."""
        line = json.dumps(
            {
                "state": "ended",
                "verdict": outcome.summary.verdict.verdict,
                "exit_code": outcome.exit_code,
                "folder": str(order.folder),
                "headline": outcome.headline,
                "problems": outcome.problems,
            }
        )
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORD_WITHIN_S):
                while True:
                    try:
                        return self._write(line)
                    except BlockingIOError:
                        await asyncio.sleep(0.05)

    def _write(self, line: str) -> None:
        """Raises BlockingIOError."""
        if self._broken:
            return
        try:
            os.write(self._out_fd, line.encode() + b"\n")
        except BlockingIOError:
            raise
        except OSError:
            self._broken = True
            self._heard.put_nowait("stop")


def _read(fd: int, loop: asyncio.AbstractEventLoop, heard: asyncio.Queue[str]) -> None:
    def tell(word: str) -> None:
        if word in COMMANDS:
            loop.call_soon_threadsafe(heard.put_nowait, word)

    rest = b""
    with suppress(RuntimeError):  # the loop is closed: the run is over
        with suppress(OSError):
            while read := os.read(fd, _LINE_BYTES):
                *lines, rest = (rest + read).split(b"\n")
                for line in lines:
                    tell(line.decode(errors="replace").strip())
                rest = rest[-_LINE_BYTES:]
        tell("stop")
