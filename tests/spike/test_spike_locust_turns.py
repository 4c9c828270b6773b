"""In a closed loop as many users ask as the plan's level says, at every moment of it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from loadgen.locustfiles._turns import cell_at, cell_turn_s, turn_s
from loadgen.spike.plan import Cell, Plan, Stage

MOMENTS = [n / 16 for n in range(16 * 12)]

_stages = st.builds(Stage, to=st.integers(0, 5), for_s=st.sampled_from([0, 0.5, 1, 2]))
_plans = st.builds(
    lambda start, stages: Plan(scenario="spike", loop="closed", start=start, stages=tuple(stages), source="locust"),
    st.integers(0, 5),
    st.lists(_stages, min_size=1, max_size=5),
)


@given(_plans)
def test_a_user_asks_now_exactly_where_the_level_is_above_its_number(plan: Plan) -> None:
    for user in range(6):
        for at_s in MOMENTS:
            assert (turn_s(plan, user, at_s) == at_s) == (plan.level(at_s) > user) or _crosses(plan, user, at_s)


@given(_plans, st.integers(0, 5), st.sampled_from(MOMENTS))
def test_its_next_turn_is_the_first_there_is(plan: Plan, user: int, at_s: float) -> None:
    turn = turn_s(plan, user, at_s)
    for moment in MOMENTS:
        if at_s <= moment < (plan.duration_s if turn is None else turn):
            assert plan.level(moment) <= user
    if turn is not None:
        assert at_s <= turn < plan.duration_s
        assert plan.level(min(turn + 1e-6, plan.duration_s - 1e-9)) > user - 1e-4


def _crosses(plan: Plan, user: int, at_s: float) -> bool:
    """The level has just reached the user's number and rises: its turn begins here."""
    return plan.level(at_s) == user and plan.level(at_s + 1e-6) > user


def test_the_cells_of_a_matrix_follow_each_other() -> None:
    cells = (Cell("a", 1, 4, 0, 2), Cell("a", 3, 1, 2, 4), Cell("b", 2, 2, 4, 6))
    plan = Plan(scenario="matrix", loop="closed", start=1, stages=(Stage(3, 6),), source="locust", cells=cells)
    assert [cell_at(plan, at_s) for at_s in (0, 1.9, 2, 4, 5.9, 6)] == [0, 0, 1, 2, 2, None]
    assert [cell_turn_s(plan, user, 1.0) for user in range(4)] == [1.0, 2, 2, None]
    assert [cell_turn_s(plan, user, 3.0) for user in range(4)] == [3.0, 3.0, 3.0, None]
    assert [cell_turn_s(plan, user, 4.5) for user in range(3)] == [4.5, 4.5, None]
