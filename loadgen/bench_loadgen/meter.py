"""What a tool takes of the machine while it sends, and whether the server and we left it alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress

from loadgen import machine

EVERY_S = 0.1


class Meter:
    """CPU time of the tool, of the server with ourselves, and of all other programs, in seconds since it began; the
    tool's memory at most, in 10^6 bytes. All as at the last look at which the tool still ran."""

    def __init__(self, tool: Callable[[], Sequence[int]], server: int) -> None:
        self._tool = tool
        self._server = server
        self._spent_s: dict[int, float] = {}
        self._mb: dict[int, float] = {}
        self._look()
        self._start = self._last = self._now()

    def look(self) -> None:
        if self._look():
            self._last = self._now()

    @property
    def took_s(self) -> float:
        return self._last[0] - self._start[0]

    @property
    def tool_s(self) -> float:
        return self._last[1] - self._start[1]

    @property
    def beside_s(self) -> float:
        return self._last[2] - self._start[2]

    @property
    def others_s(self) -> float:
        return max(0.0, self._last[3] - self._start[3] - self.tool_s - self.beside_s)

    @property
    def peak_mb(self) -> float:
        return sum(self._mb.values())

    def _look(self) -> bool:
        pids = machine.family(self._tool())
        for pid in pids:
            with suppress(OSError, StopIteration):  # it has ended meanwhile
                self._spent_s[pid], self._mb[pid] = machine.cpu_s(pid), machine.peak_rss_mb(pid)
        return bool(pids)

    def _now(self) -> tuple[float, float, float, float]:
        beside_s = time.process_time() + machine.cpu_s(self._server)
        return time.monotonic(), sum(self._spent_s.values()), beside_s, machine.busy_s()


@asynccontextmanager
async def metering(tool: Callable[[], Sequence[int]], server: int) -> AsyncIterator[Meter]:
    """Looks again and again while the block runs."""
    meter = Meter(tool, server)

    async def look() -> None:
        while True:
            await asyncio.sleep(EVERY_S)
            meter.look()

    looking = asyncio.create_task(look())
    try:
        yield meter
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
        meter.look()
