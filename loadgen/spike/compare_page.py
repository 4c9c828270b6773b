"""The comparison's page: the figures of two runs in a table, and what both did each second in each plot."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median

from loadgen.spike.comparison import Comparison, Side, row
from loadgen.spike.report.plots import Column, Drawer, Drawing, steps
from loadgen.spike.report.rendering import rendered

PLOTS = (
    ("sent", "Requests sent", "a second", ("sent",)),
    ("completed", "Requests answered in full", "a second", ("completed",)),
    ("lost", "Requests lost: dropped, refused or failed", "a second", ("dropped", "refused", "failed")),
    ("in_flight", "Requests in flight", "requests", ("in_flight",)),
    ("ttft", "Time to first token, p95", "seconds", ("ttft_p95_s",)),
    ("e2e", "Whole answer, p95", "seconds", ("e2e_p95_s",)),
    ("tokens", "Tokens", "tokens/s", ("tokens_per_s",)),
    ("waiting", "Waiting at the server, by its own count", "requests", ("server_waiting",)),
    ("ready", "Pods ready", "pods", ("ready",)),
    ("cost", "Cost per hour", "$/h", ("usd_per_hour",)),
)
"""(id, title, unit, columns of a run's series that are added up)."""
HOLDING = {"sent", "completed", "lost", "ready", "cost"}
TARGETED = {"ttft"}


def page(comparison: Comparison) -> str:
    """The HTML. Of several runs a plot shows the median of each second."""
    return rendered(
        "compare_page.html",
        comparison=comparison,
        rows=[(change, row(change)) for change in comparison.changes if (change.a, change.b) != (None, None)],
        plots=plots(comparison),
        several=len(comparison.a.runs) > 1 or len(comparison.b.runs) > 1,
    )


def plots(comparison: Comparison) -> list[Drawing]:
    sides = (comparison.a, comparison.b)
    plans = [run.plan for side in sides for run in side.runs]
    alike = all(plan.corners() == plans[0].corners() for plan in plans)
    length = max(len(run.summary.series.t) for side in sides for run in side.runs)
    drawer = Drawer(range(length), steps(plans[0]) if alike else ())
    target = ("target", plans[0].slo.ttft_s) if all(plan.slo == plans[0].slo for plan in plans) else None
    drawn = (
        drawer.lines(
            id,
            title,
            unit,
            {side.name: usual(side, columns, length) for side in sides},
            holding=id in HOLDING,
            target=target if id in TARGETED else None,
        )
        for id, title, unit, columns in PLOTS
    )
    return [drawing for drawing in drawn if drawing]


def usual(side: Side, names: Sequence[str], length: int) -> Column:
    """The median of the side's runs in each second, of these columns together; None where none of them has a value."""
    runs = [[getattr(run.summary.series, name) for name in names] for run in side.runs]
    return [_median(_sum(column[at] for column in run if at < len(column)) for run in runs) for at in range(length)]


def _sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None
