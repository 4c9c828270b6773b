"""The runs over time as one picture: for each configuration the requests and, under them, the pods. SVG without scripts
that is readable on light and on dark pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from xml.sax.saxutils import escape

from webapp.rehearse.rehearsal import Point, Run
from webapp.talk.model import Kind

WIDTH, LEFT, RIGHT = 900, 44, 12
REQUESTS_HEIGHT, PODS_HEIGHT, GAP, TITLE, AXIS, LEGEND = 130, 90, 16, 26, 24, 30
EVERY_S = 5
"""A point of the picture stands for so many seconds, by the largest value in them."""
STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #333 }
  .title { font-weight: 600 }
  .grid { stroke: #8884; stroke-width: 1 }
  .open { fill: #8882 }
  .expected, .queue, .desired, .ready { fill: none; stroke-width: 1.8; stroke-linejoin: round }
  .expected { stroke: #6741d9; stroke-dasharray: 6 3 }
  .queue { stroke: #d9480f }
  .desired { stroke: #868e96; stroke-dasharray: 3 2 }
  .ready { stroke: #0b7285 }
  @media (prefers-color-scheme: dark) {
    text { fill: #ddd } .expected { stroke: #b197fc } .queue { stroke: #ffa94d }
    .desired { stroke: #adb5bd } .ready { stroke: #66d9e8 }
  }"""
LEGENDS = (
    ("expected", "expected requests"),
    ("queue", "requests that wait"),
    ("desired", "pods asked for"),
    ("ready", "pods ready"),
)


def svg(runs: Mapping[str, Run], heading: str) -> str:
    """All configurations on the same scales. Shaded: the time in which an activity is open."""
    points = [point for run in runs.values() for point in run.points]
    end_s = max(point.at_s for point in points)
    requests = _top(max(max(point.expected, point.queue) for point in points))
    pods = _top(max(max(point.desired, point.pods) for point in points))
    each = TITLE + REQUESTS_HEIGHT + GAP + PODS_HEIGHT + AXIS
    height = LEGEND + each * len(runs)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" role="img">',
        f"<title>{escape(heading)}</title>",
        f"<style>{STYLE}\n</style>",
        *_legend(),
    ]
    for i, (name, run) in enumerate(runs.items()):
        parts.append(f'<g transform="translate(0 {LEGEND + i * each})">{_panel(name, run, end_s, requests, pods)}</g>')
    return "\n".join([*parts, "</svg>", ""])


def _legend() -> list[str]:
    return [
        f'<path class="{name}" d="M{LEFT + 170 * i} 16h28"/><text x="{LEFT + 34 + 170 * i}" y="20">{text}</text>'
        for i, (name, text) in enumerate(LEGENDS)
    ]


def _panel(name: str, run: Run, end_s: float, requests: float, pods: float) -> str:
    upper, lower = TITLE, TITLE + REQUESTS_HEIGHT + GAP
    bottom = lower + PODS_HEIGHT
    parts = [f'<text class="title" x="{LEFT}" y="{TITLE - 9}">{escape(name)}</text>']
    for x, width in _open(run, end_s):
        parts.append(f'<path class="open" d="M{x:.1f} {upper}h{width:.1f}V{bottom}h{-width:.1f}z"/>')
    for top, height, most in ((upper, REQUESTS_HEIGHT, requests), (lower, PODS_HEIGHT, pods)):
        for value in (0.0, most / 2, most):
            y = top + height * (1 - value / most)
            parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
            parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    for minute in range(0, int(end_s // 60) + 1, 10):
        x = _x(minute * 60, end_s)
        parts.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{minute} min</text>')

    def line(cls: str, read: Callable[[Point], float], top: int, height: int, most: float, steps: bool) -> str:
        seen = [(_x(p.at_s, end_s), top + height * (1 - v / most)) for p, v in _thinned(run.points, read)]
        return f'<path class="{cls}" d="{_steps(seen) if steps else _line(seen)}"/>'

    parts.append(line("queue", lambda p: p.queue, upper, REQUESTS_HEIGHT, requests, False))
    parts.append(line("expected", lambda p: p.expected, upper, REQUESTS_HEIGHT, requests, False))
    parts.append(line("desired", lambda p: p.desired, lower, PODS_HEIGHT, pods, True))
    parts.append(line("ready", lambda p: p.ready, lower, PODS_HEIGHT, pods, True))
    return "".join(parts)


def _open(run: Run, end_s: float) -> list[tuple[float, float]]:
    """Where activities that ask something of the room are open: left edge and width."""
    return [
        (_x(slot.opens_s, end_s), _x(slot.ends_s, end_s) - _x(slot.opens_s, end_s))
        for slot in run.script.slots
        if slot.activity.kind in (Kind.QUIZ, Kind.ASK)
    ]


def _thinned(points: Sequence[Point], read: Callable[[Point], float]) -> list[tuple[Point, float]]:
    chunks = [points[i : i + EVERY_S] for i in range(0, len(points), EVERY_S)]
    return [(chunk[0], max(map(read, chunk))) for chunk in chunks]


def _line(seen: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in seen)


def _steps(seen: Sequence[tuple[float, float]]) -> str:
    """Only where the value changes."""
    path, last = [f"M{seen[0][0]:.1f} {seen[0][1]:.1f}"], seen[0][1]
    for x, y in seen[1:]:
        if y != last:
            path.append(f"H{x:.1f}V{y:.1f}")
            last = y
    return "".join([*path, f"H{seen[-1][0]:.1f}"])


def _x(at_s: float, end_s: float) -> float:
    return LEFT + at_s / end_s * (WIDTH - LEFT - RIGHT)


def _top(value: float) -> float:
    """A round number that is not below it, with a whole half."""
    size = 2.0
    while True:
        for step in (1, 2, 3, 4, 5, 6, 8):
            if size * step >= value:
                return size * step
        size *= 10
