"""Unix time that never goes back."""

from __future__ import annotations

import time
from collections.abc import Callable


class Clock:
    """Follows the system's time. Where that is set back, it goes on from where it was, at the monotonic pace."""

    def __init__(self, read: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._read = read
        self._monotonic = monotonic
        self._now_s = read()
        self._at = monotonic()

    def __call__(self) -> float:
        """Now, in seconds since 1970."""
        at = self._monotonic()
        self._now_s = max(self._read(), self._now_s + at - self._at)
        self._at = at
        return self._now_s
