"""A picture of distributions: one small panel for each load and figure, the real server's line and the simulated one's
in each. SVG without scripts that is readable on light and on dark pages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from inference.openloop.summary import quantile

WIDTH, HEIGHT = 300, 190
LEFT, RIGHT, TOP, BOTTOM = 42, 12, 30, 34
POINTS = 120
STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #333 }
  .title { font-weight: 600 }
  .grid { stroke: #8884; stroke-width: 1 }
  .real, .simulated { fill: none; stroke-width: 2 }
  .real { stroke: #0b7285 }
  .simulated { stroke: #d9480f; stroke-dasharray: 5 3 }
  @media (prefers-color-scheme: dark) {
    text { fill: #ddd } .real { stroke: #66d9e8 } .simulated { stroke: #ffa94d }
  }"""


@dataclass(frozen=True, slots=True)
class Panel:
    """The values of both servers, in ms."""

    title: str
    real: Sequence[float]
    simulated: Sequence[float]


def svg(panels: Sequence[Panel], columns: int) -> str:
    """Cumulative distributions over a logarithmic axis of milliseconds."""
    rows = -(-len(panels) // columns)
    width, height = columns * WIDTH, rows * HEIGHT + 26
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img">',
        "<title>Cumulative distributions: real vLLM and simulated replica</title>",
        f"<style>{STYLE}\n</style>",
        *_legend(),
    ]
    for i, panel in enumerate(panels):
        x, y = i % columns * WIDTH, i // columns * HEIGHT + 26
        parts.append(f'<g transform="translate({x} {y})">{_panel(panel)}</g>')
    return "\n".join([*parts, "</svg>", ""])


def _legend() -> list[str]:
    return [
        '<path class="real" d="M42 14h28"/><text x="76" y="18">real vLLM</text>',
        '<path class="simulated" d="M160 14h28"/><text x="194" y="18">simulated</text>',
    ]


def _panel(panel: Panel) -> str:
    real, simulated = sorted(panel.real), sorted(panel.simulated)
    both = [value for values in (real, simulated) if values for value in (quantile(values, 0.01), values[-1])]
    low, high = _bounds(both)
    parts = [f'<text class="title" x="{LEFT}" y="{TOP - 10}">{escape(panel.title)}</text>']
    for share in (0.0, 0.5, 0.95, 1.0):
        y = _y(share)
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{share:.0%}</text>' if share != 1 else "")
    for value in _ticks(low, high):
        x = _x(value, low, high)
        parts.append(f'<path class="grid" d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}"/>')
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{_label(value)}</text>')
    for name, values in (("real", real), ("simulated", simulated)):
        if values:
            parts.append(f'<path class="{name}" d="{_line(values, low, high)}"/>')
    return "".join(parts)


def _line(values: Sequence[float], low: float, high: float) -> str:
    points = []
    for i in range(POINTS + 1):
        share = i / POINTS
        points.append(f"{_x(quantile(values, share), low, high):.1f} {_y(share):.1f}")
    return "M" + "L".join(points)


def _bounds(values: Sequence[float]) -> tuple[float, float]:
    low, high = (max(0.1, min(values)), max(values)) if values else (1.0, 10.0)
    return low / 1.1, max(high, low * 2) * 1.1


def _x(value: float, low: float, high: float) -> float:
    at = (math.log(min(max(value, low), high)) - math.log(low)) / (math.log(high) - math.log(low))
    return LEFT + at * (WIDTH - LEFT - RIGHT)


def _y(share: float) -> float:
    return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def _ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten; every power alone where those are too many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    fine = [m * 10.0**p for p in powers for m in (1, 2, 5) if low <= m * 10.0**p <= high]
    return fine if len(fine) <= 5 else [10.0**p for p in powers if low <= 10.0**p <= high]


def _label(value: float) -> str:
    return f"{value / 1000:g} s" if value >= 1000 else f"{value:g} ms"
