"""The run by the second: each request is in it once, in the right second."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.spike.plan import Plan, Stage
from loadgen.spike.point import Point
from loadgen.spike.series import series
from loadgen.spike.server import ServerSample

PLAN = Plan("spike", "open", 2.0, (Stage(2.0, 4.0), Stage(6.0, 0.0), Stage(6.0, 2.0)), "k6")
CLOSED = replace(PLAN, loop="closed")


def point(n: int = 0, due_s: float | None = 0.0, lag_s: float = 0.0, took_s: float = 1.0, **fields) -> Point:
    sent_s = (due_s or 0.0) + lag_s
    given = {"sent_s": sent_s, "first_s": sent_s + took_s / 2, "first_by": "token", "ended_s": sent_s + took_s}
    return Point(n=n, by="k6", due_s=due_s, **(given | {"status": 200, "completion_tokens": 10} | fields))


def dropped(n: int, due_s: float) -> Point:
    return Point(n=n, by="k6", due_s=due_s)


def unfinished(n: int, due_s: float) -> Point:
    return point(n, due_s, ended_s=None, first_s=None, completion_tokens=None)


points_of_all_outcomes = st.lists(
    st.one_of(
        st.builds(point, st.integers(0, 99), st.floats(0, 6), st.floats(0, 2), st.floats(0.001, 40)),
        st.builds(lambda due_s: point(due_s=due_s, status=429), st.floats(0, 6)),
        st.builds(lambda due_s: point(due_s=due_s, status=500, error="broken"), st.floats(0, 6)),
        st.builds(dropped, st.integers(0, 99), st.floats(0, 6)),
        st.builds(unfinished, st.integers(0, 99), st.floats(0, 6)),
    ),
    max_size=40,
)


def test_the_plan_is_beside_what_came_of_it() -> None:
    points = [point(0, 0.5), point(1, 0.9, lag_s=0.3), dropped(2, 4.2), point(3, 4.5, status=503)]
    found = series(PLAN, [*points, unfinished(4, 5.0)])
    assert found.t == tuple(range(7))
    assert found.level == (2, 2, 2, 2, 6, 6, 0)
    assert sum(found.offered) == PLAN.planned and found.offered == (1, 2, 2, 2, 6, 6, 1)
    assert (found.sent, found.dropped) == ((1, 1, 0, 0, 1, 1, 0), (0, 0, 0, 0, 1, 0, 0))
    assert (found.completed, found.refused) == ((0, 1, 1, 0, 0, 0, 0), (0, 0, 0, 0, 0, 1, 0))
    assert found.in_flight == (1, 1, 0, 0, 1, 1, 1)


def test_latencies_stand_in_the_second_in_which_they_ended_and_count_from_the_schedule() -> None:
    found = series(PLAN, [point(0, 0.5, lag_s=1.0, took_s=2.0), point(1, 1.5, took_s=0.2)])
    assert found.ttft_p50_s[:4] == (None, 0.1, 2.0, None)
    assert found.e2e_p95_s[:4] == (None, 0.2, None, 3.0)


def test_in_a_closed_loop_nothing_is_offered_and_latencies_count_from_the_sending() -> None:
    found = series(CLOSED, [point(0, None, lag_s=0.5, took_s=2.0)])
    assert set(found.offered) == {None}
    assert found.e2e_p50_s[2] == 2.0


def test_tokens_are_spread_over_the_time_in_which_they_came() -> None:
    found = series(PLAN, [point(0, 0.0, took_s=4.5, first_s=0.5, completion_tokens=40)])
    assert found.tokens_per_s == (5, 10, 10, 10, 5, 0, 0)


def test_first_tokens_may_be_another_ones() -> None:
    tools, probes = [point(0, 0.5, first_s=None)], [point(0, 3.0)]
    found = series(PLAN, tools, timed=probes)
    assert found.ttft_p50_s[3] == 0.5 and sum(found.sent) == 1


def test_a_run_that_was_stopped_ends_with_its_last_answer() -> None:
    points = [point(0, 0.5, took_s=1.0)]
    assert len(series(PLAN, points).t) == 7
    assert len(series(PLAN, points, stopped=True).t) == 2
    assert series(PLAN, points, stopped=True).offered == (1, 2)


def test_a_clock_that_was_set_does_not_make_a_series_of_years() -> None:
    found = series(PLAN, [point(0, 0.0, took_s=1e9)])
    assert len(found.t) <= PLAN.deadline_s + PLAN.timeout_s + 1
    assert found.completed[-1] == 1


def test_the_servers_figures_stand_until_the_next_or_until_they_are_stale() -> None:
    plan = Plan("soak", "open", 1.0, (Stage(1.0, 12.0),), "k6")
    samples = [
        ServerSample(at_s=3.5, pods=2),
        ServerSample(at_s=-0.5, running=1.0),
        ServerSample(at_s=2.2, running=7.0),
    ]
    found = series(plan, [point()], samples)
    assert found.server_running == (1, 1, 7, 7, 7, 7, 7, 7, None, None, None, None, None)
    assert found.pods == (None, None, None, 2, 2, 2, 2, 2, 2, None, None, None, None)
    assert set(found.nodes) == {None}


@given(points_of_all_outcomes)
def test_every_request_is_in_each_of_its_columns_once(points: list[Point]) -> None:
    found = series(PLAN, points)
    outcomes = [p.outcome for p in points]
    assert sum(found.sent) + sum(found.dropped) == len(points)
    assert sum(found.completed) == outcomes.count("served")
    assert sum(found.refused) == outcomes.count("refused")
    assert sum(found.failed) == outcomes.count("failed")
    assert found.in_flight[-1] == outcomes.count("unfinished")
    assert min(found.in_flight) >= 0
    tokens = sum(p.completion_tokens or 0 for p in points if p.ended_s is not None)
    assert sum(found.tokens_per_s) == pytest.approx(tokens, abs=0.06 * len(found.t))
    assert min(found.tokens_per_s) >= 0


@given(points_of_all_outcomes, st.randoms(use_true_random=False))
def test_the_order_of_the_points_does_not_matter(points: list[Point], dice: random.Random) -> None:
    shuffled = dice.sample(points, len(points))
    a, b = series(PLAN, points), series(PLAN, shuffled)
    assert replace(a, tokens_per_s=()) == replace(b, tokens_per_s=())
    assert a.tokens_per_s == pytest.approx(b.tokens_per_s, abs=0.11)


@given(points_of_all_outcomes)
def test_percentiles_lie_within_what_was_measured(points: list[Point]) -> None:
    e2e_s = [p.ended_s - p.due_s for p in points if p.outcome == "served"]
    found = series(PLAN, points)
    for p50, p95 in zip(found.e2e_p50_s, found.e2e_p95_s, strict=True):
        assert p50 is None or min(e2e_s) - 1e-4 <= p50 <= p95 <= max(e2e_s) + 1e-4
