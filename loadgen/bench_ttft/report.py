"""What the bench found: medians over the rounds, as a table for each server, and as JSON. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from loadgen import machine
from loadgen.bench_ttft.histograms import Served
from loadgen.bench_ttft.ours import Client
from loadgen.bench_ttft.work import ANSWER_TOKENS

BEGIN, END = "<!-- bench-ttft: begin -->", "<!-- bench-ttft: end -->"


@dataclass(frozen=True, slots=True)
class Round:
    """`others_share`: what other programs took of the machine meanwhile."""

    client: Client
    served: Served
    others_share: float


@dataclass(frozen=True, slots=True)
class Tool:
    """`failed`: why it has no rounds, or no more of them."""

    name: str
    version: str
    ours: bool
    rounds: list[Round] = field(default_factory=list)
    failed: str = ""


@dataclass(frozen=True, slots=True)
class Against:
    """One server and what each tool saw of it; `planned` requests in each round. `failed`: why there are no tools."""

    server: str
    rate: float
    planned: int
    tools: list[Tool] = field(default_factory=list)
    failed: str = ""


@dataclass(frozen=True, slots=True)
class Run:
    date: str
    machine: str
    against: list[Against]


@dataclass(frozen=True, slots=True)
class Row:
    """Medians of a tool's rounds, in ms; gaps are of each, the client's mean less the server's. `sampled`: the client
    saw the first token of only some of the requests that the server counted. Counts are of all rounds."""

    tool: Tool
    ttft_client_ms: float
    ttft_server_ms: float
    ttft_gaps_ms: tuple[float, ...]
    e2e_client_ms: float
    e2e_server_ms: float
    e2e_gaps_ms: tuple[float, ...]
    first_tokens: int
    client_count: int
    server_count: int
    lost: int

    @property
    def sampled(self) -> bool:
        return self.first_tokens < self.client_count


def row(tool: Tool) -> Row:
    """Of a tool with rounds."""

    def middle(read: Callable[[Round], float]) -> float:
        return median(read(one) for one in tool.rounds) * 1000

    def total(read: Callable[[Round], int]) -> int:
        return sum(read(one) for one in tool.rounds)

    return Row(
        tool=tool,
        ttft_client_ms=middle(lambda one: one.client.ttft_mean_s),
        ttft_server_ms=middle(lambda one: one.served.ttft_mean_s),
        ttft_gaps_ms=tuple((one.client.ttft_mean_s - one.served.ttft_mean_s) * 1000 for one in tool.rounds),
        e2e_client_ms=middle(lambda one: one.client.e2e_mean_s),
        e2e_server_ms=middle(lambda one: one.served.e2e_mean_s),
        e2e_gaps_ms=tuple((one.client.e2e_mean_s - one.served.e2e_mean_s) * 1000 for one in tool.rounds),
        first_tokens=total(lambda one: one.client.ttft_count),
        client_count=total(lambda one: one.client.e2e_count),
        server_count=total(lambda one: one.served.e2e_count),
        lost=total(lambda one: one.client.lost),
    )


def markdown(run: Run) -> str:
    parts = [part for against in run.against for part in _section(against)]
    rounds = [one for against in run.against for tool in against.tools for one in tool.rounds]
    count = max((len(tool.rounds) for against in run.against for tool in against.tools), default=0)
    text = f"{run.date}, {run.machine}. {_rounds(count)}, the tools in turn."
    if rounds:
        text += f" Other programs took {_percent([one.others_share for one in rounds])} of the machine in a round."
    if any(one.others_share > machine.OTHERS_BOUND for one in rounds):
        text += " That is too much: the gaps say more of them than of the tools."
    return "\n".join([*parts, text])


def _section(against: Against) -> list[str]:
    title = f"**{against.server}**, {against.rate:g} requests/s"
    if against.failed:
        return [f"{title}: not measured, {against.failed}", ""]
    rows = [row(tool) for tool in against.tools if tool.rounds]
    head = ["tool", "TTFT client, ms", "server", "gap", "client / server", "E2E client, ms", "server", "gap"]
    head += ["client / server", "requests, client / server", "lost"]
    lines = [title, "", _line(head), _line(["---", *["--:"] * (len(head) - 1)])]
    lines += [_line(_cells(one)) for one in rows]
    remarks = [_work(against), _sampled(rows), *(_verdict(rows, what) for what in WHAT)]
    remarks += [
        f"{'Broke off' if tool.rounds else 'Not measured'}: {tool.name}, {tool.failed}."
        for tool in against.tools
        if tool.failed
    ]
    return [*lines, "", *(line for remark in remarks if remark for line in (remark, ""))]


def _cells(one: Row) -> list[str]:
    name = f"{one.tool.name} {one.tool.version}".strip()
    cells = [f"**{name}**" if one.tool.ours else name]
    cells += [*_compared(one.ttft_client_ms, one.ttft_server_ms, one.ttft_gaps_ms, "¹" if one.sampled else "")]
    cells += [*_compared(one.e2e_client_ms, one.e2e_server_ms, one.e2e_gaps_ms)]
    return [*cells, f"{one.client_count:,} / {one.server_count:,}", f"{one.lost:,}"]


def _compared(client: float, server: float, gaps: Sequence[float], mark: str = "") -> list[str]:
    gap = f"{median(gaps):+,.1f}{mark}" + (f" ({min(gaps):+.1f} to {max(gaps):+.1f})" if len(gaps) > 1 else "")
    return [f"{client:,.1f}{mark}", f"{server:,.1f}", gap, f"× {client / server:.3f}"]


def _work(against: Against) -> str:
    rounds = [one.served for tool in against.tools for one in tool.rounds]
    if not rounds:
        return ""
    prompts = [one.prompt_tokens / one.ttft_count for one in rounds]
    answers = [one.completion_tokens / one.e2e_count for one in rounds]
    text = f"{against.planned:,} requests are planned a round. By the server's count a prompt had"
    return f"{text} {_range(prompts)} tokens on average and an answer {_range(answers)} of {ANSWER_TOKENS}."


def _sampled(rows: Sequence[Row]) -> str:
    parts = [f"{one.first_tokens:,} of {one.client_count:,} requests" for one in rows if one.sampled]
    text = "¹ k6 sees no tokens. Its TTFT is the probe's, of {}: other requests than the server's mean is of, so this"
    return f"{text} gap is none of the reader and is not compared.".format(parts[0]) if parts else ""


WHAT: dict[str, Callable[[Row], float | None]] = {
    "TTFT": lambda one: None if one.sampled else abs(median(one.ttft_gaps_ms)),
    "E2E": lambda one: abs(median(one.e2e_gaps_ms)),
}


def _verdict(rows: Sequence[Row], what: str) -> str:
    """The furthest of ours beside the nearest of theirs."""
    gaps = [(gap, one.tool) for one in rows if (gap := WHAT[what](one)) is not None]
    ours = max(((gap, tool.name) for gap, tool in gaps if tool.ours), default=None)
    theirs = min(((gap, tool.name) for gap, tool in gaps if not tool.ours), default=None)
    if ours is None or theirs is None:
        return ""
    text = f"{what}: the furthest of ours from the server is {ours[1]} with {ours[0]:.1f} ms"
    return f"{text}, the nearest of theirs {theirs[1]} with {theirs[0]:.1f} ms."


def _rounds(count: int) -> str:
    return "One round" if count == 1 else f"Medians of {count} rounds, of the gaps too, with the least and the most"


def _percent(shares: Sequence[float]) -> str:
    low, high = f"{min(shares):.0%}", f"{max(shares):.0%}"
    return low if low == high else f"{low} to {high}"


def _range(values: Sequence[float]) -> str:
    low, high = f"{min(values):.1f}", f"{max(values):.1f}"
    return low if low == high else f"{low} to {high}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def to_json(run: Run) -> dict[str, Any]:
    """What there is no number for is null."""
    return json.loads(json.dumps(asdict(run)), parse_constant=lambda _: None)
