"""The figures of a run, as one compares two servers by. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise

from inference.engine.simulation import Served
from inference.openloop.client import Run


@dataclass(frozen=True, slots=True)
class Summary:
    """Times in milliseconds from the planned arrival; `running` and `waiting` are averages over the time in which
    requests arrived; `throughput` is tokens a second in that time."""

    ttft_p50_ms: float
    ttft_p95_ms: float
    itl_p50_ms: float
    itl_p95_ms: float
    e2e_p50_ms: float
    e2e_p95_ms: float
    running: float
    waiting: float
    throughput: float


FIGURES = tuple(f.name for f in fields(Summary))


def summarize(runs: Sequence[Run], duration_s: float) -> Summary:
    """Of one run or of several together, each with `duration_s` of arrivals. At least one request must have been
    served; those that got no answer are in no figure, so look at the failed ones first."""
    served = [one for run in runs for one in run.served]
    ttft, itl, e2e = (sorted(values) for values in (ttfts_ms(served), itls_ms(served), e2es_ms(served)))
    within = [sample for run in runs for sample in run.samples if 0 <= sample.at_s <= duration_s]
    return Summary(
        quantile(ttft, 0.5),
        quantile(ttft, 0.95),
        quantile(itl, 0.5),
        quantile(itl, 0.95),
        quantile(e2e, 0.5),
        quantile(e2e, 0.95),
        _mean([sample.running for sample in within]),
        _mean([sample.waiting for sample in within]),
        tokens_per_s(served, 0.0, duration_s) / len(runs),
    )


def tokens_per_s(served: Iterable[Served], from_s: float, to_s: float) -> float:
    return sum(sum(from_s <= at_s < to_s for at_s in one.token_s) for one in served) / (to_s - from_s)


def ttfts_ms(served: Iterable[Served]) -> list[float]:
    return [one.ttft_s * 1000 for one in served]


def itls_ms(served: Iterable[Served]) -> list[float]:
    """From one delivery of a stream to its next; tokens that came together are one delivery."""
    gaps = (later - at for one in served for at, later in pairwise(one.token_s))
    return [gap * 1000 for gap in gaps if gap > 0]


def e2es_ms(served: Iterable[Served]) -> list[float]:
    return [one.e2e_s * 1000 for one in served]


def quantile(ordered: Sequence[float], share: float) -> float:
    """Linear between the two nearest of the ordered values; 0 when there are none."""
    if not ordered:
        return 0.0
    at = share * (len(ordered) - 1)
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
