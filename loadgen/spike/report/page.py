"""The report's page: verdict, figures and plots of one run, in a file that opens without a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from loadgen.plot import clock, number
from loadgen.spike.latency import Both, Quantiles
from loadgen.spike.plan import Plan
from loadgen.spike.report.plots import plots
from loadgen.spike.report.rendering import rendered
from loadgen.spike.report.words import BY, count, percent, some, took
from loadgen.spike.summary import Summary

MAX_ROWS = 600
COLUMNS = {
    "level": "level",
    "offered": "offered",
    "sent": "sent",
    "dropped": "dropped",
    "refused": "refused",
    "failed": "failed",
    "completed": "answered",
    "in_flight": "in flight",
    "ttft_p50_s": "TTFT p50, s",
    "ttft_p95_s": "TTFT p95, s",
    "e2e_p50_s": "answer p50, s",
    "e2e_p95_s": "answer p95, s",
    "tokens_per_s": "tokens",
    "server_running": "running",
    "server_waiting": "waiting",
    "pods": "pods",
    "ready": "ready",
    "desired": "asked for",
    "nodes": "nodes",
    "usd_per_hour": "$/h",
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """A verdict for people."""

    word: str
    text: str
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Table:
    """A row for each second that has any of the columns `names`; in a long run for several, the highest of each."""

    names: tuple[str, ...]
    rows: tuple[tuple[float, tuple[float | None, ...]], ...]
    per_row_s: int


def page(summary: Summary, plan: Plan) -> str:
    """The HTML. Texts from servers, scripts and rooms are data in it."""
    table = by_second(summary)
    return rendered(
        "page.html",
        title=title(summary),
        scenario=scenario(summary),
        summary=summary,
        outcome=outcome(summary),
        in_unit=in_unit,
        by=BY[summary.ttft_by],
        main=lambda both: both.user(summary.about.loop),
        beside=beside,
        began=datetime.fromisoformat(summary.about.started_at).strftime("%-d %B %Y, %H:%M:%S UTC"),
        plots=plots(summary, plan),
        table=table,
        per_row_s=table.per_row_s,
        chain=waterfall(summary.chain or ()),
        latencies=latencies(summary),
        server=server(summary),
        errors=sorted(summary.counts.errors.items(), key=lambda one: -one[1]),
        generator=generator(summary),
    )


def title(summary: Summary) -> str:
    about = summary.about
    return f"{about.scenario.capitalize()} to {number(about.peak)} {about.unit}"


def scenario(summary: Summary) -> str:
    about = summary.about
    cut = ", stopped before its end" if about.stopped else ""
    return f"{about.scenario}, {about.loop} loop, {clock(about.duration_s)} min{cut}"


def outcome(summary: Summary) -> Outcome:
    verdict = summary.verdict
    if verdict.verdict == "pass":
        return Outcome("Pass", "Every threshold was met, and the generator kept up with its plan.")
    if verdict.verdict == "fail":
        missed = [f"{held.text}: {_measured(held.value)}" for held in verdict.thresholds if not held.ok]
        lost = some(len(missed), "threshold was", "thresholds were")
        return Outcome("Fail", f"{lost} missed, and the generator kept up with its plan.", tuple(missed))
    if verdict.verdict == "stopped":
        return Outcome("Stopped", "The run was stopped before its end. Its figures are of the time until then.")
    return Outcome("Invalid", "This run says nothing of its target, whatever its figures are.", verdict.reasons)


def beside(both: Both, share: str) -> str:
    """What the figure counts from, with the other one where there are both."""
    if both.scheduled and both.service:
        return f"from the scheduled time; service {took(getattr(both.service, share))}"
    return "from the sending" if both.service else ""


def latencies(summary: Summary) -> list[tuple[str, Quantiles]]:
    latency, probe = summary.latency, summary.probe
    rows = [
        ("First token, from the scheduled time", latency.ttft_s.scheduled),
        ("First token, service", latency.ttft_s.service),
        ("Whole answer, from the scheduled time", latency.e2e_s.scheduled),
        ("Whole answer, service", latency.e2e_s.service),
        (f"Time per token (TPOT){_by(latency.tpot_by)}", latency.tpot_s),
        (f"Between deliveries (ITL){_by(latency.itl_by)}", latency.itl_s),
        ("Headers", latency.headers_s),
        ("Probe: first token, service", probe and probe.ttft_s.service),
        ("Probe: whole answer, service", probe and probe.e2e_s.service),
        ("Generator: sent after it was due", summary.generator.send_lag),
    ]
    return [(label, q) for label, q in rows if q]


def server(summary: Summary) -> list[tuple[str, int | None, float | None]]:
    """(label, requests, seconds) of the mean TTFT as both sides have it."""
    if summary.server is None:
        return []
    gap = summary.server.gap
    ours = summary.latency.ttft_s.service
    rows = [
        ("Here, from the sending", ours and ours.count, gap.client_mean_s if gap else ours and ours.mean),
        (f"By the server's own count ({summary.server.source})", summary.server.ttft_count, summary.server.ttft_mean_s),
    ]
    return [*rows, ("Difference", None, gap.gap_s)] if gap else rows


def generator(summary: Summary) -> str:
    """What it used, in a sentence."""
    used = summary.generator
    parts = [
        used.cpu_share is not None and f"{percent(used.cpu_share)} of the CPU that it could use, at its busiest",
        used.rss_mb is not None and f"{number(used.rss_mb)} MB of memory at most",
        used.others_share is not None and f"other programs took {percent(used.others_share)} of all cores",
    ]
    known = [part for part in parts if part]
    cores = f"The generator had {some(used.cpu_cores, 'core')}. " if used.cpu_cores else ""
    return f"{cores}It used {'; '.join(known)}." if known else "What the generator used is not known."


def in_unit(name: str, value: float | None) -> str:
    """The value of a check, whose name ends in its unit."""
    if name.endswith("_s"):
        return took(value)
    return percent(value) if name.endswith("_share") else count(value)


def waterfall(chain: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each step with where its bar begins and how long it is, in thousandths of the whole: from the step before it."""
    whole_s = max((step["t_s"] for step in chain if step["t_s"] is not None), default=0.0) or 1.0
    rows, before_s = [], 0.0
    for step in chain:
        at_s = before_s if step["t_s"] is None else step["t_s"]
        start, end = sorted((before_s, at_s))
        rows.append({**step, "start": round(1000 * start / whole_s), "length": round(1000 * (end - start) / whole_s)})
        before_s = at_s
    return rows


def by_second(summary: Summary) -> Table:
    series = summary.series
    columns = {name: getattr(series, field) for field, name in COLUMNS.items()}
    known = {name: column for name, column in columns.items() if any(value is not None for value in column)}
    per_row = max(1, -(-len(series.t) // MAX_ROWS))
    rows = tuple(
        (series.t[i], tuple(_highest(column[i : i + per_row]) for column in known.values()))
        for i in range(0, len(series.t), per_row)
    )
    return Table(tuple(known), rows, per_row)


def _measured(value: float | None) -> str:
    return "nothing was measured" if value is None else f"{number(value)} was measured"


def _highest(values: Sequence[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _by(who: str) -> str:
    return f", by the {who}" if who == "probe" else ""
