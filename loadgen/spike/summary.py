"""What came of a run: `summary.json`, version 1. Pure.

The headline figures are of the LLM's requests where there are any; a phone's other requests are in `kinds`. The probe's
are never among the tool's. How each figure is made: `latency`, `figures`, `series`, `verdict`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from loadgen.spike import figures
from loadgen.spike.figures import CellFigures, Counts, Goodput, KindFigures, Probe, Server, Tokens
from loadgen.spike.generator import Usage
from loadgen.spike.latency import FirstBy, Latency, Quantiles, first_by, latency, timed
from loadgen.spike.plan import Loop, Plan
from loadgen.spike.point import LLM, Point
from loadgen.spike.series import Series, series
from loadgen.spike.server import ServerSample, cost_usd, counted
from loadgen.spike.thresholds import evaluate, thresholds_of
from loadgen.spike.verdict import Evidence, Verdict, judge

VERSION = 1


class BadSummary(ValueError):
    """Not a summary, or one of a version that is not read here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """`what` the target is, in words; `unit` is that of the plan's levels and of `peak`; `machine` is the generator's.
    `stopped`: somebody ended the run before its time."""

    scenario: str
    tool: str
    tool_version: str
    target: str
    model: str
    loop: Loop
    unit: str
    seed: int
    peak: float
    duration_s: float
    started_at: str
    machine: str
    tool_on: Literal["here", "kubernetes"] = "here"
    what: str = ""
    simulated: bool = False
    holds_headers: bool = False
    room: str = ""
    stopped: bool = False


@dataclass(frozen=True, slots=True)
class Generator:
    """`Usage`, and how late requests went out."""

    cpu_cores: float
    cpu_share: float | None
    others_share: float | None
    loop_lag_p99_s: float | None
    rss_mb: float | None
    send_lag: Quantiles | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """`chain` is the delay chain as the room's stage tells it: `step`, `label`, `short`, `t_s` from the edge and
    `why_not`. `cost_usd` is the whole cluster's, until the last answer."""

    id: str
    about: About
    counts: Counts
    latency: Latency
    ttft_by: FirstBy
    goodput: Goodput
    tokens: Tokens
    probe: Probe | None
    kinds: dict[str, KindFigures]
    cells: tuple[CellFigures, ...]
    series: Series
    server: Server | None
    cost_usd: float | None
    chain: list[dict[str, Any]] | None
    generator: Generator
    verdict: Verdict
    troubles: tuple[str, ...]
    version: int = VERSION

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> Summary:
        """Raises BadSummary."""
        try:
            data = json.loads(text)
            if data["version"] != VERSION:
                raise BadSummary(f"This summary has version {data['version']!r}; version {VERSION} is read here.")
            return _read(cls, data)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            if isinstance(error, BadSummary):
                raise
            raise BadSummary(f"Not a run's summary: {error}") from None


def summarize(
    plan: Plan,
    points: Sequence[Point],
    samples: Sequence[ServerSample],
    usage: Usage,
    about: About,
    *,
    run_id: str = "",
    chain: list[dict[str, Any]] | None = None,
    troubles: Sequence[str] = (),
) -> Summary:
    """`points` and `samples` in the run's time, the probe's points among them; their order does not matter. Raises
    BadThreshold for a plan whose thresholds say nothing."""
    tools = [point for point in points if point.by != "probe"]
    probed = [point for point in points if point.by == "probe"]
    main = [point for point in tools if point.kind in LLM] or tools
    by = first_by(main, probed)
    first = timed(main, probed, by)
    end_s = max((point.ended_s for point in main if point.ended_s is not None), default=0.0)
    counts = figures.counts(main, _planned(plan, main, about.stopped))
    times = latency(main, probed, by)
    kinds = figures.kinds(tools)
    tokens = figures.tokens(main, end_s)
    goodput = figures.goodput(plan, counts, first, by, end_s)
    lag = Quantiles.of(max(0.0, p.sent_s - p.due_s) for p in main if p.sent_s is not None and p.due_s is not None)
    server, no_gap = figures.server(counted(samples), [*main, *probed])
    named = figures.by_name(plan, counts, kinds, times, goodput, tokens, end_s)
    evidence = Evidence(
        loop=plan.loop,
        planned=counts.planned,
        sent=counts.sent,
        dropped=counts.dropped,
        answered=sum(point.status > 0 or point.outcome == "served" for point in tools),
        max_in_flight=plan.max_in_flight,
        send_lag_p99_s=lag.p99 if lag else None,
        e2e_p50_s=times.e2e_s.service.p50 if times.e2e_s.service else None,
        cpu_share=usage.cpu_share,
        loop_lag_p99_s=usage.loop_lag_p99_s,
        client_ttft_s=server.gap.client_mean_s if server and server.gap else None,
        server_ttft_s=server.gap.server_mean_s if server and server.gap else None,
        no_gap=no_gap,
        troubles=tuple(troubles),
    )
    return Summary(
        id=run_id,
        about=about,
        counts=counts,
        latency=times,
        ttft_by=by,
        goodput=goodput,
        tokens=tokens,
        probe=figures.probe(probed),
        kinds=kinds,
        cells=figures.cells(plan, main),
        series=series(plan, main, samples, first, about.stopped),
        server=server,
        cost_usd=cost_usd(samples, end_s),
        chain=chain,
        generator=Generator(**asdict(usage), send_lag=lag),
        verdict=judge(evidence, evaluate(thresholds_of(plan), named), about.stopped),
        troubles=tuple(troubles),
    )


def _planned(plan: Plan, points: Sequence[Point], stopped: bool) -> int | None:
    return len(points) if stopped and plan.loop == "open" else plan.planned


def _read(kind: Any, data: Any) -> Any:
    """What `asdict` made of a value of this type. Raises TypeError, KeyError, AttributeError."""
    if is_dataclass(kind):
        types = get_type_hints(kind)
        return kind(**{name: _read(types[name], value) for name, value in data.items()})
    args = get_args(kind)
    if get_origin(kind) is UnionType:
        return None if data is None else _read(next(one for one in args if one is not NoneType), data)
    if get_origin(kind) is tuple:
        return tuple(_read(args[0], one) for one in data)
    if get_origin(kind) is dict:
        return {key: _read(args[1], value) for key, value in data.items()}
    return data
