"""The line in front of the replicas: who came when, and which replica takes the next."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Collection
from dataclasses import dataclass

from inference.pool import Pool, Replica
from webapp.gateway.errors import NoReplica, QueueFull


@dataclass(frozen=True, slots=True)
class Limits:
    """How many may wait for a replica while none is ready, and how long."""

    max_waiting: int = 2000
    max_wait_s: float = 120.0


class Line:
    """Requests are in line from `join()` until their first token. `waiting` of them wait for a ready replica."""

    def __init__(self, pool: Pool, limits: Limits) -> None:
        self.pool = pool
        self.waiting = 0
        self._limits = limits
        self._joined = 0
        self._numbers: list[int] = []  # ascending, as numbers are given in order

    def join(self) -> int:
        """A number that stands for the place in line."""
        self._joined += 1
        self._numbers.append(self._joined)
        return self._joined

    def position(self, number: int) -> int:
        """1 for the oldest in line, and so on; 0 for one that has left."""
        i = bisect_left(self._numbers, number)
        return i + 1 if i < len(self._numbers) and self._numbers[i] == number else 0

    def leave(self, number: int) -> None:
        if position := self.position(number):
            del self._numbers[position - 1]

    async def replica(self, avoid: Collection[Replica] = ()) -> Replica:
        """The replica to use, as soon as one is ready. Raises QueueFull or NoReplica."""
        chosen = self.pool.pick(avoid)
        if chosen is not None:
            return chosen
        if self.waiting >= self._limits.max_waiting:
            raise QueueFull("too many requests wait for a replica")
        self.waiting += 1
        try:
            async with asyncio.timeout(self._limits.max_wait_s):
                while (chosen := self.pool.pick(avoid)) is None:
                    await self.pool.wait_ready()
                return chosen
        except TimeoutError:
            raise NoReplica("no replica became ready in time") from None
        finally:
            self.waiting -= 1
