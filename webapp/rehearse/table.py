"""The comparison as text for a terminal, and in words. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from webapp.rehearse.figures import TARGET_S, Figures

SAME_SHARE = 0.05
"""Less than this apart counts as the same: seeds differ by more."""
SAME_USD = 0.01


def _s(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f} s" if value < 10 else f"{value:.0f} s"


def _enough(f: Figures) -> str:
    if not f.requests:
        return "–"
    return "never" if f.enough_s is None else f"{f.enough_s:.0f} s"


ROWS: tuple[tuple[str, Callable[[Figures], str]], ...] = (
    ("TTFT p50", lambda f: _s(f.ttft_p50_s)),
    ("TTFT p95", lambda f: _s(f.ttft_p95_s)),
    ("TTFT p99", lambda f: _s(f.ttft_p99_s)),
    ("TTFT p95, first activity", lambda f: _s(f.ttft_p95_first_s)),
    (f"requests over {TARGET_S:g} s", lambda f: f"{f.over_target}"),
    ("requests refused", lambda f: f"{f.refused}"),
    ("answers broken off", lambda f: f"{f.broken}"),
    ("GPU-hours", lambda f: f"{f.gpu_hours:.2f}"),
    ("cost", lambda f: f"${f.usd:.2f}"),
    ("nodes", lambda f: ", ".join(f.nodes)),
    ("pods at most", lambda f: f"{f.peak_pods}"),
    ("fewer ready than asked for", lambda f: f"{f.short_s} s"),
    ("first activity → enough ready", _enough),
)


def table(found: Mapping[str, Figures]) -> str:
    """A column for each configuration."""
    rows = [("", *found), *((label, *(show(f) for f in found.values())) for label, show in ROWS)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [[row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in rows]
    return "\n".join("  ".join(line) for line in lines)


def verdicts(found: Mapping[str, Figures]) -> list[str]:
    """How each other configuration compares with the first, in a sentence each."""
    (base_name, base), *others = found.items()
    return [f"{name} against {base_name}: {_verdict(base, other)}." for name, other in others]


def _verdict(base: Figures, other: Figures) -> str:
    said = []
    if base.ttft_p95_s is not None and other.ttft_p95_s is not None:
        said.append(f"TTFT p95 {_compared(base.ttft_p95_s, other.ttft_p95_s, 'slower', 'faster', _s)}")
    more = other.over_target - base.over_target
    if more:
        said.append(f"{abs(more)} {'more' if more > 0 else 'fewer'} requests over {TARGET_S:g} s")
    if abs(other.usd - base.usd) < SAME_USD:
        said.append("the same cost")
    else:
        said.append(f"costs {_compared(base.usd, other.usd, 'more', 'less', lambda usd: f'${usd:.2f}')}")
    return ", ".join(said)


def _compared(base: float, other: float, more: str, less: str, show: Callable[[float], str]) -> str:
    if abs(other - base) <= SAME_SHARE * base:
        return "the same"
    return f"{show(abs(other - base))} {more if other > base else less}"
