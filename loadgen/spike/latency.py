"""How long requests took, from the scheduled time and from the sending, and who saw the first token come. Pure.

Percentiles are linear between the two nearest of the ordered values, over requests that were served.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

from inference.openloop.summary import quantile
from loadgen.spike.plan import Loop
from loadgen.spike.point import Point

FirstBy = Literal["token", "held headers", "probe", ""]


@dataclass(frozen=True, slots=True)
class Quantiles:
    count: int
    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    max: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Quantiles | None:
        """None of nothing."""
        ordered = sorted(values)
        if not ordered:
            return None
        mean = min(max(ordered[0], sum(ordered) / len(ordered)), ordered[-1])
        return cls(len(ordered), mean, *(quantile(ordered, q) for q in (0.5, 0.9, 0.95, 0.99)), ordered[-1])


@dataclass(frozen=True, slots=True)
class Both:
    """From the scheduled time (None in a closed loop), and from the sending. Seconds."""

    scheduled: Quantiles | None = None
    service: Quantiles | None = None

    def user(self, loop: Loop) -> Quantiles | None:
        """What somebody waited who came when it was planned; a closed loop has no plan."""
        return self.scheduled if loop == "open" else self.service


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """`tpot_s` and `itl_s` are the probe's where the tool saw no tokens come; `tpot_by` and `itl_by` say who measured
    them. `headers_s` counts from the sending. Seconds."""

    ttft_s: Both
    e2e_s: Both
    tpot_s: Quantiles | None
    itl_s: Quantiles | None
    headers_s: Quantiles | None
    tpot_by: str = ""
    itl_by: str = ""


def first_by(main: Iterable[Point], probed: Iterable[Point]) -> FirstBy:
    """Who saw the first tokens that count: a reader in the tool, else headers that the gateway held until then, else
    the probe."""
    said = {point.first_by for point in main if point.first_s is not None}
    if "token" in said:
        return "token"
    if "held headers" in said:
        return "held headers"
    return "probe" if any(point.first_s is not None for point in probed) else ""


def timed(main: Iterable[Point], probed: Iterable[Point], by: FirstBy) -> list[Point]:
    """The points whose first token counts."""
    if by == "probe":
        return [point for point in probed if point.first_s is not None]
    return [point for point in main if point.first_s is not None and point.first_by == by]


def latency(main: Sequence[Point], probed: Sequence[Point], by: FirstBy) -> Latency:
    """Of the tool's points and of the probe's."""
    served, probe_served = _served(main), _served(probed)
    tpot_s, tpot_by = _whose(tpot, served, probe_served)
    itl_s, itl_by = _whose(itl, served, probe_served)
    return Latency(
        ttft_s=ttft(timed(main, probed, by)),
        e2e_s=e2e(main),
        tpot_s=tpot_s,
        itl_s=itl_s,
        headers_s=Quantiles.of(p.headers_s - p.sent_s for p in served if p.headers_s is not None),
        tpot_by=tpot_by,
        itl_by=itl_by,
    )


def ttft(points: Iterable[Point]) -> Both:
    """Of served points with a first token."""
    known = [point for point in _served(points) if point.first_s is not None]
    return Both(
        Quantiles.of(p.first_s - p.due_s for p in known if p.due_s is not None),
        Quantiles.of(p.first_s - p.sent_s for p in known),
    )


def e2e(points: Iterable[Point]) -> Both:
    served = _served(points)
    return Both(
        Quantiles.of(p.ended_s - p.due_s for p in served if p.due_s is not None),
        Quantiles.of(p.ended_s - p.sent_s for p in served),
    )


def tpot(served: Iterable[Point]) -> Quantiles | None:
    return Quantiles.of(point.tpot_s for point in served if point.tpot_s is not None)


def itl(served: Iterable[Point]) -> Quantiles | None:
    """Between two deliveries of a stream; tokens that came together are one delivery."""
    return Quantiles.of(gap / 1000 for gap in chain.from_iterable(point.gaps_ms for point in served))


def _whose(
    measure: Callable[[Iterable[Point]], Quantiles | None], served: Sequence[Point], probed: Sequence[Point]
) -> tuple[Quantiles | None, str]:
    for points in (served, probed):
        if (found := measure(points)) is not None:
            return found, points[0].by
    return None, ""


def _served(points: Iterable[Point]) -> list[Point]:
    return [point for point in points if point.outcome == "served"]
