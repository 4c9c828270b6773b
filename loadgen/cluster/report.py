"""The figures of a run as text, each beside what it should be."""

from __future__ import annotations

from loadgen.cluster.bench import Figures
from loadgen.machine import at, quantiles

PACE_AIM = 0.97
GAP_AIM_MS = 1500.0
LATE_AIM_MS = 500.0


def kept_up(figures: Figures) -> bool:
    """Nothing fell behind, and no reply failed."""
    return (
        figures.pacing.pace >= PACE_AIM
        and at(sorted(figures.gap_ms), 0.99) < GAP_AIM_MS
        and at(sorted(figures.late_ms), 0.99) < LATE_AIM_MS
        and not figures.replies_failed
    )


def report(figures: Figures) -> str:
    paced = figures.pacing
    lines = [f"pace             {paced.pace:.3f} of the profile's tokens a second   {_aim(paced.pace >= PACE_AIM)}"]
    lines += [
        f"  token {name:<5}    {seen:8.1f} ms between two, {due:.1f} due: {seen / due:.2f}"
        for name, (seen, due) in paced.pairs().items()
    ]
    lines += [
        "",
        "stage, ms:",
        f"  snapshot late  {quantiles(figures.late_ms)}   {_aim(at(sorted(figures.late_ms), 0.99) < LATE_AIM_MS)}",
        f"  between two    {quantiles(figures.gap_ms)}   {_aim(at(sorted(figures.gap_ms), 0.99) < GAP_AIM_MS)}",
        "begun too late by the cluster's loop, ms:",
        *(
            f"  {name:<15}p50 ≤ {late.at_most_ms(0.5):6.1f}   p99 ≤ {late.at_most_ms(0.99):6.1f}   of {late.count}"
            for name, late in figures.work.items()
        ),
        "phones, ms:",
        f"  state poll     {quantiles(figures.poll_ms)}",
        f"  answer saved   {quantiles(figures.saved_ms)}",
        f"  replies        {figures.replies}, {figures.replies_failed} failed; faults {figures.broken or 'none'}",
        "",
        "CPU and memory:",
    ]
    busy = sum(part.cores for part in figures.parts)
    lines += [
        f"  {part.name:<15}{part.cores:5.2f} cores ({part.cores / busy:4.0%})   {part.peak_mb:5.0f} MB"
        for part in figures.parts
    ]
    return "\n".join([*lines, "", figures.watch.report()])


def _aim(met: bool) -> str:
    return "met" if met else "MISSED"
