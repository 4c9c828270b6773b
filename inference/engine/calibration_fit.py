"""Least squares for a profile's step times. Pure, plain Python: five unknowns need no library.

The errors are relative, as the jitter is: a step is fitted to so many per cent. Steps far from the others (a page
fault, a neighbour on the machine) are left out of the fit; in the end everything is scaled so that the fitted steps
take as long altogether as the measured ones, because the throughput is their sum.

Above some batch size a server may change its kernels and get slower by more than a line says. Several such knees are
tried; the one that explains most stays, if it explains notably more than none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import NamedTuple

from inference.engine.calibration_steps import Step
from inference.engine.scheduler import Batch

_ROUNDS = 8
_OUTLIER = 4.0  # standard deviations, estimated from the median of the deviations
_RIDGE = 1e-12
_KNEES = (8, 12, 16, 20, 24, 28)
_NO_KNEE = 1_000_000
_EXACT = 1e-6
_NOTABLE = 0.05  # of the squared relative errors that a line leaves


class TooFewSteps(Exception):
    """The measurement has not seen enough to fit four figures to."""


@dataclass(frozen=True, slots=True)
class StepFit:
    """Seconds: for a step, for each decoding request, prompt token, token of context, decoding request over the knee.
    `r2` is the share of the variance that is explained, `steps` how many were used and `outliers` how many were not."""

    base_s: float
    per_decode_s: float
    per_prefill_token_s: float
    per_context_token_s: float
    per_decode_over_knee_s: float
    knee_seqs: int
    jitter: float
    r2: float
    steps: int
    outliers: int

    def step_s(self, batch: Batch) -> float:
        """The median time of a step with this batch."""
        return sum(c * x for c, x in zip(self._coefficients, _features(batch, self.knee_seqs), strict=True))

    @property
    def _coefficients(self) -> tuple[float, ...]:
        return (
            *(self.base_s, self.per_decode_s, self.per_prefill_token_s, self.per_context_token_s),
            self.per_decode_over_knee_s,
        )


def fit_steps(steps: Sequence[Step]) -> StepFit:
    """Raises TooFewSteps."""
    seen = [step for step in steps if step.duration_s]
    if len(seen) < 50:
        raise TooFewSteps(f"{len(seen)} steps were seen; 50 are the least, some hundreds are good")
    straight = _fit(seen, _NO_KNEE)
    best = min((_fit(seen, knee) for knee in _KNEES), key=lambda fit: fit.error)
    notable = straight.error - best.error > max(_NOTABLE * straight.error, _EXACT)
    knee, rows, kept, coefficients, _ = best if notable else straight
    logs = sorted(math.log(y / _predict(coefficients, x)) for x, y in kept)
    jitter = (_quantile(logs, 0.84) - _quantile(logs, 0.16)) / 2
    total = sum(y for _, y in kept) / sum(_predict(coefficients, x) for x, _ in kept)
    coefficients = [c * total / math.exp(jitter**2 / 2) for c in coefficients]
    return StepFit(*coefficients, knee, jitter, _r2(kept, coefficients), len(kept), len(rows) - len(kept))


Row = tuple[tuple[float, ...], float]


class _Fitted(NamedTuple):
    """`error` is the mean of the squared relative errors, of all rows, each counted as 1 at most."""

    knee: int
    rows: list[Row]
    kept: list[Row]
    coefficients: list[float]
    error: float


def _fit(steps: Sequence[Step], knee: int) -> _Fitted:
    rows = [(_features(step.batch, knee), step.duration_s) for step in steps]
    kept, coefficients = rows, [median(y for _, y in rows), 0.0, 0.0, 0.0, 0.0]
    for _ in range(_ROUNDS):
        coefficients = _non_negative(kept, coefficients)
        kept = _without_outliers(rows, coefficients)
    errors = (math.log(y / _predict(coefficients, x)) for x, y in rows)
    return _Fitted(knee, rows, kept, coefficients, fmean(min(error**2, 1.0) for error in errors))


def _features(batch: Batch, knee: int) -> tuple[float, ...]:
    over = max(0, batch.decode_seqs - knee)
    return 1.0, float(batch.decode_seqs), float(batch.prefill_tokens), float(batch.context_tokens), float(over)


def _predict(coefficients: Sequence[float], x: Sequence[float]) -> float:
    return max(1e-9, sum(c * value for c, value in zip(coefficients, x, strict=True)))


def _non_negative(rows: Sequence[Row], before: Sequence[float]) -> list[float]:
    """Weighted by the last fit's prediction. A figure that comes out negative is 0, and the others are fitted again."""
    used = list(range(len(before)))
    while True:
        found = _solve(rows, used, before)
        lowest = min(used, key=lambda i: found[i])
        if found[lowest] >= 0 or len(used) == 1:
            return found
        used.remove(lowest)


def _solve(rows: Sequence[Row], used: Sequence[int], before: Sequence[float]) -> list[float]:
    """The normal equations, by Gaussian elimination with pivoting; columns are scaled first, as their units differ."""
    scale = {i: math.sqrt(sum(x[i] ** 2 for x, _ in rows)) or 1.0 for i in used}
    n = len(used)
    matrix = [[0.0] * (n + 1) for _ in range(n)]
    for x, y in rows:
        weight = 1 / _predict(before, x) ** 2
        values = [x[i] / scale[i] for i in used]
        for j, left in enumerate(values):
            line = matrix[j]
            for k, right in enumerate(values):
                line[k] += weight * left * right
            line[n] += weight * left * y
    for j in range(n):
        matrix[j][j] *= 1 + _RIDGE
        matrix[j][j] += _RIDGE
    for j in range(n):
        pivot = max(range(j, n), key=lambda row: abs(matrix[row][j]))
        matrix[j], matrix[pivot] = matrix[pivot], matrix[j]
        for row in range(n):
            if row != j:
                factor = matrix[row][j] / matrix[j][j]
                matrix[row] = [a - factor * b for a, b in zip(matrix[row], matrix[j], strict=True)]
    found = [0.0] * len(before)
    for j, i in enumerate(used):
        found[i] = matrix[j][n] / matrix[j][j] / scale[i]
    return found


def _without_outliers(rows: Sequence[Row], coefficients: Sequence[float]) -> list[Row]:
    logs = [math.log(y / _predict(coefficients, x)) for x, y in rows]
    middle = median(logs)
    spread = 1.4826 * median(abs(value - middle) for value in logs)
    bound = max(_OUTLIER * spread, 1e-6)
    return [row for row, value in zip(rows, logs, strict=True) if abs(value - middle) <= bound]


def _r2(rows: Sequence[Row], coefficients: Sequence[float]) -> float:
    mean = sum(y for _, y in rows) / len(rows)
    variance = sum((y - mean) ** 2 for _, y in rows)
    left = sum((y - _predict(coefficients, x)) ** 2 for x, y in rows)
    return 1 - left / variance if variance else 1.0


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[round(share * (len(ordered) - 1))]
