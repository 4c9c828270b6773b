"""The report's page: every figure and plot put together, as one file that fetches nothing and runs nothing."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from jinja2 import Environment
from markupsafe import Markup

from inference.cluster.chain import Chain, Step
from loadgen.plot import Plot, Series, clock, number, svg
from webapp.live.vitals import WHO
from webapp.report.answers import answers
from webapp.report.cluster import ClusterReport, cluster_report, spent_usd
from webapp.tape import Log
from webapp.timeline import Moment
from webapp.views import spike_mark
from webapp.views.cluster import TTFT_TARGET_S

SOURCES = {"audience": "audience", "amplified": "amplified", "scripted": "scripted", "api": "other API clients"}
assert SOURCES.keys() == set(WHO.values())


def page(log: Log, templates: Environment) -> str:
    """The HTML of a room's report. A room without a timeline has only its answers."""
    state = log.state()
    cluster = cluster_report(log.timeline) if log.timeline.moments else None
    style = templates.get_template("report/style.css").render()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    times_s = log.times_s or [log.info.created_ms / 1000]
    return templates.get_template("report/page.html").render(
        talk=state.talk,
        code=log.info.code,
        began=datetime.fromtimestamp(times_s[0], UTC),
        ended=datetime.fromtimestamp(times_s[-1], UTC),
        joined=len(state.people),
        scripted=state.scripted,
        rehearsal=state.rehearsal,
        responses=len(state.responses),
        activities=answers(state),
        cluster=cluster,
        plots=plots(log.timeline.moments, cluster) if cluster else [],
        chains=[waterfall(chain) for chain in cluster.chains] if cluster else [],
        spikes=[spike for spike in state.spikes.values() if spike.fired],
        spike_name=spike_mark.name,
        verdict_words=spike_mark.verdict_words,
        style=Markup(style),
        digest=digest,
        clock=clock,
        unix=lambda at_s: datetime.fromtimestamp(at_s, UTC).strftime("%H:%M:%S"),
        number=number,
        target_s=TTFT_TARGET_S,
    )


def plots(moments: Iterable[Moment], report: ClusterReport) -> list[tuple[str, Markup]]:
    """Each with its title."""
    moments = list(moments)
    seconds = [report.clock.t_s(moment.at_s) for moment in moments]
    marks = [(report.clock.t_s(chain.edge_at_s), f"spike {i}") for i, chain in enumerate(report.chains, 1)]

    def series(name: str, value: Callable[[Moment], float | None], steps: bool = False) -> Series:
        return Series(name, [(t_s, value(m)) for t_s, m in zip(seconds, moments, strict=True)], steps)

    def scaled(value: Callable[[Moment], float | None]) -> Callable[[Moment], float | None]:
        return lambda m: value(m) if m.cluster and m.cluster.autoscaler else None

    def clustered(value: Callable[[Moment], float | None]) -> Callable[[Moment], float | None]:
        return lambda m: value(m) if m.cluster else None

    spent = [(t_s, usd) for t_s, usd in zip(seconds, spent_usd(moments), strict=True)]
    drawn = [
        Plot(
            "queue",
            "Queue metric against its target",
            "requests",
            [
                series("metric", scaled(lambda m: m.cluster.autoscaler.metric)),
                series("target × ready pods", scaled(lambda m: m.cluster.autoscaler.target * m.cluster.ready), True),
            ],
            marks=marks,
        ),
        Plot(
            "pods",
            "Pods asked for and ready",
            "pods",
            [
                series("ready", clustered(lambda m: m.cluster.ready), True),
                series("asked for", scaled(lambda m: m.cluster.autoscaler.desired), True),
            ],
            marks=marks,
            whole=True,
        ),
        Plot(
            "ttft",
            "Time to first token",
            "seconds",
            [
                series("p95", lambda m: m.vitals.ttft_p95_s),
                series("p50", lambda m: m.vitals.ttft_p50_s),
                series("target", lambda m: TTFT_TARGET_S),
            ],
            marks=marks,
        ),
        Plot(
            "load",
            "Requests in flight, by who sent them",
            "requests",
            [series(words, lambda m, who=who: m.vitals.in_flight[who]) for who, words in SOURCES.items()],
            stacked=True,
            marks=marks,
        ),
        Plot(
            "tokens", "Tokens", "tokens/s", [series("tokens per second", lambda m: m.vitals.tokens_per_s)], marks=marks
        ),
    ]
    if report.totals.usd is not None:
        hourly = series("nodes, ordered ones too", clustered(lambda m: m.cluster.usd_per_hour), True)
        drawn += [
            Plot("hourly", "Cost per hour", "$/h", [hourly], marks=marks),
            Plot("spent", "Cost so far", "$", [Series("spent", spent)], marks=marks),
        ]
    return [(plot.title, Markup(svg(plot, seconds[-1]))) for plot in drawn]


def waterfall(chain: Chain) -> tuple[Chain, list[tuple[Step, int, int]]]:
    """The chain with, for each step, where its bar begins and how long it is, in thousandths of the whole: from the
    step before it to its own time."""
    whole_s = max((step.t_s for step in chain.steps if step.t_s is not None), default=0.0) or 1.0
    rows, before_s = [], 0.0
    for step in chain.steps:
        at_s = before_s if step.t_s is None else step.t_s
        start_s, end_s = min(before_s, at_s), max(before_s, at_s)
        rows.append((step, round(1000 * start_s / whole_s), round(1000 * (end_s - start_s) / whole_s)))
        before_s = at_s
    return chain, rows
