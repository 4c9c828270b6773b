"""Measured and simulated figures side by side, as text and as a page's table. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from inference.openloop.summary import Summary

BOUND = 0.15
SMALL = {"running": 0.5, "waiting": 0.5}
"""Averages that differ by less than half a request agree, whatever the share: 0.1 and 0.2 are both "nobody waits"."""
LABELS = {
    "ttft_p50_ms": "TTFT p50, ms",
    "ttft_p95_ms": "TTFT p95, ms",
    "itl_p50_ms": "ITL p50, ms",
    "itl_p95_ms": "ITL p95, ms",
    "e2e_p50_ms": "E2E p50, ms",
    "e2e_p95_ms": "E2E p95, ms",
    "running": "running, average",
    "waiting": "waiting, average",
    "throughput": "tokens/s",
}
_TABLE = re.compile(r"(?<=<!-- fidelity -->\n).*?(?=<!-- /fidelity -->)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Row:
    """One figure: of the real server, of the simulated one over HTTP, and of the simulation alone."""

    name: str
    real: float
    simulated: float
    pure: float

    @property
    def off(self) -> float | None:
        """By how much the simulated server differs, as a share of the real one; None where that has no meaning."""
        return self._off(self.simulated)

    @property
    def pure_off(self) -> float | None:
        return self._off(self.pure)

    @property
    def agrees(self) -> bool:
        if abs(self.simulated - self.real) <= SMALL.get(self.name, 0.0):
            return True
        return self.off is not None and abs(self.off) <= BOUND

    def _off(self, value: float) -> float | None:
        return value / self.real - 1 if self.real else None


@dataclass(frozen=True, slots=True)
class Comparison:
    """One load; `share` is of the real server's capacity."""

    share: float
    requests: int
    rows: tuple[Row, ...]

    @property
    def off(self) -> list[Row]:
        return [row for row in self.rows if not row.agrees]


def compare(share: float, requests: int, real: Summary, simulated: Summary, pure: Summary) -> Comparison:
    rows = (Row(name, getattr(real, name), getattr(simulated, name), getattr(pure, name)) for name in LABELS)
    return Comparison(share, requests, tuple(rows))


def text(comparisons: Sequence[Comparison]) -> str:
    """For a terminal; `!` marks what is off by more than the bound."""
    lines = []
    for comparison in comparisons:
        title = f"{comparison.share:.0%} of the capacity"
        lines.append(f"{title:22} {'vLLM':>10} {'simulated':>10} {'':>7}   {'model alone':>11}")
        for row in comparison.rows:
            mark = " " if row.agrees else "!"
            simulated = f"{_figure(row.simulated):>10} {_percent(row.off):>7} {mark}"
            pure = f"{_figure(row.pure):>11} {_percent(row.pure_off):>7}"
            lines.append(f"  {LABELS[row.name]:20} {_figure(row.real):>10} {simulated} {pure}")
        lines.append("")
    return "\n".join([*lines, verdict(comparisons)])


def verdict(comparisons: Sequence[Comparison]) -> str:
    total = sum(len(comparison.rows) for comparison in comparisons)
    off = sum(len(comparison.off) for comparison in comparisons)
    return f"{total - off} of {total} figures are within {BOUND:.0%} of the real server"


def markdown(comparisons: Sequence[Comparison]) -> str:
    """One table: a row for each figure, three columns for each load. Bold is off by more than the bound."""
    head = [f"{comparison.share:.0%}: vLLM | simulated | " for comparison in comparisons]
    lines = [f"| | {' | '.join(head)}|", f"| --- |{' --: | --: | --: |' * len(comparisons)}"]
    for i, name in enumerate(LABELS):
        cells = []
        for comparison in comparisons:
            row = comparison.rows[i]
            off = _percent(row.off)
            cells += [_figure(row.real), _figure(row.simulated), off if row.agrees else f"**{off}**"]
        lines.append(f"| {LABELS[name]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def put_into(page: str, table: str) -> str:
    """The page with `table` between its two markers. Raises ValueError when they are not there."""
    if not _TABLE.search(page):
        raise ValueError("the page has no lines <!-- fidelity --> and <!-- /fidelity -->")
    return _TABLE.sub(lambda _: table + "\n", page, count=1)


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _percent(off: float | None) -> str:
    return "" if off is None else f"{off:+.0%}"
