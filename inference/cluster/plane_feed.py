"""What has happened, in order, bounded: each a word for programs and a sentence for people."""

from __future__ import annotations

from collections import deque

from inference.cluster.snapshot import Happening, Kind

KEPT = 200


class Feed:
    """The latest happenings, numbered from 1."""

    def __init__(self) -> None:
        self.latest: deque[Happening] = deque(maxlen=KEPT)
        self._seq = 0

    def note(self, now_s: float, kind: Kind, what: str, subject: str, text: str) -> None:
        self._seq += 1
        self.latest.append(Happening(self._seq, now_s, kind, what, subject, text))


def count(number: int, noun: str) -> str:
    """`1 pod`, `3 pods`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def lasted(seconds: float) -> str:
    """A duration for people: `0.4 s`, `71 s`, `12 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    return f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 60:.0f} min"
