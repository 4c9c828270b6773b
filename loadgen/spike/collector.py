"""Makes the points of a run of what its tool reports: every request once, whatever became of it. Pure.

A tool reports a request when it goes out (Sent) and when it ends (Point), and arrivals that it could not send
(Dropped). What was sent and never ended is a point too, and so is a drop: they are missed targets, not blanks.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

from loadgen.spike.plan import Plan
from loadgen.spike.point import Began, Dropped, Kind, Point, Report, Sent, rebased

HELD = "held headers"


class Collector:
    """Hears one tool, or one probe, named `by`. `holds_headers`: the target sends them with the first token."""

    def __init__(self, plan: Plan, holds_headers: bool, by: str) -> None:
        self._plan = plan
        self._holds_headers = holds_headers
        self._by = by
        self._ended: list[Point] = []
        self._drops: list[Dropped] = []
        self._out: defaultdict[tuple[int, Kind], list[float]] = defaultdict(list)
        self._ahead: Counter[tuple[int, Kind]] = Counter()
        self.began_s: float | None = None
        """Unix time of the run's moment 0; None until the tool has told it, or of a run in which nothing was done."""

    def hear(self, report: Report) -> Point | None:
        """The point, in the run's time, where the report is one and the run has begun. Its `due_s` may only come with
        `close`. The first Began counts: several machines may each say theirs."""
        match report:
            case Began(at_s) if self.began_s is None:
                self.began_s = at_s
            case Sent():
                self._went_out(report)
            case Dropped():
                self._drops.append(report)
            case Point():
                self._came_back(report)
                point = self._first_token_named(report)
                self._ended.append(point)
                return None if self.began_s is None else rebased(point, self.began_s)
        return None

    @property
    def under_way(self) -> int:
        """Requests that went out and have not ended."""
        return sum(map(len, self._out.values()))

    def close(self) -> list[Point]:
        """All points in the run's time, in the order in which they were due or sent; call it once, at the end.

        In an open loop each has a `due_s`. k6 keeps to itself which arrival an iteration stands for; it starts or drops
        them in the order of the schedule, so the k-th start or drop belongs to the k-th planned arrival. Other tools
        tell it, and number their requests as the plan does.
        """
        began_s = self._moment_0()
        if began_s is None:
            return []
        self.began_s = began_s
        points = [rebased(point, began_s) for point in self._ended]
        points += [
            Point(n=n, by=self._by, kind=kind, sent_s=at_s - began_s)
            for (n, kind), times in self._out.items()
            for at_s in times
        ]
        drops = sorted(drop.at_s - began_s for drop in self._drops for _ in range(drop.count))
        if self._plan.loop == "closed" or self._by == "probe":
            points += [Point(n=-1, by=self._by, due_s=at_s) for at_s in drops]
        elif self._by == "k6":
            points = self._by_rank(points, drops)
        else:
            points = self._by_number(points, drops)
        return sorted(points, key=_time)

    def _went_out(self, sent: Sent) -> None:
        key = sent.n, sent.kind
        if self._ahead[key]:
            self._ahead[key] -= 1
        else:
            self._out[key].append(sent.at_s)

    def _came_back(self, point: Point) -> None:
        """A phone sends many a poll under its one number: the earliest that is out is taken for the one that ended."""
        key = point.n, point.kind
        if times := self._out.get(key):
            times.pop(0)
        elif point.sent_s is not None:
            self._ahead[key] += 1

    def _first_token_named(self, point: Point) -> Point:
        held = self._holds_headers and point.kind == "completion" and point.status == 200
        if not held or point.first_s is not None or point.headers_s is None:
            return point
        return replace(point, first_s=point.headers_s, first_by=HELD)

    def _moment_0(self) -> float | None:
        """Without a Began, which only a broken tool leaves out, the first thing that it did."""
        if self.began_s is not None:
            return self.began_s
        starts = [time_s for times in self._out.values() for time_s in times]
        starts += [point.sent_s for point in self._ended if point.sent_s is not None]
        return min([*starts, *(drop.at_s for drop in self._drops)], default=None)

    def _by_rank(self, points: Sequence[Point], drops: Sequence[float]) -> list[Point]:
        dropped = [Point(n=-1, by=self._by, due_s=at_s) for at_s in drops]
        ordered = sorted([*points, *dropped], key=_time)
        due = list(islice(self._plan.arrivals(), len(ordered)))
        ranked = [_at_rank(k, point, due_s) for k, (point, due_s) in enumerate(zip(ordered, due, strict=False))]
        # One more than planned can only be a start at the very edge of the schedule: it was due when it was sent.
        return ranked + [replace(point, due_s=_time(point)) for point in ordered[len(due) :]]

    def _by_number(self, points: Sequence[Point], drops: Sequence[float]) -> list[Point]:
        arrivals = list(self._plan.arrivals())
        dated = [
            replace(point, due_s=arrivals[point.n]) if point.due_s is None and 0 <= point.n < len(arrivals) else point
            for point in points
        ]
        sent = {point.n for point in points}
        missing = (n for n in range(len(arrivals)) if n not in sent)
        dropped = [Point(n=next(missing, -1), by=self._by, due_s=at_s) for at_s in drops]
        return dated + [replace(p, due_s=arrivals[p.n]) if p.n >= 0 else p for p in dropped]


def _at_rank(k: int, point: Point, due_s: float) -> Point:
    """A start some milliseconds before its time, by two clocks' difference, was not early: it was due then."""
    if point.sent_s is None:
        return replace(point, n=k, due_s=due_s)
    return replace(point, due_s=min(due_s, point.sent_s))


def _time(point: Point) -> float:
    if point.sent_s is not None:
        return point.sent_s
    return 0.0 if point.due_s is None else point.due_s
