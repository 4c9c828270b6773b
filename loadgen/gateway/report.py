"""What a run found: medians over its rounds, as a table for the terminal and the docs, and as JSON."""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from loadgen import machine
from loadgen.gateway.measure import Round

KEPT_UP = 0.97
"""Of the tokens a second that come the direct way; a gateway that delivers less has no cost per token to compare."""
DIRECT = "direct"
OURS = "crowdspike"
BEGIN, END = "<!-- bench-gateway: begin -->", "<!-- bench-gateway: end -->"


@dataclass(frozen=True, slots=True)
class Run:
    """`rounds` by gateway; those of `direct` are the same rounds without one. `failed`: why a gateway has none."""

    date: str
    machine: str
    rounds: dict[str, list[Round]]
    idle_mb: dict[str, float]
    versions: dict[str, str]
    failed: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Row:
    """One gateway's medians. What is `added` is the difference to the direct way in the same round, in ms."""

    name: str
    calls_per_s: float
    cpu_ms: float | None
    added_p50_ms: float
    added_p99_ms: float
    tokens_per_s: dict[int, float]
    cpu_us: dict[int, float | None]
    added_ttft_p50_ms: dict[int, float]
    added_ttft_p99_ms: dict[int, float]
    idle_mb: float | None
    peak_mb: float | None
    errors: dict[str, int]


def rows(run: Run) -> list[Row]:
    return [_row(name, seen, run) for name, seen in run.rounds.items() if seen]


def _row(name: str, seen: Sequence[Round], run: Run) -> Row:
    direct = run.rounds[DIRECT]

    def median(read: Callable[[Round], float | None]) -> float | None:
        values = [value for one in seen if (value := read(one)) is not None]
        return statistics.median(values) if values else None

    def added(read: Callable[[Round], float]) -> float:
        return statistics.median(read(one) - read(base) for one, base in zip(seen, direct, strict=False))

    counts = list(seen[0].streams)
    return Row(
        name=name,
        calls_per_s=median(lambda r: r.calls_per_s),
        cpu_ms=median(lambda r: r.cpu_ms),
        added_p50_ms=added(lambda r: r.p50_ms),
        added_p99_ms=added(lambda r: r.p99_ms),
        tokens_per_s={n: median(lambda r, n=n: r.streams[n].tokens_per_s) for n in counts},
        cpu_us={n: median(lambda r, n=n: r.streams[n].cpu_us) for n in counts},
        added_ttft_p50_ms={n: added(lambda r, n=n: r.streams[n].ttft_p50_ms) for n in counts},
        added_ttft_p99_ms={n: added(lambda r, n=n: r.streams[n].ttft_p99_ms) for n in counts},
        idle_mb=run.idle_mb.get(name),
        peak_mb=median(lambda r: r.peak_mb),
        errors=dict(sum((Counter(one.errors) for one in seen), Counter())),
    )


def markdown(run: Run) -> str:
    """The table and what must be said with it."""
    found = rows(run)
    ours = next((row for row in found if row.name == OURS), None)
    counts = list(found[0].cpu_us)
    head = ["gateway", "requests/s", "CPU ms / request", "added ms at 100/s, p50 / p99"]
    head += [f"CPU µs / token, {n} streams" for n in counts]
    head += [f"tokens/s, {counts[0]}", f"added TTFT ms, {counts[0]}, p50 / p99", "MB idle / peak", "errors"]
    lines = [_line(head), _line(["---"] * len(head))]
    for row in found:
        direct = row.name == DIRECT
        cells = [f"**{row.name}**" if row is ours else f"{row.name} {run.versions.get(row.name, '')}".strip()]
        cells += [f"{row.calls_per_s:,.0f}", _cost(row.cpu_ms, ours and ours.cpu_ms, row is ours)]
        cells += ["–" if direct else _pair(row.added_p50_ms, row.added_p99_ms)]
        cells += [_cost(row.cpu_us[n], ours and ours.cpu_us[n], row is ours) for n in counts]
        cells += [f"{row.tokens_per_s[counts[0]]:,.0f}"]
        cells += ["–" if direct else _pair(row.added_ttft_p50_ms[counts[0]], row.added_ttft_p99_ms[counts[0]])]
        cells += ["–" if row.peak_mb is None else f"{row.idle_mb:.0f} / {row.peak_mb:.0f}"]
        cells += [", ".join(f"{n} × {reason}" for reason, n in row.errors.items()) or "0"]
        lines.append(_line(cells))
    return "\n".join([*lines, "", *_remarks(run, found)])


def _remarks(run: Run, found: Sequence[Row]) -> list[str]:
    rounds = len(run.rounds[DIRECT])
    others = max(one.others_share for seen in run.rounds.values() for one in seen)
    text = f"{run.date}, {run.machine}. Medians of {rounds} round{'s' * (rounds > 1)}; (×) is the cost in ours."
    text += f" Other programs took at most {others:.0%} of the machine during a round"
    text += ": too much, the figures are upper bounds." if others > machine.OTHERS_BOUND else "."
    lines = [text]
    direct = next(row for row in found if row.name == DIRECT)
    capped = [row.name for row in found if row.name != DIRECT and row.calls_per_s > 0.6 * direct.calls_per_s]
    if capped:
        lines += ["", f"Requests/s of {' and '.join(capped)} may be limited by the load's core, not by the gateway."]
    behind = [
        f"{row.name} ({n} streams)"
        for row in found
        for n, per_s in row.tokens_per_s.items()
        if per_s < KEPT_UP * direct.tokens_per_s[n]
    ]
    if behind:
        text = "fell behind. Tokens then pass several at a time, which makes each cheaper than it would be on its own."
        lines += ["", f"{' and '.join(behind)} {text}"]
    if run.failed:
        lines += ["", "Not measured:", "", *(f"- {name}: {reason}" for name, reason in run.failed.items())]
    return lines


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cost(value: float | None, ours: float | None, is_ours: bool) -> str:
    if value is None:
        return "–"
    if math.isnan(value):
        return "none came"
    text = f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < 10 else f"{value:.1f}"
    return f"{text} (× {value / ours:.2g})" if ours and not is_ours else text


def _pair(p50: float, p99: float) -> str:
    return f"{p50:.2f} / {p99:.2f}" if abs(p99) < 10 else f"{p50:.1f} / {p99:,.0f}"


def plain(table: str) -> str:
    """A Markdown table with its columns aligned, for a terminal."""
    lines = table.splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    aligned = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    aligned[1] = "  ".join("-" * width for width in widths)
    return "\n".join([*aligned, *(line for line in lines if not line.startswith("|"))])


def to_json(run: Run) -> dict[str, Any]:
    """What there is no number for is null."""
    found = {**asdict(run), "medians": [asdict(row) for row in rows(run)]}
    return json.loads(json.dumps(found), parse_constant=lambda _: None)


def write_docs(page: Path, table: str, begin_mark: str, end_mark: str) -> None:
    """Replaces what stands between the two marks. Raises ValueError when they are not there."""
    before, begin, rest = page.read_text(encoding="utf-8").partition(begin_mark)
    _, end, after = rest.partition(end_mark)
    if not begin or not end:
        raise ValueError(f"{page} has no {begin_mark} … {end_mark}")
    page.write_text(f"{before}{begin_mark}\n{table}\n{end_mark}{after}", encoding="utf-8")
