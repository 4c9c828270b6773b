"""The figures by which two runs are compared, and how far each could differ by chance. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from statistics import fmean, variance
from typing import Literal

from inference.openloop.summary import quantile
from loadgen.spike import figures
from loadgen.spike.bootstrap import Blocks, quantiles, ratios, resampled
from loadgen.spike.latency import timed
from loadgen.spike.plan import Plan
from loadgen.spike.point import LLM, Point
from loadgen.spike.summary import Summary

SURE = 0.99
"""So many figures are looked at that with 95 % one of them would nearly always seem to have changed."""
LEAST_SECONDS, LEAST_VALUES = 10, 20
HELD_S = 5
"""So long TTFT has to stay within its target before it counts as met again, as in the delay chain of a room."""
T_995 = (63.657, 9.925, 5.841, 4.604, 4.032, 3.707, 3.499, 3.355, 3.250, 3.169)
"""Student's t for 99 % on both sides, by degrees of freedom from 1."""
NEVER = math.inf

Unit = Literal["s", "share", "/s", "usd"]
Better = Literal["less", "more"]
Replicas = dict[str, list[float | None]]
"""What each figure was in each run that was resampled."""


@dataclass(frozen=True, slots=True)
class Figure:
    name: str
    label: str
    unit: Unit
    better: Better


QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
TIMES = {"ttft": "First token", "e2e": "Whole answer", "tpot": "Time per token"}
FIGURES = (
    *(Figure(f"{time}_{of}_s", f"{words} {of}", "s", "less") for time, words in TIMES.items() for of in QUANTILES),
    Figure("goodput_share", "Goodput", "share", "more"),
    Figure("served_share", "Answered in full", "share", "more"),
    Figure("failed_share", "Failed, of those sent", "share", "less"),
    Figure("completion_tokens_per_s", "Tokens", "/s", "more"),
    Figure("cost_usd", "Cost", "usd", "less"),
    Figure("met_again_s", "TTFT met again after", "s", "less"),
)


@dataclass(frozen=True, slots=True)
class Change:
    """From `a` to `b`, None where one is not known, NEVER where the target was not met again. `low` to `high` is where
    the difference lies in 99 of 100 such comparisons; without it there is no telling noise from change, and
    `beyond_noise` is None."""

    figure: Figure
    a: float | None
    b: float | None
    low: float | None = None
    high: float | None = None

    @property
    def difference(self) -> float | None:
        if self.a is None or self.b is None or NEVER in (self.a, self.b):
            return None
        return self.b - self.a

    @property
    def ratio(self) -> float | None:
        return self.b / self.a if self.difference is not None and self.a else None

    @property
    def beyond_noise(self) -> bool | None:
        return None if self.low is None or self.high is None else self.low > 0 or self.high < 0

    @property
    def better(self) -> bool | None:
        """Whether it is a change for the better; None where nothing is known to have changed."""
        if not self.beyond_noise or not self.difference:
            return None
        return (self.difference < 0) == (self.figure.better == "less")


def values(summary: Summary, plan: Plan) -> dict[str, float | None]:
    """Each figure of a run, as its summary has it."""
    loop, latency, counts = summary.about.loop, summary.latency, summary.counts
    times = {"ttft": latency.ttft_s.user(loop), "e2e": latency.e2e_s.user(loop), "tpot": latency.tpot_s}
    lost = counts.failed + counts.refused + counts.unfinished
    return {
        **{f"{name}_{of}_s": q and getattr(q, of) for name, q in times.items() for of in QUANTILES},
        "goodput_share": summary.goodput.share,
        "served_share": counts.served / counts.due if counts.due else None,
        "failed_share": lost / counts.sent if counts.sent else None,
        "completion_tokens_per_s": summary.tokens.completion_per_s,
        "cost_usd": summary.cost_usd,
        "met_again_s": met_again_s(summary, plan),
    }


def met_again_s(summary: Summary, plan: Plan) -> float | None:
    """From the plan's first rise to its peak until TTFT was back within the target and stayed there for HELD_S; 0 when
    it never left, NEVER when it did not come back."""
    corners = plan.corners()
    rise = next((i for i, (_, level) in enumerate(corners) if level == plan.peak), 0)
    if rise == 0 or not any(value is not None for value in summary.series.ttft_p95_s):
        return None
    edge_s, missed_at, held = corners[rise - 1][0], None, 0
    for at_s, well in _well(summary):
        if at_s < math.floor(edge_s):
            continue
        held = held + 1 if well else 0
        if not well:
            missed_at = at_s
        elif missed_at is not None and held == HELD_S:
            break
    if missed_at is None:
        return 0.0
    return max(0.0, missed_at + 1 - edge_s) if held else NEVER


def _well(summary: Summary) -> Iterator[tuple[int, bool]]:
    """Of each second whether its p95 was within the target. A second without a first token is as the one before it,
    until something that was sent has waited for longer than the target."""
    series, target_s = summary.series, summary.goodput.slo.ttft_s
    well, waits_from = True, None
    for at_s, p95_s, sent in zip(series.t, series.ttft_p95_s, series.sent, strict=True):
        if p95_s is not None:
            well, waits_from = p95_s <= target_s, None
        elif sent and waits_from is None:
            waits_from = at_s
        elif waits_from is not None and at_s - waits_from > target_s + 1:
            well = False
        yield at_s, well


def replicas(summary: Summary, plan: Plan, points: Iterable[Point], random: Random) -> Replicas:
    """A run's figures, from the run resampled; by the same `random`, runs of one length give the same seconds. Figures
    of which a run has one value, or too few to resample, are not among them."""
    points = list(points)
    tools = [point for point in points if point.by != "probe"]
    probed = [point for point in points if point.by == "probe"]
    main = [point for point in tools if point.kind in LLM] or tools
    planned = 0 if summary.about.stopped else math.ceil(plan.duration_s)
    seconds = max(planned, 1 + max((_second(point) for point in [*main, *probed]), default=0))
    if seconds < LEAST_SECONDS:
        return {}
    draws = resampled(seconds, random)
    first = timed(main, probed, summary.ttft_by)
    told = probed if summary.latency.tpot_by == "probe" else main
    found: Replicas = {}
    for name, of_time in {
        "ttft": [(_second(p), p.first_s - _from_s(p)) for p in first if p.outcome == "served"],
        "e2e": [(_second(p), p.ended_s - _from_s(p)) for p in main if p.outcome == "served"],
        "tpot": [(_second(p), p.tpot_s) for p in told if p.outcome == "served" and p.tpot_s is not None],
    }.items():
        if len(of_time) >= LEAST_VALUES:
            columns = quantiles(of_time, seconds, draws, tuple(QUANTILES.values()))
            found |= {f"{name}_{of}_s": column for of, column in zip(QUANTILES, columns, strict=True)}
    found |= _shares(summary, plan, main, first, seconds, draws)
    per_s = summary.tokens.completion_per_s
    each_s = summary.tokens.completion / per_s / seconds if per_s else 1.0  # as the summary counts: to the last answer
    tokens = [(figures.tokens(of_second, 0.0).completion, each_s) for of_second in _by_second(main, seconds)]
    return found | {"completion_tokens_per_s": ratios(tokens, draws)}


def _shares(
    summary: Summary, plan: Plan, main: Sequence[Point], first: Sequence[Point], seconds: int, draws: Sequence[Blocks]
) -> Replicas:
    counts = [figures.counts(of_second, None) for of_second in _by_second(main, seconds)]
    found = {
        "served_share": ratios([(c.served, c.sent + c.dropped) for c in counts], draws),
        "failed_share": ratios([(c.sent - c.served, c.sent) for c in counts], draws),
    }
    if summary.goodput.share is None:
        return found
    judged = _by_second([point for point in first if point.outcome == "served"], seconds)
    met = [figures.goodput(plan, figures.counts(one, None), one, "token", 0.0).met or 0 for one in judged]
    if summary.goodput.by != "probe":
        due = [c.sent + c.dropped for c in counts]
        return found | {"goodput_share": ratios(list(zip(met, due, strict=True)), draws)}
    of_probe = ratios([(m, len(one)) for m, one in zip(met, judged, strict=True)], draws)
    pairs = zip(of_probe, found["served_share"], strict=True)
    return found | {"goodput_share": [a * b if a is not None and b is not None else None for a, b in pairs]}


def between(figure: Figure, a: float | None, b: float | None, of_a: Replicas, of_b: Replicas) -> Change:
    """Of one run each: the middle 99 % of the differences between the two, resampled together or each by itself."""
    pairs = zip(of_a.get(figure.name, ()), of_b.get(figure.name, ()), strict=False)
    differences = sorted(b - a for a, b in pairs if a is not None and b is not None)
    if len(differences) < LEAST_VALUES:
        return Change(figure, a, b)
    return Change(figure, a, b, quantile(differences, (1 - SURE) / 2), quantile(differences, (1 + SURE) / 2))


def between_means(figure: Figure, of_a: Sequence[float | None], of_b: Sequence[float | None]) -> Change:
    """Of several runs: the means, and Welch's interval of their difference (B. L. Welch, Biometrika 34, 1947), which
    takes what runs differ by for normal. A side of a single run is taken to spread as the other does."""
    a, b = ([value for value in side if value is not None] for side in (of_a, of_b))
    if not a or not b:
        return Change(figure, fmean(a) if a else None, fmean(b) if b else None)
    if NEVER in (*a, *b) or max(len(a), len(b)) < 2:
        return Change(figure, fmean(a), fmean(b))
    spread_a, spread_b = (variance(side) if len(side) > 1 else None for side in (a, b))
    terms = [
        ((spread_a if spread_a is not None else spread_b) / len(a), len(a) - 1),
        ((spread_b if spread_b is not None else spread_a) / len(b), len(b) - 1),
    ]
    square = sum(term for term, _ in terms)
    under = sum(term * term / freedom for term, freedom in terms if freedom)
    freedom = square * square / under if under else 1.0
    reach = _t(min(freedom, len(a) + len(b) - 2)) * math.sqrt(square)
    middle = fmean(b) - fmean(a)
    return Change(figure, fmean(a), fmean(b), middle - reach, middle + reach)


def _t(freedom: float) -> float:
    """Student's t for 99 %; beyond the table the first terms of its expansion around the normal (M. Abramowitz and
    I. A. Stegun, Handbook of Mathematical Functions, 26.7.5), to three digits."""
    whole = max(1, math.floor(freedom))
    if whole <= len(T_995):
        return T_995[whole - 1]
    z = 2.575829
    return z + (z**3 + z) / (4 * whole) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * whole * whole)


def _by_second(points: Iterable[Point], seconds: int) -> list[list[Point]]:
    found: list[list[Point]] = [[] for _ in range(seconds)]
    for point in points:
        found[_second(point)].append(point)
    return found


def _second(point: Point) -> int:
    """A request belongs to the second in which it was due, so that a backlog stays with the load that made it."""
    return max(0, int(_from_s(point)))


def _from_s(point: Point) -> float:
    return (point.sent_s or 0.0) if point.due_s is None else point.due_s
