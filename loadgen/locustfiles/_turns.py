"""When each user of a closed loop asks. Pure.

Locust can take users away, but only at its own ticks of a second, in the midst of a request, and it counts those that
are still finishing when it adds some. Here the users of the plan's peak all stay, and each asks while it is its turn.
"""

from __future__ import annotations

from itertools import pairwise

from loadgen.spike.plan import Plan


def turn_s(plan: Plan, user: int, at_s: float) -> float | None:
    """When user number `user` (from 0) may ask next, `at_s` or later: while the level is above its number, so that
    three may ask at a level of 2.5. None when it never may again."""
    if at_s < plan.duration_s and plan.level(at_s) > user:
        return at_s
    for (from_s, before), (to_s, after) in pairwise(plan.corners()):
        if to_s <= max(at_s, from_s):
            continue
        if from_s >= at_s and before > user:
            return from_s
        if before <= user < after:
            return max(at_s, from_s + (to_s - from_s) * (user - before) / (after - before))
    return None


def cell_at(plan: Plan, at_s: float) -> int | None:
    """The index of the matrix's cell whose time it is."""
    return next((i for i, cell in enumerate(plan.cells) if cell.from_s <= at_s < cell.to_s), None)


def cell_turn_s(plan: Plan, user: int, at_s: float) -> float | None:
    """When that user may ask next in a matrix, `at_s` or later; None when it never may again."""
    starts = (max(at_s, cell.from_s) for cell in plan.cells if cell.users > user and cell.to_s > at_s)
    return min(starts, default=None)
