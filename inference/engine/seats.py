"""Who is served now and at what pace: at most so many requests at once, the rest first come first served."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pace:
    """How long the first token of a request takes, and each one after it."""

    ttft_s: float = 0.080
    itl_s: float = 0.020


class Seats:
    """`running` and `waiting` are the figures that the replica reports."""

    def __init__(self, limit: int) -> None:
        self._free = asyncio.Semaphore(limit)  # wakes in the order of arrival
        self.running = 0
        self.waiting = 0

    @asynccontextmanager
    async def seat(self) -> AsyncIterator[None]:
        """Wait for a seat and hold it for the block; leaving, also by cancellation, frees it at once."""
        self.waiting += 1
        try:
            await self._free.acquire()
        finally:
            self.waiting -= 1
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1
            self._free.release()


class Clock:
    """The deadlines of one request's tokens, counted from its start, so that a late one delays no later one."""

    def __init__(self, pace: Pace) -> None:
        self._loop = asyncio.get_running_loop()
        self._due = self._loop.time() + pace.ttft_s
        self._itl_s = pace.itl_s

    async def next_token(self) -> None:
        await asyncio.sleep(max(0.0, self._due - self._loop.time()))
        self._due += self._itl_s
