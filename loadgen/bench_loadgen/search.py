"""Which rate to try next, in search of the highest that holds. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

STEP = 1.5
FINENESS = 1.12
"""The search ends when the lowest rate that did not hold is no more than so many times the highest that did."""
TRIES = 2
"""A rate has not held when it failed so often: on a machine with other programs once may be their doing."""
LEAST_PER_S = 1.0


def highest(tried: Sequence[tuple[float, bool]]) -> float | None:
    """Of the rates that held; None when none did."""
    return max((rate for rate, held in tried if held), default=None)


def next_rate(tried: Sequence[tuple[float, bool]], first: float) -> float | None:
    """`tried` are rates and whether each held, in order; None when the search is over."""
    if not tried:
        return first
    most = highest(tried)
    failures = Counter(rate for rate, held in tried if not held and (most is None or rate > most))
    for rate, times in failures.items():
        if times < TRIES:
            return rate
    if not failures:
        return most * STEP
    least = min(failures)
    if most is None:
        return least / STEP if least / STEP >= LEAST_PER_S else None
    return math.sqrt(most * least) if least > FINENESS * most else None
