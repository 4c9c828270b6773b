"""The time of a record: that of the world, without the pauses in which nothing was recorded."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RecordClock:
    """From Unix seconds to seconds of the record. `starts` are pairs of both, one for each stretch without a pause."""

    starts: tuple[tuple[float, float], ...]

    @classmethod
    def of(cls, times_s: Sequence[float], pause_s: float) -> RecordClock:
        """For moments at these times, in order; a second stands between two stretches."""
        starts: list[tuple[float, float]] = []
        for before_s, at_s in zip([None, *times_s], times_s, strict=False):
            if before_s is None:
                starts.append((at_s, 0.0))
            elif at_s - before_s > pause_s:
                unix_s, record_s = starts[-1]
                starts.append((at_s, record_s + before_s - unix_s + 1.0))
        return cls(tuple(starts))

    def t_s(self, at_s: float) -> float:
        """A time in a pause, or before the first moment, is that of the next stretch's start, or the last one's end."""
        index = max(0, bisect_right(self.starts, at_s, key=lambda start: start[0]) - 1)
        unix_s, record_s = self.starts[index]
        t_s = record_s + max(0.0, at_s - unix_s)
        return min(t_s, self.starts[index + 1][1]) if index + 1 < len(self.starts) else t_s

    def unix_s(self, t_s: float) -> float:
        """Back again."""
        index = max(0, bisect_right(self.starts, t_s, key=lambda start: start[1]) - 1)
        unix_s, record_s = self.starts[index]
        return unix_s + t_s - record_s
