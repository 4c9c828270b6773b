"""Plots of figures over a record's time, as SVG without a style or script of its own: the page's sheet has it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 720, 230
LEFT, RIGHT, TOP, BOTTOM = 52, 10, 30, 26
MAX_POINTS = 600
BREAK_S = 5.0
LEAST = 1e-9  # of a plot's height: what is less is nothing
TIME_STEPS_S = (5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400)
MAX_TIME_TICKS = 8
MARK_CHARACTER, MARK_GAP, MARK_ROW = 9, 8, 16


@dataclass(frozen=True, slots=True)
class Series:
    """`points` are (seconds, value), None where there is none. `steps`: the value holds until the next."""

    name: str
    points: Sequence[tuple[float, float | None]]
    steps: bool = False


@dataclass(frozen=True, slots=True)
class Plot:
    """`stacked` series have a value at the same seconds. `marks` are (seconds, words). `whole`: parts of one make
    no sense. `id` is the figure's own in the page."""

    id: str
    title: str
    unit: str
    series: Sequence[Series]
    stacked: bool = False
    marks: Sequence[tuple[float, str]] = ()
    whole: bool = False


def svg(plot: Plot, length_s: float, legend: bool = True) -> str:
    """A figure of `length_s`. With more seconds than it has room for, each point is the highest of several. Without its
    `legend` the page has to say which line is which."""
    per_point_s = max(1.0, math.ceil(length_s / MAX_POINTS))
    series = [_thin(one, per_point_s) for one in plot.series]
    layers = _stack(series) if plot.stacked else series
    top = _ceiling(max((v for one in layers for _, v in one.points if v is not None), default=0.0), plot.whole)
    body = _axes(top, length_s)
    drawn = list(enumerate(layers))
    for i, one in reversed(drawn) if plot.stacked else drawn:
        body.append(_drawn(one, i, top, length_s, plot.stacked))
    body += _marks(plot.marks, length_s)
    body.append(f'<text x="{LEFT}" y="18" class="unit">{escape(plot.unit)}</text>')
    body += _legend(plot) if legend else []
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="{plot.id}-title {plot.id}-desc">'
        f'<title id="{plot.id}-title">{escape(plot.title)}</title>'
        f'<desc id="{plot.id}-desc">{escape(" ".join(in_words(one, plot.unit) for one in plot.series))}</desc>'
        f"{''.join(body)}</svg>"
    )


def in_words(series: Series, unit: str) -> str:
    """What a series does, for those who do not see it."""
    known = [(at_s, value) for at_s, value in series.points if value is not None]
    if not known:
        return f"{series.name}: no values."
    at_s, highest = max(known, key=lambda point: point[1])
    return f"{series.name}: highest {number(highest)} {unit} at {clock(at_s)}, {number(known[-1][1])} at the end."


def clock(t_s: float) -> str:
    """`4:05`, with hours `1:04:05`."""
    hours, rest = divmod(round(t_s), 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


def number(value: float) -> str:
    """Three digits where there is a fraction; thousands set apart by a narrow space."""
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}".replace(",", "\u202f")
    return f"{value:.3g}"


def _thin(series: Series, per_point_s: float) -> Series:
    if per_point_s <= 1:
        return series
    kept: dict[int, tuple[float, float | None]] = {}
    for at_s, value in series.points:
        slot = int(at_s // per_point_s)
        known = kept.get(slot)
        if known is None or known[1] is None or (value is not None and value > known[1]):
            kept[slot] = (slot * per_point_s if known is None else known[0], value)
    return Series(series.name, list(kept.values()), series.steps)


def _stack(series: Sequence[Series]) -> list[Series]:
    """Each on top of those before it."""
    below: dict[float, float] = {}
    layers = []
    for one in series:
        for at_s, value in one.points:
            below[at_s] = below.get(at_s, 0.0) + (value or 0.0)
        layers.append(Series(one.name, sorted(below.items()), one.steps))
    return layers


def _drawn(series: Series, i: int, top: float, length_s: float, filled: bool) -> str:
    step_s = max(1.0, math.ceil(length_s / MAX_POINTS))
    paths = []
    for stretch in _stretches(series.points, BREAK_S * step_s):
        points = [(_x(at_s, length_s), _y(value, top)) for at_s, value in stretch]
        line = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
        for x, y in points[1:]:
            line += f"H{x:.1f}V{y:.1f}" if series.steps else f"L{x:.1f} {y:.1f}"
        if filled:
            line += f"V{_y(0, top):.1f}H{points[0][0]:.1f}Z"
        elif len(points) == 1:
            line += "h1"
        paths.append(line)
    return f'<path class="{"area" if filled else "line"} s{i + 1}" d="{"".join(paths)}"/>' if paths else ""


def _stretches(points: Iterable[tuple[float, float | None]], break_s: float) -> list[list[tuple[float, float]]]:
    """Runs of values without a gap."""
    found: list[list[tuple[float, float]]] = []
    last_s = None
    for at_s, value in points:
        if value is None:
            last_s = None
            continue
        if last_s is None or at_s - last_s > break_s:
            found.append([])
        found[-1].append((at_s, value))
        last_s = at_s
    return found


def _axes(top: float, length_s: float) -> list[str]:
    parts = []
    parts_count = 5 if f"{top:e}".startswith("1.0") else 4
    for i in range(parts_count + 1):
        value = top * i / parts_count
        y = _y(value, top)
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" class="end">{number(value)}</text>')
    step_s = next((s for s in TIME_STEPS_S if length_s / s <= MAX_TIME_TICKS), 86_400)
    for t in range(0, int(length_s) + 1, step_s):
        x = _x(t, length_s)
        parts.append(f'<path class="grid" d="M{x:.1f} {HEIGHT - BOTTOM}v5"/>')
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 6}" class="middle">{clock(t)}</text>')
    return parts


def _marks(marks: Iterable[tuple[float, str]], length_s: float) -> list[str]:
    """Their words stand side by side, or below each other where they would touch; near the end to the left."""
    parts: list[str] = []
    taken: list[list[tuple[float, float]]] = []
    for at_s, words in marks:
        x, wide = _x(at_s, length_s), MARK_GAP + MARK_CHARACTER * len(words)
        before = x + wide > WIDTH - RIGHT and x - wide > LEFT
        span = (x - wide, x) if before else (x, x + wide)
        row = next((i for i, spans in enumerate(taken) if _free(span, spans)), len(taken))
        if row == len(taken):
            taken.append([])
        taken[row].append(span)
        place = f'x="{x - 4 if before else x + 4:.1f}" y="{TOP + 11 + MARK_ROW * row}"'
        parts.append(f'<path class="mark" d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}"/>')
        parts.append(f'<text {place} class="mark-words{" end" if before else ""}">{escape(words)}</text>')
    return parts


def _free(span: tuple[float, float], spans: Iterable[tuple[float, float]]) -> bool:
    return all(span[1] <= start or span[0] >= end for start, end in spans)


def _legend(plot: Plot) -> list[str]:
    parts, x = [], LEFT + 8 * len(plot.unit) + 24
    for i, one in enumerate(plot.series):
        shape = f"M{x} 8h22v11h-22Z" if plot.stacked else f"M{x} 14h22"
        parts.append(f'<path class="{"area" if plot.stacked else "line"} s{i + 1}" d="{shape}"/>')
        parts.append(f'<text x="{x + 28}" y="18">{escape(one.name)}</text>')
        x += 52 + 7 * len(one.name)
    return parts


def _ceiling(value: float, whole: bool) -> float:
    """The next of 1, 2, 4, 8 times a power of ten that is not less: a fifth or a quarter of it is a round number."""
    if whole:
        value = max(value, 4.0)
    if value < LEAST:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(m * power for m in (1, 2, 4, 8, 10) if m * power >= value * 0.9999)


def _x(at_s: float, length_s: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * at_s / max(length_s, 1.0)


def _y(value: float, top: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / top
