"""What a run did each second, as plots. Pure. A plot of which nothing is known is left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from loadgen.plot import Plot, Series, number, svg
from loadgen.spike.plan import Plan, Stage
from loadgen.spike.series import Series as Columns
from loadgen.spike.summary import Summary

Column = Sequence[float | None]


@dataclass(frozen=True, slots=True)
class Drawing:
    """`legend` are the names of the plot's series, in its order; `shape` is how they are drawn."""

    title: str
    svg: Markup
    legend: tuple[str, ...]
    shape: str


def steps(plan: Plan) -> list[tuple[float, str]]:
    """(seconds, words) where the plan bends or steps, and where it ends: a stage's name where it has one."""
    starting: dict[float, list[Stage]] = {}
    at_s = 0.0
    for stage in plan.stages:
        starting.setdefault(at_s, []).append(stage)
        at_s += stage.for_s
    level, marks = plan.start, []
    for begins_s, stages in starting.items():
        if begins_s > 0:
            marks.append((begins_s, next((s.name for s in stages if s.name), "") or _turn(level, stages[0], plan)))
        level = stages[-1].to
    return [*((begins_s, words) for begins_s, words in marks if begins_s < at_s), (at_s, "end")]


def _turn(before: float, stage: Stage, plan: Plan) -> str:
    how = "hold" if stage.to == before else "ramp to" if stage.for_s else "step to"
    return f"{how} {number(stage.to)}{'/s' if plan.loop == 'open' else ' users'}"


def plots(summary: Summary, plan: Plan) -> list[Drawing]:
    per_s = summary.series
    slo = summary.goodput.slo
    by_second = Drawer(per_s.t, steps(plan))
    return [
        drawing
        for drawing in (
            by_second.lines(
                "requests",
                "Requests: offered, sent, answered in full",
                "a second",
                {"offered": per_s.offered, "sent": per_s.sent, "answered": per_s.completed},
                holding=True,
            ),
            by_second.layers(
                "lost",
                "Requests lost: dropped before they went out, refused, failed",
                "a second",
                {"dropped": per_s.dropped, "refused": per_s.refused, "failed": per_s.failed},
            ),
            by_second.lines("flight", "Requests in flight", "requests", _in_flight(per_s, plan), whole=True),
            by_second.lines(
                "ttft",
                "Time to first token",
                "seconds",
                {"p95": per_s.ttft_p95_s, "p50": per_s.ttft_p50_s},
                target=("target", slo.ttft_s),
            ),
            by_second.lines("e2e", "Whole answer", "seconds", {"p95": per_s.e2e_p95_s, "p50": per_s.e2e_p50_s}),
            by_second.lines("tokens", "Tokens", "tokens/s", {"completion tokens": per_s.tokens_per_s}),
            by_second.layers(
                "server",
                "At the server, by its own count",
                "requests",
                {"running": per_s.server_running, "waiting": per_s.server_waiting},
            ),
            by_second.lines(
                "pods",
                "Pods and nodes",
                "pods, nodes",
                {
                    "pods ready": per_s.ready,
                    "pods asked for": per_s.desired,
                    "pods": per_s.pods,
                    "nodes": per_s.nodes,
                },
                whole=True,
                holding=True,
            ),
            by_second.lines("cost", "Cost per hour", "$/h", {"all nodes": per_s.usd_per_hour}, holding=True),
        )
        if drawing
    ]


def _in_flight(per_s: Columns, plan: Plan) -> dict[str, Column]:
    return {"in flight": per_s.in_flight, **({"users": per_s.level} if plan.loop == "closed" else {})}


@dataclass(frozen=True, slots=True)
class Drawer:
    """Draws columns over the run's seconds `t`, each plot with the same marks."""

    t: Sequence[float]
    marks: Sequence[tuple[float, str]]

    @property
    def length_s(self) -> float:
        return max([self.t[-1] + 1 if self.t else 0.0, *(at_s for at_s, _ in self.marks)])

    def lines(
        self,
        id: str,
        title: str,
        unit: str,
        columns: dict[str, Column],
        whole: bool = False,
        holding: bool = False,
        target: tuple[str, float] | None = None,
    ) -> Drawing | None:
        """`holding`: a value holds until the next. `target` is a line across, drawn where there is anything else."""
        series = [Series(name, self._known(column), holding) for name, column in columns.items() if _any(column)]
        if series and target:
            series.append(Series(target[0], [(at_s, target[1]) for at_s in self.t]))
        return self._drawing(Plot(id, title, unit, series, marks=self.marks, whole=whole), "line")

    def layers(self, id: str, title: str, unit: str, columns: dict[str, Column]) -> Drawing | None:
        """On top of each other. What is 0 all along is not drawn."""
        series = [Series(name, self._known(column), True) for name, column in columns.items() if any(column)]
        return self._drawing(Plot(id, title, unit, series, stacked=True, marks=self.marks, whole=True), "area")

    def _known(self, column: Column) -> list[tuple[float, float | None]]:
        """Seconds without a value are passed over: a server that is asked every other second makes one line."""
        return [(at_s, value) for at_s, value in zip(self.t, column, strict=True) if value is not None]

    def _drawing(self, plot: Plot, shape: str) -> Drawing | None:
        if not plot.series:
            return None
        names = tuple(series.name for series in plot.series)
        return Drawing(plot.title, Markup(svg(plot, self.length_s, legend=False)), names, shape)


def _any(column: Column) -> bool:
    return any(value is not None for value in column)
