"""What the bench found, as tables for the terminal and the docs, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from loadgen import machine
from loadgen.bench_loadgen.senders import LAG_S, Bare, Step
from loadgen.bench_loadgen.users import Crowd

BEGIN, END = "<!-- bench-loadgen: begin -->", "<!-- bench-loadgen: end -->"
USERS_BEGIN, USERS_END = "<!-- bench-loadgen-users: begin -->", "<!-- bench-loadgen-users: end -->"
NAMES = {"k6": "k6", "locust": "Locust"}
WORKS = {"plain": "in one piece", "stream": "streamed"}
KNOWN = ["a known system, 4 A10G", "1,000 users, 60 s", "100", "0", "–", "–", "10.0 / 100", "–", "–"]
"""What it publishes of itself; it says nothing of the lengths."""
SATURATED = 0.9


@dataclass(frozen=True, slots=True)
class Sender:
    """One tool and one kind of answer: what it does by itself (`bare`, the last with its points told where it can), and
    all steps of our script."""

    tool: str
    version: str
    work: str
    bare: tuple[Bare, ...]
    steps: tuple[Step, ...]

    @property
    def best(self) -> Step | None:
        """At the highest rate that held."""
        return max((one for one in self.steps if one.held), key=lambda one: one.rate, default=None)


@dataclass(frozen=True, slots=True)
class Run:
    """`capacity_per_s` is what the replicas of the crowds make by their profile alone."""

    date: str
    machine: str
    senders: tuple[Sender, ...]
    crowds: tuple[Crowd, ...]
    capacity_per_s: float


def senders_table(run: Run) -> str:
    head = ["tool, answers", "what sends", "requests/s", "of the bare", "CPU ms / request", "of the bare", "peak MB"]
    head += ["send lag p99, ms", "E2E p50 / p99, ms", "served / planned"]
    lines = [_line(head), _line(["---", "---", *["--:"] * (len(head) - 2)])]
    for one in run.senders:
        name = f"{NAMES[one.tool]} {one.version}, {WORKS[one.work]}"
        lines += [_line(_ours(name, one.best, one.bare[0]))]
        lines += [_line(_bare("", bare, one.bare[0])) for bare in one.bare]
    return "\n".join([*lines, "", *_remarks(run)])


def _ours(name: str, best: Step | None, bare: Bare) -> list[str]:
    if best is None:
        return [name, "**ours**", "none held", *["–"] * 7]
    cells = [name, "**ours**", f"**{best.rate:,.0f}**", f"× {best.rate / bare.rate:.2f}"]
    cells += [f"{best.cpu_ms:.2f}", f"× {best.cpu_ms / bare.cpu_ms:.1f}", f"{best.peak_mb:,.0f}"]
    cells += [f"{best.lag_p99_s * 1000:.0f}", f"{best.e2e_p50_s * 1000:,.0f} / {best.e2e_p99_s * 1000:,.0f}"]
    return [*cells, f"{best.served:,} / {best.planned:,}"]


def _bare(name: str, one: Bare, first: Bare) -> list[str]:
    what = "bare, points printed" if one.told else "bare"
    ratio = one is not first
    cells = [name, what, f"{one.rate:,.0f}", f"× {one.rate / first.rate:.2f}" if ratio else "1"]
    cells += [f"{one.cpu_ms:.2f}", f"× {one.cpu_ms / first.cpu_ms:.1f}" if ratio else "1", f"{one.peak_mb:,.0f}"]
    return [*cells, "–", "–", "–"]


def _remarks(run: Run) -> list[str]:
    text = f"{run.date}, {run.machine}. The tool has one core; the server and what reads the tool share another. Ours: "
    text += f"the highest rate at which nothing was dropped or failed and 99 % went out within {LAG_S * 1000:.0f} ms."
    others = [part.others_share for one in run.senders for part in (*one.bare, *one.steps)]
    lines = [text + _others(others)]
    if max(others, default=0.0) > machine.OTHERS_BOUND:
        worth = [f"{NAMES[one.tool]} {WORKS[one.work]} {_core_per_s(one):,.0f}" for one in run.senders if one.steps]
        lines += ["", f"By CPU time alone, a core to itself would make in requests a second: {', '.join(worth)}."]
    idle = [
        f"{NAMES[one.tool]}, {WORKS[one.work]} ({bare.cpu_share:.0%} of its core)"
        for one in run.senders
        for bare in one.bare[:1]
        if bare.cpu_share < SATURATED
    ]
    if idle:
        lines += ["", f"The bare tool did not get, or not need, the whole core: {'; '.join(idle)}."]
    busy = [
        f"{NAMES[one.tool]}, {WORKS[one.work]}"
        for one in run.senders
        if max(part.beside_share for part in (*one.bare, *one.steps)) > SATURATED
    ]
    if busy:
        lines += ["", f"The server's core was full in some run of {'; '.join(busy)}: it may have been the limit."]
    return lines


def _core_per_s(one: Sender) -> float:
    """What a core's time is enough for, at the least cost of a request that was seen."""
    return 1000 / min(step.cpu_ms for step in one.steps)


def users_table(run: Run) -> str:
    head = ["what", "users", "answers/s", "failed", "dropped", "TTFT p50 / p95, s", "E2E p50 / p95, s"]
    head += ["CPU of gateway / replicas, cores", "verdict"]
    lines = [_line(head), _line(["---", "---", *["--:"] * (len(head) - 3), "---"]), _line(KNOWN)]
    lines += [_line(_crowd(one)) for one in run.crowds]
    return "\n".join([*lines, "", *_crowd_remarks(run)])


def _crowd(one: Crowd) -> list[str]:
    cells = [f"ours, simulated, {one.shape} ({NAMES[one.tool]} {one.tool_version})"]
    cells += [f"{one.users:,} users, {one.for_s:g} s", f"{one.rate:.1f}", f"{one.lost:,}", f"{one.dropped:,}"]
    cells += [_pair(one.ttft_p50_s, one.ttft_p95_s), _pair(one.e2e_p50_s, one.e2e_p95_s)]
    return [*cells, f"{one.gateway_cores:.2f} / {one.replicas_cores:.2f}", one.verdict]


def _crowd_remarks(run: Run) -> list[str]:
    tokens = sum(one.completion_tokens * one.served for one in run.crowds) / max(1, sum(o.served for o in run.crowds))
    text = f"{run.date}, {run.machine}. Answers had {tokens:.0f} tokens on average. By their profile alone the replicas"
    text += f" make {run.capacity_per_s:.0f} such answers a second at most."
    lines = [text + _others([one.others_share for one in run.crowds])]
    for one in run.crowds:
        if one.reasons:
            lines += ["", f"{NAMES[one.tool]}, {one.shape}: {' '.join(one.reasons)}"]
        if one.errors:
            errors = ", ".join(f"{count:,} × {text}" for text, count in one.errors.items())
            lines += ["", f"Errors, {NAMES[one.tool]}, {one.shape}: {errors}."]
    return lines


def _others(shares: Sequence[float]) -> str:
    most = max(shares, default=0.0)
    text = f" Other programs took up to {most:.0%} of the machine during a run"
    return text + (": too much, rates are lower bounds and times upper ones." if most > machine.OTHERS_BOUND else ".")


def _pair(p50: float | None, p95: float | None) -> str:
    return "–" if p50 is None or p95 is None else f"{p50:.2f} / {p95:.2f}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def to_json(run: Run) -> dict[str, Any]:
    """What there is no number for is null."""
    return json.loads(json.dumps(asdict(run)), parse_constant=lambda _: None)
