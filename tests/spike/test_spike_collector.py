"""What the collector promises: every request once, with the moment at which it was due."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.spike.collector import Collector
from loadgen.spike.plan import Plan, Stage
from loadgen.spike.point import Began, Dropped, Point, Report, Sent, Trouble

T0 = 1_800_000_000.0
TEN_A_SECOND = Plan("spike", "open", 10, (Stage(10, 2),), "k6")
CLOSED = replace(TEN_A_SECOND, loop="closed")


def collected(plan: Plan, reports: list[Report], by: str = "k6", holds_headers: bool = False) -> list[Point]:
    collector = Collector(plan, holds_headers, by)
    for report in reports:
        collector.hear(report)
    return collector.close()


def served(n: int, sent_s: float, took_s: float = 0.5, **more) -> Point:
    return Point(n=n, by="k6", sent_s=T0 + sent_s, ended_s=T0 + sent_s + took_s, status=200, **more)


def test_points_are_told_in_the_time_of_the_run() -> None:
    collector = Collector(CLOSED, False, "k6")
    assert collector.hear(Began(T0)) is None
    point = collector.hear(served(0, 0.25))
    assert point is not None and point.sent_s == 0.25 and point.ended_s == 0.75
    assert collector.close() == [point]


def test_what_never_ended_is_unfinished_and_what_ended_is_not() -> None:
    points = collected(CLOSED, [Began(T0), Sent(0, T0 + 0.1), Sent(1, T0 + 0.2), served(0, 0.1)])
    assert [(p.n, p.outcome) for p in points] == [(0, "served"), (1, "unfinished")]
    assert points[1].sent_s == pytest.approx(0.2)


def test_a_request_that_is_told_of_after_its_end_is_not_counted_twice() -> None:
    points = collected(CLOSED, [Began(T0), served(0, 0.1), Sent(0, T0 + 0.1)])
    assert [p.outcome for p in points] == ["served"]


def test_a_phone_may_have_several_requests_under_its_one_number() -> None:
    reports: list[Report] = [
        Began(T0),
        *(Sent(7, T0 + t, "poll") for t in (0.1, 0.2, 0.3)),
        Sent(7, T0 + 0.3, "answer"),
    ]
    reports += [served(7, 0.1, kind="poll"), served(7, 0.3, kind="answer")]
    points = collected(CLOSED, reports)
    assert sorted((p.kind, p.outcome) for p in points) == [
        ("answer", "served"),
        ("poll", "served"),
        ("poll", "unfinished"),
        ("poll", "unfinished"),
    ]


def test_k6_starts_and_drops_belong_to_the_planned_arrivals_in_order() -> None:
    due = list(TEN_A_SECOND.arrivals())
    reports: list[Report] = [Began(T0)]
    reports += [
        served(0, due[0] + 0.001),
        served(1, due[1] + 0.2),
        Dropped(T0 + due[2] + 0.15, 2),
        Sent(2, T0 + due[4]),
    ]
    points = collected(TEN_A_SECOND, reports)
    by_due = sorted(points, key=lambda p: p.due_s or 0)
    assert [p.due_s for p in by_due] == pytest.approx(due[:5])
    assert sorted(p.outcome for p in points) == ["dropped", "dropped", "served", "served", "unfinished"]


def test_a_start_before_its_time_was_due_when_it_was_sent() -> None:
    """Two clocks may be a few milliseconds apart; a negative delay would make latencies shorter than they are."""
    due = next(iter(TEN_A_SECOND.arrivals()))
    (point,) = collected(TEN_A_SECOND, [Began(T0), served(0, due - 0.004)])
    assert point.due_s == point.sent_s == pytest.approx(due - 0.004)


def test_a_request_beyond_the_plan_was_due_when_it_was_sent() -> None:
    once = replace(TEN_A_SECOND, stages=(Stage(10, 0.1),))
    points = collected(once, [Began(T0), served(0, 0.1), served(1, 0.2)])
    assert [p.due_s for p in points] == pytest.approx([0.1, 0.2])


def test_a_tool_that_tells_when_a_request_was_due_is_believed() -> None:
    due = list(TEN_A_SECOND.arrivals())
    own = replace(served(0, due[0] + 0.3), by="locust", due_s=T0 + due[0])
    reports: list[Report] = [Began(T0), own, Sent(2, T0 + due[2]), Dropped(T0 + due[1] + 0.01)]
    points = collected(TEN_A_SECOND, reports, by="locust")
    assert sorted((p.n, p.outcome) for p in points) == [(0, "served"), (1, "dropped"), (2, "unfinished")]
    assert [p.due_s for p in sorted(points, key=lambda p: p.n)] == pytest.approx(due[:3])


def test_a_closed_loop_has_nothing_that_is_due() -> None:
    points = collected(CLOSED, [Began(T0), served(0, 0.1), Sent(1, T0 + 0.2)])
    assert [p.due_s for p in points] == [None, None]


@pytest.mark.parametrize(
    ("holds", "status", "kind", "by"),
    [
        (True, 200, "completion", "held headers"),
        (False, 200, "completion", ""),
        (True, 503, "completion", ""),
        (True, 200, "reply", ""),
    ],
)
def test_headers_are_the_first_token_only_where_the_target_holds_them(holds, status, kind, by) -> None:
    point = Point(n=0, by="k6", kind=kind, sent_s=T0, headers_s=T0 + 0.2, ended_s=T0 + 1, status=status)
    (found,) = collected(CLOSED, [Began(T0), point], holds_headers=holds)
    assert found.first_by == by
    assert found.first_s == (pytest.approx(0.2) if by else None)


def test_a_token_that_was_seen_is_not_replaced() -> None:
    point = served(0, 0.1, headers_s=T0 + 0.2, first_s=T0 + 0.3, first_by="token")
    (found,) = collected(CLOSED, [Began(T0), point], holds_headers=True)
    assert (found.first_by, found.first_s) == ("token", pytest.approx(0.3))


def test_of_several_machines_the_first_says_when_it_began() -> None:
    collector = Collector(CLOSED, False, "k6")
    collector.hear(Began(T0))
    collector.hear(Began(T0 + 3))
    assert collector.began_s == T0


def test_without_a_beginning_the_first_thing_done_is_moment_0() -> None:
    collector = Collector(TEN_A_SECOND, False, "k6")
    for report in (Trouble("no setup"), served(0, 5.0), Sent(1, T0 + 5.1)):
        collector.hear(report)
    assert collector.close()[0].sent_s == 0.0
    assert collector.began_s == T0 + 5.0
    assert collected(TEN_A_SECOND, []) == []


@given(
    st.lists(st.sampled_from(["served", "unfinished", "dropped"]), max_size=20),
    st.integers(0, 2**32),
    st.sampled_from(["k6", "locust"]),
)
def test_every_arrival_is_one_point_in_whatever_order_it_is_told(fates: list[str], seed: int, by: str) -> None:
    """Each request's own reports keep their order or not; `due_s` are the plan's, each of them once."""
    due = list(TEN_A_SECOND.arrivals())
    reports: list[Report] = []
    for n, fate in enumerate(fates):
        at_s = T0 + due[n] + 0.01
        if fate == "dropped":
            reports.append(Dropped(at_s))
        else:
            reports.append(Sent(n, at_s))
        if fate == "served":
            reports.append(replace(served(n, due[n] + 0.01), by=by))
    random.Random(seed).shuffle(reports)
    points = collected(TEN_A_SECOND, [Began(T0), *reports], by=by)
    assert sorted(p.outcome for p in points) == sorted(fates)
    assert sorted(p.due_s for p in points) == pytest.approx(due[: len(fates)])
    assert all(a <= b for a, b in pairwise(p.sent_s for p in points if p.sent_s is not None))
