"""How far one activity has come: when it was open, what that makes of a response's time, what was drawn."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from webapp.room.events import Drawn

GRACE_MS = 1000
"""A response received this long after closing still counts: it was tapped in time and travelled."""


class Phase(StrEnum):
    """`ready` comes before `open`: the room sees that the activity is next, and the clock has not started."""

    READY = "ready"
    OPEN = "open"
    CLOSED = "closed"
    REVEALED = "revealed"


@dataclass(frozen=True, slots=True)
class Window:
    """One time for which an activity was open. `deadline_ms` None: until it is closed."""

    opened_ms: int
    deadline_ms: int | None
    closed_ms: int | None = None

    @property
    def end_ms(self) -> int | None:
        ends = [end for end in (self.deadline_ms, self.closed_ms) if end is not None]
        return min(ends) if ends else None

    def takes(self, at_ms: int) -> bool:
        end_ms = self.end_ms
        return self.opened_ms <= at_ms and (end_ms is None or at_ms <= end_ms + GRACE_MS)


@dataclass(slots=True)
class Progress:
    """How far one activity has come."""

    windows: list[Window] = field(default_factory=list)
    revealed_ms: int | None = None
    entrants: tuple[str, ...] = ()
    draws: list[Drawn] = field(default_factory=list)

    def phase(self, now_ms: int) -> Phase:
        if self.revealed_ms is not None:
            return Phase.REVEALED
        if not self.windows:
            return Phase.READY
        end_ms = self.windows[-1].end_ms
        return Phase.OPEN if end_ms is None or now_ms < end_ms else Phase.CLOSED

    def window(self, at_ms: int) -> Window | None:
        """The window that takes a response received at `at_ms`; None when it came too early or too late."""
        if self.revealed_ms is not None and at_ms > self.revealed_ms:
            return None
        return next((w for w in self.windows if w.takes(at_ms)), None)

    @property
    def winners(self) -> dict[int, Drawn]:
        """The last draw of each prize: an earlier one was absent."""
        return {draw.prize: draw for draw in self.draws}
