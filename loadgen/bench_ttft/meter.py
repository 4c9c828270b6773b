"""What other programs took of the machine while a tool was at work."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress

from loadgen import machine


class Others:
    """From its making until it is asked. `server` and what it started, ourselves and our children that have ended, a
    tool that was waited for with all of its own, are no others."""

    def __init__(self, server: int) -> None:
        self._server = server
        self._began_s = time.monotonic()
        self._busy_s = self._theirs_s()

    def share(self) -> float:
        """Of all cores."""
        took_s = time.monotonic() - self._began_s
        return max(0.0, (self._theirs_s() - self._busy_s) / took_s / (os.cpu_count() or 1))

    def _theirs_s(self) -> float:
        return machine.busy_s() - sum(os.times()[:4]) - sum(_spent_s(machine.family([self._server])))


def _spent_s(pids: set[int]) -> Iterator[float]:
    for pid in pids:
        with suppress(OSError):  # ended meanwhile
            yield machine.cpu_s(pid)
