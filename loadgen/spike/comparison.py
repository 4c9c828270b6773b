"""Two runs side by side, and what changed between them beyond noise.

Each side is a run, or several runs of the same kind. Of one run each, the noise is that within a run, which `bootstrap`
estimates; of several, it is what the runs themselves differ by.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from loadgen.spike.changes import FIGURES, NEVER, Change, Unit, between, between_means, replicas, values
from loadgen.spike.folder import Run
from loadgen.spike.report.words import UNKNOWN, dollars, percent, took

SEED = 1
ALIKE: dict[str, Callable[[Run], Any]] = {
    "scenario": lambda run: run.summary.about.scenario,
    "loop": lambda run: run.summary.about.loop,
    "seed": lambda run: run.summary.about.seed,
    "peak": lambda run: f"{run.summary.about.peak:g} {run.summary.about.unit}",
    "duration": lambda run: f"{run.summary.about.duration_s:g} s",
    "tool": lambda run: run.summary.about.tool,
    "place of the generator": lambda run: run.summary.about.tool_on,
    "kind of target": lambda run: run.summary.about.what or "unknown",
    "model's reality": lambda run: "simulated" if run.summary.about.simulated else "not known as simulated",
    "model": lambda run: run.summary.about.model,
    "way of measuring the first token": lambda run: run.summary.ttft_by or "none",
    "target for the first token": lambda run: took(run.plan.slo.ttft_s),
    "target for the time per token": lambda run: took(run.plan.slo.tpot_s),
}
"""What two runs have to have in common, by the words for it."""


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two: `name` is A or B, `path` what was given."""

    name: str
    path: str
    runs: tuple[Run, ...]

    @property
    def text(self) -> str:
        about = self.runs[0].summary.about
        several = f"{len(self.runs)} runs, " if len(self.runs) > 1 else ""
        verdicts = ", ".join(dict.fromkeys(run.summary.verdict.verdict for run in self.runs))
        return f"{self.path} ({several}{verdicts}; {about.tool} {about.tool_version} against {about.target})"


@dataclass(frozen=True, slots=True)
class Comparison:
    """`warnings` say why the two may not be compared; `method` how noise was told from change."""

    a: Side
    b: Side
    warnings: tuple[str, ...]
    changes: tuple[Change, ...]
    method: str

    def to_json(self) -> str:
        """Times in seconds, shares from 0 to 1; "never" where the target was not met again."""
        return json.dumps(
            {
                **{side.name.lower(): {"path": side.path, "runs": len(side.runs)} for side in (self.a, self.b)},
                "warnings": self.warnings,
                "method": self.method,
                "changes": [_as_json(change) for change in self.changes],
            },
            ensure_ascii=False,
            indent=1,
        )


def compare(a: Side, b: Side) -> Comparison:
    """Reads the points of two single runs. Raises BadFolder."""
    several = len(a.runs) > 1 or len(b.runs) > 1
    of_a, of_b = ([values(run.summary, run.plan) for run in side.runs] for side in (a, b))
    if several:
        changes = [between_means(f, [v[f.name] for v in of_a], [v[f.name] for v in of_b]) for f in FIGURES]
        method = (
            "Means of the runs. The interval comes from the runs' own spread (Welch's t): it holds the difference of "
            "the means in 99 of 100 such comparisons."
        )
    else:
        one, other = a.runs[0], b.runs[0]
        # What both were offered in a second is no noise: with one plan, the same seconds are drawn of both.
        seeds = (SEED, SEED if one.plan.corners() == other.plan.corners() else SEED + 1)
        drawn = [
            replicas(run.summary, run.plan, run.points(), Random(seed))
            for run, seed in zip((one, other), seeds, strict=True)
        ]
        changes = [between(f, of_a[0][f.name], of_b[0][f.name], *drawn) for f in FIGURES]
        method = (
            "The interval is the middle 99 % of the differences when both runs were resampled, some seconds at a time "
            "(a block bootstrap). That is the noise within a run. Two runs of one system differ by more: to be sure, "
            "run each several times and compare the folders that hold them."
        )
    return Comparison(a, b, tuple(warnings(a, b)), tuple(changes), method)


def warnings(a: Side, b: Side) -> list[str]:
    found = []
    for words, of in ALIKE.items():
        ours, theirs = ([str(one) for one in dict.fromkeys(map(of, side.runs))] for side in (a, b))
        if ours != theirs or len(ours) > 1:
            found.append(f"The {words} is not the same: {' or '.join(ours)} in A, {' or '.join(theirs)} in B.")
    plans = {(run.plan.start, run.plan.stages, run.plan.work, run.plan.cells) for run in (*a.runs, *b.runs)}
    if not found and len(plans) > 1:
        found.append("The plans are not the same: other arrivals, or other requests.")
    for side in (a, b):
        for run in side.runs:
            verdict = run.summary.verdict
            if verdict.verdict == "invalid":
                found.append(f"{side.name} ({run.folder}) is invalid: {' '.join(verdict.reasons)}")
            elif verdict.verdict == "stopped":
                found.append(f"{side.name} ({run.folder}) was stopped before its end.")
    return found


def row(change: Change) -> tuple[str, ...]:
    """The change's cells: figure, A, B, difference, ratio, interval, and what it means."""
    unit, difference = change.figure.unit, change.difference
    return (
        change.figure.label,
        *(shown(value, unit) for value in (change.a, change.b)),
        UNKNOWN if difference is None else signed(difference, unit),
        UNKNOWN if change.ratio is None else f"{change.ratio:.2f}",
        "" if change.low is None else f"{signed(change.low, unit)} … {signed(change.high, unit)}",
        meaning(change),
    )


def meaning(change: Change) -> str:
    if change.beyond_noise is None:
        return "one value a run" if change.difference is not None else ""
    if change.better is None:
        return "within noise"
    return "better, beyond noise" if change.better else "worse, beyond noise"


def shown(value: float | None, unit: Unit) -> str:
    if value == NEVER:
        return "never"
    if unit == "share":
        return percent(value)
    if unit == "usd":
        return dollars(value)
    if unit == "s":
        return took(value)
    return UNKNOWN if value is None else f"{value:,.1f} /s"


def signed(value: float, unit: Unit) -> str:
    """A difference; shares differ by percentage points."""
    size = f"{100 * abs(value):.1f} pp" if unit == "share" else shown(abs(value), unit)
    return size if not any(digit in "123456789" for digit in size) else ("+" if value > 0 else "−") + size


def _as_json(change: Change) -> dict[str, Any]:
    """NEVER is no number of JSON's."""
    return {
        "figure": change.figure.name,
        "unit": change.figure.unit,
        "a": "never" if change.a == NEVER else change.a,
        "b": "never" if change.b == NEVER else change.b,
        "difference": change.difference,
        "ratio": change.ratio,
        "low": change.low,
        "high": change.high,
        "beyond_noise": change.beyond_noise,
        "better": change.better,
    }
