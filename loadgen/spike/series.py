"""A run second by second: what was planned, sent, answered, and how the server and its cluster did. Pure, linear.

Each column has one value a second, counted from the run's start; None where there is nothing to say.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from inference.openloop.summary import quantile
from loadgen.spike.plan import Plan
from loadgen.spike.point import Point
from loadgen.spike.server import ServerSample

STALE_S = 5
"""A sample of the server stands for the seconds that follow it, but not for more."""

Column = tuple[float | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """`t` are the seconds from 0. `level` is the planned rate or number of users, `offered` the arrivals that were due
    (None in a closed loop), then what became of them: `sent` by the second of the sending, `dropped` of the due time,
    `refused`, `failed` and `completed` (in full) of the end; `in_flight` are under way when the second ends. TTFT is of
    the requests whose first token came in the second, E2E of those that were completed in it, both from the scheduled
    time where there is one. Tokens are spread evenly from the first one to the end."""

    t: tuple[int, ...]
    level: Column
    offered: Column
    sent: Column
    dropped: Column
    refused: Column
    failed: Column
    completed: Column
    in_flight: Column
    ttft_p50_s: Column
    ttft_p95_s: Column
    e2e_p50_s: Column
    e2e_p95_s: Column
    tokens_per_s: Column
    server_running: Column
    server_waiting: Column
    pods: Column
    ready: Column
    nodes: Column
    desired: Column
    usd_per_hour: Column


def series(
    plan: Plan,
    points: Sequence[Point],
    samples: Sequence[ServerSample] = (),
    timed: Sequence[Point] | None = None,
    stopped: bool = False,
) -> Series:
    """`timed` are the points whose first token counts, where they are others than `points`: those of the probe. The
    columns reach to the plan's end and to the last answer; of a run that was stopped, only to the latter."""
    length = _length(plan, points, stopped)
    counts = {name: [0] * length for name in ("sent", "dropped", "refused", "failed", "served", "gone")}
    e2e_s: list[list[float]] = [[] for _ in range(length)]
    ttft_s: list[list[float]] = [[] for _ in range(length)]

    def second(at_s: float) -> int:
        return min(max(0, int(at_s)), length - 1)

    for point in points:
        outcome = point.outcome
        if outcome == "dropped":
            counts["dropped"][second(point.due_s or 0.0)] += 1
            continue
        counts["sent"][second(point.sent_s)] += 1
        if outcome == "unfinished":
            continue
        ended = second(point.ended_s)
        counts[outcome][ended] += 1
        counts["gone"][ended] += 1
        if outcome == "served":
            e2e_s[ended].append(point.ended_s - _from_s(point))
    for point in points if timed is None else timed:
        if point.first_s is not None:
            ttft_s[second(point.first_s)].append(point.first_s - _from_s(point))
    came, gone = accumulate(counts["sent"]), accumulate(counts["gone"])
    ttft_p50, ttft_p95 = _percentiles(ttft_s)
    e2e_p50, e2e_p95 = _percentiles(e2e_s)
    server = _held(samples, length)
    return Series(
        t=tuple(range(length)),
        level=tuple(round(plan.level(t), 4) for t in range(length)),
        offered=_offered(plan, length),
        sent=tuple(counts["sent"]),
        dropped=tuple(counts["dropped"]),
        refused=tuple(counts["refused"]),
        failed=tuple(counts["failed"]),
        completed=tuple(counts["served"]),
        in_flight=tuple(a - b for a, b in zip(came, gone, strict=True)),
        ttft_p50_s=ttft_p50,
        ttft_p95_s=ttft_p95,
        e2e_p50_s=e2e_p50,
        e2e_p95_s=e2e_p95,
        tokens_per_s=_tokens(points, length),
        server_running=server["running"],
        server_waiting=server["waiting"],
        **{name: server[name] for name in ("pods", "ready", "nodes", "desired", "usd_per_hour")},
    )


def _length(plan: Plan, points: Iterable[Point], stopped: bool) -> int:
    """In seconds, at least 1. What lies past every time limit, as after a clock that was set, falls in the last one."""
    last_s = max((max(p.ended_s or 0.0, p.sent_s or 0.0, p.due_s or 0.0) for p in points), default=0.0)
    wanted_s = last_s if stopped else max(last_s, plan.duration_s)
    return int(min(wanted_s, plan.deadline_s + plan.timeout_s)) + 1


def _from_s(point: Point) -> float:
    return point.sent_s if point.due_s is None else point.due_s


def _percentiles(by_second: Iterable[list[float]]) -> tuple[Column, Column]:
    """p50 and p95, linear between the two nearest values."""
    ordered = [sorted(values) for values in by_second]
    p50, p95 = (tuple(round(quantile(one, q), 4) if one else None for one in ordered) for q in (0.5, 0.95))
    return p50, p95


def _offered(plan: Plan, length: int) -> Column:
    if plan.loop == "closed":
        return (None,) * length
    offered = [0] * length
    for due_s in plan.arrivals():
        second = int(due_s + 1e-9)
        if second < length:
            offered[second] += 1
    return tuple(offered)


def _tokens(points: Iterable[Point], length: int) -> Column:
    """Each answer's tokens at an even rate: the whole seconds by their differences, so that a long answer costs no more
    than a short one."""
    within, change = [0.0] * length, [0.0] * (length + 1)
    for point in points:
        if not point.completion_tokens or point.ended_s is None:
            continue
        from_s = point.sent_s if point.first_s is None else point.first_s
        first, last = (min(max(0, int(at_s)), length - 1) for at_s in (from_s, point.ended_s))
        if first == last:
            within[last] += point.completion_tokens
            continue
        rate = point.completion_tokens / (point.ended_s - from_s)
        within[first] += rate * (first + 1 - from_s)
        within[last] += rate * (point.ended_s - last)
        change[first + 1] += rate
        change[last] -= rate
    return tuple(round(abs(a + b), 1) for a, b in zip(within, accumulate(change[:length]), strict=True))


def _held(samples: Iterable[ServerSample], length: int) -> dict[str, Column]:
    """The last value of each figure that was known by the end of a second, and is not stale."""
    names = ("running", "waiting", "pods", "ready", "nodes", "desired", "usd_per_hour")
    columns: dict[str, list[float | None]] = {name: [None] * length for name in names}
    for sample in sorted(samples, key=lambda sample: sample.at_s):
        from_s, to_s = max(0, math.floor(sample.at_s)), min(length, math.floor(sample.at_s) + STALE_S + 1)
        for name in names:
            value = getattr(sample, name)
            if value is not None:
                columns[name][from_s:to_s] = [value] * max(0, to_s - from_s)
    return {name: tuple(column) for name, column in columns.items()}
