"""What a run comes to, in the numbers by which two ways to scale are compared. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from inference.cluster.chain import TTFT_TARGET_MS
from inference.openloop.summary import quantile
from webapp.rehearse.rehearsal import Run

TARGET_S = TTFT_TARGET_MS / 1000


@dataclass(frozen=True, slots=True)
class Figures:
    """Times in seconds; None where there is nothing to measure.

    `ttft` counts every request that got a first token, from its arrival at the gateway; `ttft_p95_first_s` only those
    of the first activity that makes any. `over_target` are requests whose first token took more than a second or never
    came. `short_s` is how long fewer pods were ready than asked for. `enough_s` is the time from that first activity's
    opening until as many pods were ready as were asked for at most before the next activity. Hours and dollars are of
    all nodes, from when the code was shown until fifteen minutes after the talk.
    """

    requests: int
    answered: int
    refused: int
    broken: int
    ttft_p50_s: float | None
    ttft_p95_s: float | None
    ttft_p99_s: float | None
    ttft_p95_first_s: float | None
    over_target: int
    gpu_hours: float
    usd: float
    peak_pods: int
    short_s: int
    enough_s: float | None
    nodes: tuple[str, ...]


def figures(run: Run) -> Figures:
    ttft = sorted(call.ttft_s for call in run.calls if call.ttft_s is not None)
    first = run.calls[0].request.activity if run.calls else None
    of_first = sorted(c.ttft_s for c in run.calls if c.ttft_s is not None and c.request.activity == first)
    outcomes = [call.outcome for call in run.calls]
    return Figures(
        requests=len(run.calls),
        answered=outcomes.count("answered"),
        refused=outcomes.count("refused"),
        broken=outcomes.count("broken"),
        ttft_p50_s=_quantile(ttft, 0.5),
        ttft_p95_s=_quantile(ttft, 0.95),
        ttft_p99_s=_quantile(ttft, 0.99),
        ttft_p95_first_s=_quantile(of_first, 0.95),
        over_target=sum(call.ttft_s is None or call.ttft_s > TARGET_S for call in run.calls),
        gpu_hours=run.gpu_hours,
        usd=run.usd,
        peak_pods=max((point.pods for point in run.points), default=0),
        short_s=sum(point.ready < point.desired for point in run.points),
        nodes=tuple(sorted(" ".join(one) for one in run.bought)),
        enough_s=None if first is None else _enough_s(run, first),
    )


def _enough_s(run: Run, activity: str) -> float | None:
    opened = {slot.activity.id: slot.opens_s for slot in run.script.slots}
    open_s = opened[activity]
    next_s = min((at_s for at_s in opened.values() if at_s > open_s), default=run.script.ends_s)
    since = [point for point in run.points if point.at_s >= open_s]
    most = max((point.desired for point in since if point.at_s < next_s), default=0)
    return next((point.at_s - open_s for point in since if point.ready >= most), None)


def _quantile(ordered: list[float], share: float) -> float | None:
    return quantile(ordered, share) if ordered else None
