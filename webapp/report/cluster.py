"""What the timeline comes to: totals, costs and delay chains. Pure; times in seconds from the record's start, in which
pauses that nobody recorded are left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from inference.cluster.chain import Chain
from inference.cluster.snapshot import Happening
from webapp.record_clock import RecordClock
from webapp.timeline import Moment, Timeline
from webapp.views.cluster import TTFT_TARGET_S

PAUSE_S = 5.0
DECISIONS = ("scale", "hold", "interruption", "chaos", "source")


@dataclass(frozen=True, slots=True)
class NodeCost:
    """Of all nodes of a type. `usd` is None where no price is known."""

    instance_type: str
    capacity_type: str
    count: int
    hours: float
    usd: float | None


@dataclass(frozen=True, slots=True)
class Totals:
    """`recorded_s` without pauses. Requests, tokens and failures are the gateways' rates, summed up over time;
    `usd` is None where no price is known; `usd_per_million_tokens` where there were no tokens either."""

    recorded_s: float
    peak_in_flight: int
    peak_ready: int
    peak_metric: float | None
    requests: float
    tokens: float
    failed: float
    worst_ttft_p95_s: float | None
    over_target_s: float
    usd: float | None
    usd_per_million_tokens: float | None
    nodes: tuple[NodeCost, ...]


@dataclass(frozen=True, slots=True)
class ClusterReport:
    clock: RecordClock
    totals: Totals
    chains: tuple[Chain, ...]
    decisions: tuple[Happening, ...]
    happenings: tuple[Happening, ...]
    simulated: bool
    simulated_model: bool
    speed_up: float | None
    sources: tuple[str, ...]


def cluster_report(timeline: Timeline) -> ClusterReport:
    """Of a timeline that is not empty."""
    moments = timeline.moments
    clusters = [m.cluster for m in moments if m.cluster]
    return ClusterReport(
        clock=RecordClock.of([m.at_s for m in moments], PAUSE_S),
        totals=totals(moments),
        chains=timeline.chains,
        decisions=tuple(h for h in timeline.happenings if h.kind in DECISIONS),
        happenings=timeline.happenings,
        simulated=any(cluster.simulated for cluster in clusters),
        simulated_model=any(m.simulated for m in moments),
        speed_up=max((cluster.speed_up for cluster in clusters if cluster.speed_up), default=None),
        sources=tuple(sorted({cluster.source for cluster in clusters})),
    )


def lasting(moments: Sequence[Moment]) -> list[tuple[Moment, float]]:
    """Each moment with the seconds until the next, 0 before a pause and at the end."""
    gaps = [after.at_s - before.at_s for before, after in pairwise(moments)]
    return list(zip(moments, [gap if gap <= PAUSE_S else 0.0 for gap in gaps] + [0.0], strict=True)) if moments else []


def spent_usd(moments: Sequence[Moment]) -> list[float]:
    """What had been spent by each moment: each node's price, for as long as it was there."""
    spent, rows = 0.0, []
    for moment, lasted_s in lasting(moments):
        rows.append(spent)
        spent += ((moment.cluster and moment.cluster.usd_per_hour) or 0.0) * lasted_s / 3600
    return rows


def totals(moments: Sequence[Moment]) -> Totals:
    lasted = lasting(moments)

    def over_time(rate: Callable[[Moment], float]) -> float:
        return sum(rate(moment) * lasted_s for moment, lasted_s in lasted)

    clusters = [m.cluster for m in moments if m.cluster]
    p95_s = [m.vitals.ttft_p95_s for m in moments if m.vitals.ttft_p95_s is not None]
    metrics = [c.autoscaler.metric for c in clusters if c.autoscaler and c.autoscaler.metric is not None]
    priced = bool(clusters) and all(cluster.usd_per_hour is not None for cluster in clusters)
    usd = spent_usd(moments)[-1] if priced else None
    tokens = over_time(lambda m: m.vitals.tokens_per_s)
    return Totals(
        recorded_s=sum(lasted_s for _, lasted_s in lasted),
        peak_in_flight=max(sum(m.vitals.in_flight.values()) for m in moments),
        peak_ready=max((cluster.ready for cluster in clusters), default=0),
        peak_metric=max(metrics, default=None),
        requests=over_time(lambda m: m.vitals.requests_per_s),
        tokens=tokens,
        failed=over_time(lambda m: m.vitals.failed_per_min / 60),
        worst_ttft_p95_s=max(p95_s, default=None),
        over_target_s=over_time(lambda m: float((m.vitals.ttft_p95_s or 0) > TTFT_TARGET_S)),
        usd=usd,
        usd_per_million_tokens=usd / tokens * 1e6 if usd is not None and tokens else None,
        nodes=_nodes(lasted),
    )


def _nodes(lasted: Sequence[tuple[Moment, float]]) -> tuple[NodeCost, ...]:
    hours: Counter[tuple[str, str]] = Counter()
    usd: Counter[tuple[str, str]] = Counter()
    names: dict[tuple[str, str], set[str]] = {}
    unpriced: set[tuple[str, str]] = set()
    for moment, lasted_s in lasted:
        for node in moment.cluster.nodes if moment.cluster else ():
            key = node.instance_type, node.capacity_type
            hours[key] += lasted_s / 3600
            names.setdefault(key, set()).add(node.name)
            if node.usd_per_hour is None:
                unpriced.add(key)
            else:
                usd[key] += node.usd_per_hour * lasted_s / 3600
    return tuple(
        NodeCost(*key, len(names[key]), hours[key], None if key in unpriced else usd[key]) for key in sorted(names)
    )
