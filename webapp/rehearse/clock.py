"""A fast clock: what is to happen, in order of time."""

from __future__ import annotations

import heapq
from collections.abc import Callable


class Clock:
    """Things due at the same time happen in the order in which they were planned."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._plans: list[tuple[float, int, Callable[..., None], tuple]] = []
        self._count = 0

    def at(self, at_s: float, do: Callable[..., None], *args: object) -> None:
        """Plan `do(*args)`; what lies in the past is done next."""
        self._count += 1
        heapq.heappush(self._plans, (max(at_s, self.now_s), self._count, do, args))

    @property
    def due_s(self) -> float:
        """When the next thing is to happen; infinity when nothing is."""
        return self._plans[0][0] if self._plans else float("inf")

    def step(self) -> None:
        """Do the next thing, at its time."""
        self.now_s, _, do, args = heapq.heappop(self._plans)
        do(*args)
