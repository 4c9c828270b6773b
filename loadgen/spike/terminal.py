"""What a person sees in a terminal: a line while the run goes on, and at its end the verdict with its figures."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from loadgen.spike import folder
from loadgen.spike.latency import Both, Quantiles
from loadgen.spike.order import Outcome
from loadgen.spike.plan import Plan
from loadgen.spike.progress import Progress
from loadgen.spike.report.words import BY, percent, some, took
from loadgen.spike.summary import Summary

EVERY_S = 5.0
"""Between two plain lines, where the output is no terminal."""
_REWRITE = "\r\x1b[2K"
WAYS = {
    "pass": "PASS",
    "fail": "FAIL",
    "invalid": "INVALID: these figures say nothing about the target",
    "stopped": "STOPPED before its time",
}


class Screen:
    """One line, written anew each second; line after line where the output is no terminal."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._rewrites = out.isatty()
        self._state = ""
        self._next_s = 0.0

    def said(self, progress: Progress) -> None:
        text = line(progress)
        if self._rewrites:
            width = shutil.get_terminal_size().columns - 1
            self._out.write(_REWRITE + text[:width])
        elif progress.state != self._state or progress.t_s >= self._next_s:
            self._next_s = progress.t_s + EVERY_S
            self._out.write(text + "\n")
        self._state = progress.state
        self._out.flush()

    def leave(self) -> None:
        """What is written next begins a line of its own."""
        if self._rewrites and self._state:
            self._out.write("\n")
            self._out.flush()


def line(progress: Progress) -> str:
    """Rates and first tokens are of the last seconds, counts of the whole run."""
    p = progress
    if p.state in ("arming", "armed", "ended"):
        return {"arming": "getting ready", "armed": "ready", "ended": "ended"}[p.state]
    parts = [
        f"{p.state} {p.t_s:.0f} s of {p.of_s:.0f} s",
        f"plan {p.level:.3g} {p.unit}",
        f"sent {p.sent:,} ({p.sent_per_s:.3g}/s)",
        f"served {p.served:,} ({p.served_per_s:.3g}/s)",
        *(f"{name} {n:,}" for name, n in (("failed", p.failed), ("refused", p.refused), ("dropped", p.dropped)) if n),
        f"{p.in_flight:,} in flight",
    ]
    if p.ttft_p50_s is not None:
        parts.append(f"TTFT p50 {took(p.ttft_p50_s)}, p95 {took(p.ttft_p95_s)} by {p.ttft_by}")
    if p.trouble:
        parts.append(f"script: {p.trouble}")
    return " · ".join(parts)


def announced(plan: Plan, target: str) -> str:
    """What would be sent, in a line."""
    if plan.loop == "open":
        count = f"up to {plan.peak:g} requests/s for {plan.duration_s:g} s, {plan.planned:,} in all"
    elif plan.scenario == "amplify":
        count = f"each question of room {plan.room} {some(plan.copies, 'time')}, for {plan.duration_s:g} s"
    else:
        count = f"up to {plan.peak:g} {'phones' if plan.scenario == 'audience' else 'users'} for {plan.duration_s:g} s"
        count += ", each of whom waits for an answer before the next request"
    return f"{plan.scenario}: {count}, to {target}"


def ending(outcome: Outcome, path: Path) -> str:
    """The verdict and why, the headline figures, what went wrong, and where it all is."""
    summary = outcome.summary
    lines = [WAYS[summary.verdict.verdict], *(f"  {reason}" for reason in summary.verdict.reasons), ""]
    lines += [f"{name:<10}{text}" for name, text in _figures(summary)]
    if outcome.problems:
        lines += ["", *(f"! {problem}" for problem in outcome.problems)]
    lines += ["", *(f"{name:<10}{path / file}" for name, file in _files(path))]
    return "\n".join(lines)


def _figures(summary: Summary) -> Iterator[tuple[str, str]]:
    counts, goodput, latency = summary.counts, summary.goodput, summary.latency
    of = f" of {counts.planned:,} planned" if counts.planned is not None else ""
    yield "sent", f"{counts.sent:,}{of}, {counts.dropped:,} dropped"
    lost = f"{counts.failed:,} failed, {counts.refused:,} refused, {counts.unfinished:,} unfinished"
    yield "served", f"{counts.served:,}; {lost}"
    for text, count in sorted(counts.errors.items(), key=lambda error: -error[1])[:3]:
        yield "", f"{count:,} × {text}"
    yield from _times("TTFT", latency.ttft_s)
    if latency.ttft_s.service:
        yield "", f"({BY[summary.ttft_by]})"
    yield from _times("E2E", latency.e2e_s)
    if latency.tpot_s:
        yield "TPOT", _quantiles(latency.tpot_s)
    if goodput.share is not None:
        target = f"TTFT {took(goodput.slo.ttft_s)} and TPOT {took(goodput.slo.tpot_s)}"
        yield "goodput", f"{percent(goodput.share)} of {goodput.of:,} within {target}"
    if summary.tokens.completion:
        yield "tokens", f"{summary.tokens.completion:,} written, {summary.tokens.completion_per_s:,.0f} a second"
    if len(summary.kinds) > 1:
        for kind, of in summary.kinds.items():
            yield kind, f"{of.served:,} of {of.sent:,} served{f', {_quantiles(of.e2e_s)}' if of.e2e_s else ''}"
    if summary.server and summary.server.gap:
        yield "server", f"mean TTFT {took(summary.server.gap.server_mean_s)} by its own count"


def _times(name: str, both: Both) -> Iterator[tuple[str, str]]:
    """From the schedule, and what the tool alone would have seen beside it."""
    if both.scheduled:
        yield name, f"{_quantiles(both.scheduled)} from when it was due"
    if both.service:
        yield "" if both.scheduled else name, f"{_quantiles(both.service)} from when it was sent"


def _quantiles(of: Quantiles) -> str:
    return f"p50 {took(of.p50)}, p95 {took(of.p95)}, p99 {took(of.p99)}"


def _files(path: Path) -> Iterator[tuple[str, str]]:
    for name, file in (("report", folder.REPORT), ("summary", folder.SUMMARY), ("points", folder.POINTS)):
        if (path / file).exists():
            yield name, file
