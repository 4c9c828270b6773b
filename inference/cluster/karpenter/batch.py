"""When Karpenter acts on pods that found no room: it waits for more of them, and asks again while some are left."""

from __future__ import annotations

from dataclasses import dataclass

IDLE_S = 1.0
"""BATCH_IDLE_DURATION: so long after the last pod, the window closes."""
MOST_S = 10.0
"""BATCH_MAX_DURATION: so long after the first, it closes in any case."""
AGAIN_S = 10.0
"""How often a pod that is still pending is looked at again (provisioning controller of kubernetes-sigs/karpenter)."""


@dataclass(slots=True)
class Batch:
    """One window. Times are of the clock that the caller passes in."""

    _first_s: float | None = None
    _last_s: float = 0.0
    _again_s: float | None = None

    def add(self, now_s: float) -> None:
        """A pod found no room."""
        if self._first_s is None:
            self._first_s = now_s
        self._last_s = now_s

    def again(self, now_s: float) -> None:
        """Pods are left over: look again later."""
        self._again_s = now_s + AGAIN_S

    @property
    def due_s(self) -> float:
        """When to act; infinity when nothing waits."""
        times = [] if self._again_s is None else [self._again_s]
        if self._first_s is not None:
            times.append(min(self._last_s + IDLE_S, self._first_s + MOST_S))
        return min(times, default=float("inf"))

    def close(self) -> None:
        """The pods are being seen to; those that come from now on open the next window."""
        self._first_s = self._again_s = None
