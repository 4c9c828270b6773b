"""The figures of a run beside its latencies: counts, goodput, tokens, and those of its parts. Pure.

Shares count every request that was planned (open loop) or sent (closed loop): one that failed, was refused, dropped or
left unfinished has missed every target.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from loadgen.spike.latency import Both, FirstBy, Latency, Quantiles, e2e, itl, tpot, ttft
from loadgen.spike.plan import Plan, Slo
from loadgen.spike.point import Point
from loadgen.spike.server import Counted
from loadgen.spike.thresholds import OF

ERRORS_MAX = 20
ERROR_CHARS = 200
OTHER_ERRORS = "other errors"
SAME_SHARE = 0.05
"""Client and server are taken to have counted the same requests when their counts differ by no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """`planned` is None in a closed loop; of a run that was stopped, what was due until then. `sent` is the sum of
    those served, refused, failed and unfinished. `errors` by their text, of all that was sent and not served."""

    planned: int | None
    sent: int
    dropped: int
    served: int
    refused: int
    failed: int
    unfinished: int
    errors: dict[str, int] = field(default_factory=dict)

    @property
    def due(self) -> int:
        """What shares are of."""
        return self.sent if self.planned is None else max(self.planned, self.sent + self.dropped)


@dataclass(frozen=True, slots=True)
class Goodput:
    """Requests that met both targets, `met` of `of`. By the probe it is an estimate: the share of the probe's served
    requests that met them, times what the tool was served. None where no first token or no count of tokens is known.
    `per_s` is until the last answer."""

    share: float | None
    met: int | None
    of: int
    per_s: float | None
    slo: Slo
    by: FirstBy


@dataclass(frozen=True, slots=True)
class Tokens:
    """As the server counted them, of answers in full; a second until the last answer."""

    prompt: int
    completion: int
    completion_per_s: float


@dataclass(frozen=True, slots=True)
class Probe:
    """The requests of our own reader beside the tool, apart from the tool's."""

    counts: Counts
    ttft_s: Both
    tpot_s: Quantiles | None
    itl_s: Quantiles | None
    e2e_s: Both


@dataclass(frozen=True, slots=True)
class KindFigures:
    """One kind of requests; `failed` is all that was sent and not served, `e2e_s` counts from the sending."""

    sent: int
    served: int
    failed: int
    e2e_s: Quantiles | None


@dataclass(frozen=True, slots=True)
class CellFigures:
    """One cell of a matrix; times from the sending, tokens a second over the cell's time."""

    model: str
    users: int
    batch: int
    sent: int
    served: int
    failed: int
    e2e_s: Quantiles | None
    ttft_s: Quantiles | None
    completion_per_s: float


@dataclass(frozen=True, slots=True)
class Gap:
    """Mean TTFT over the same requests: ours from the sending, and ours less the server's."""

    client_mean_s: float
    server_mean_s: float
    gap_s: float


@dataclass(frozen=True, slots=True)
class Server:
    """What the server's own histograms counted meanwhile. `gap` is None where they counted other requests than we."""

    source: str
    ttft_mean_s: float | None
    ttft_count: int
    e2e_mean_s: float | None
    gap: Gap | None


def counts(points: Sequence[Point], planned: int | None) -> Counts:
    found = Counter(point.outcome for point in points)
    return Counts(
        planned=planned,
        sent=len(points) - found["dropped"],
        **{name: found[name] for name in ("dropped", "served", "refused", "failed", "unfinished")},
        errors=_errors(points),
    )


def goodput(plan: Plan, counts: Counts, timed: Iterable[Point], by: FirstBy, end_s: float) -> Goodput:
    """`timed` are the points whose first token counts. Both targets after vLLM's `bench serve --goodput`; TTFT from the
    scheduled time where there is one."""
    met = 0
    if counts.served:
        judged = [point for point in timed if point.outcome == "served"]
        if not any(point.completion_tokens for point in judged):
            return Goodput(None, None, counts.due, None, plan.slo, by)
        met = sum(_met(point, plan.slo) for point in judged)
        if by == "probe":
            met = round(met / len(judged) * counts.served)
    share = met / counts.due if counts.due else None
    return Goodput(share, met, counts.due, met / end_s if end_s > 0 else None, plan.slo, by)


def tokens(points: Iterable[Point], end_s: float) -> Tokens:
    served = [point for point in points if point.outcome == "served"]
    completion = sum(point.completion_tokens or 0 for point in served)
    prompt = sum(point.prompt_tokens or 0 for point in served)
    return Tokens(prompt, completion, completion / end_s if end_s > 0 else 0.0)


def probe(points: Sequence[Point]) -> Probe | None:
    if not points:
        return None
    served = [point for point in points if point.outcome == "served"]
    return Probe(counts(points, None), ttft(served), tpot(served), itl(served), e2e(served))


def kinds(points: Iterable[Point]) -> dict[str, KindFigures]:
    """In the order of their names."""
    by_kind: dict[str, list[Point]] = {}
    for point in points:
        by_kind.setdefault(point.kind, []).append(point)
    return {kind: _kind(of_kind) for kind, of_kind in sorted(by_kind.items())}


def cells(plan: Plan, points: Iterable[Point]) -> tuple[CellFigures, ...]:
    by_cell: dict[int | None, list[Point]] = {}
    for point in points:
        by_cell.setdefault(point.cell, []).append(point)
    found = []
    for index, cell in enumerate(plan.cells):
        ours = by_cell.get(index, [])
        kind, length_s = _kind(ours), cell.to_s - cell.from_s
        per_s = tokens(ours, length_s).completion_per_s
        figures = (kind.sent, kind.served, kind.failed, kind.e2e_s, ttft(ours).service, per_s)
        found.append(CellFigures(cell.model, cell.users, cell.batch, *figures))
    return tuple(found)


def server(counted: Counted | None, points: Iterable[Point]) -> tuple[Server | None, str]:
    """What the server counted, beside the mean of all first tokens that we saw, the probe's too: the server has counted
    those as well, and requests that failed later. And why there is no gap, if there is none."""
    if counted is None:
        return None, "its metrics can't be read, or its counters began anew meanwhile."
    seen = [point.first_s - point.sent_s for point in points if point.first_s is not None and point.sent_s is not None]
    said = (counted.source, counted.ttft_mean_s, counted.ttft_count, counted.e2e_mean_s)
    if not seen or counted.ttft_mean_s is None:
        return Server(*said, None), "no first token was seen here." if not seen else "it counted none."
    if abs(len(seen) - counted.ttft_count) > max(1, SAME_SHARE * counted.ttft_count):
        why = f"it counted {counted.ttft_count:,} first tokens and we {len(seen):,}: not the same requests."
        return Server(*said, None), why
    mean_s = sum(seen) / len(seen)
    return Server(*said, Gap(mean_s, counted.ttft_mean_s, mean_s - counted.ttft_mean_s)), ""


def by_name(
    plan: Plan,
    counts: Counts,
    kinds: Mapping[str, KindFigures],
    latency: Latency,
    goodput: Goodput,
    tokens: Tokens,
    end_s: float,
) -> dict[str, float | None]:
    """The figures of thresholds, those of kinds that there were too. `failed_share` is that of the kind with the
    greatest one: a thousand polls do not hide a lost answer. A share of nothing is not known."""
    found: dict[str, float | None] = {
        **{name: getattr(counts, name) for name in ("sent", "served", "failed", "refused", "unfinished", "dropped")},
        "planned": counts.planned,
        "served_share": counts.served / counts.due if counts.due else None,
        "failed_share": max((one.failed / one.sent for one in kinds.values() if one.sent), default=None),
        "goodput_share": goodput.share,
        "served_per_s": counts.served / end_s if end_s > 0 else 0.0,
        "goodput_per_s": goodput.per_s,
        "completion_tokens_per_s": tokens.completion_per_s,
    }
    times = {
        "ttft": latency.ttft_s.user(plan.loop),
        "e2e": latency.e2e_s.user(plan.loop),
        "service_ttft": latency.ttft_s.service,
        "service_e2e": latency.e2e_s.service,
        "tpot": latency.tpot_s,
        "itl": latency.itl_s,
        "headers": latency.headers_s,
    }
    for kind, one in kinds.items():
        times[f"{kind}_e2e"] = one.e2e_s
        found[f"{kind}_served"] = one.served
        found[f"{kind}_failed_share"] = one.failed / one.sent if one.sent else None
    for name, quantiles in times.items():
        for of in OF:
            found[f"{name}_{of}_ms"] = None if quantiles is None else getattr(quantiles, of) * 1000
    return found


def _met(point: Point, slo: Slo) -> bool:
    from_s = point.sent_s if point.due_s is None else point.due_s
    one_token = point.completion_tokens == 1
    paced = one_token or (point.tpot_s is not None and point.tpot_s <= slo.tpot_s)
    return point.first_s - from_s <= slo.ttft_s and paced


def _kind(points: Sequence[Point]) -> KindFigures:
    sent = sum(point.outcome != "dropped" for point in points)
    served = sum(point.outcome == "served" for point in points)
    return KindFigures(sent, served, sent - served, e2e(points).service)


def _errors(points: Iterable[Point]) -> dict[str, int]:
    """The most frequent first."""
    texts: Counter[str] = Counter()
    for point in points:
        if point.outcome == "unfinished":
            texts["unfinished when the run ended"] += 1
        elif point.outcome in ("refused", "failed"):
            texts[point.error[:ERROR_CHARS] or f"status {point.status}"] += 1
    ordered = sorted(texts.items(), key=lambda item: (-item[1], item[0]))
    rest = sum(count for _, count in ordered[ERRORS_MAX:])
    return dict(ordered[:ERRORS_MAX]) | ({OTHER_ERRORS: rest} if rest else {})
