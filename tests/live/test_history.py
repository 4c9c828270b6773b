"""The ring behind the stage's plots."""

from __future__ import annotations

import json
from dataclasses import fields, replace

from hypothesis import given
from hypothesis import strategies as st

from tests.scripted_cluster import T0_S, node, snapshot
from webapp.live.history import LENGTH_S, History, Point, point
from webapp.live.vitals import Reading


def second(t: int, **changes: float) -> Point:
    return replace(point(snapshot(1), Reading(), t), **changes)


def test_twenty_minutes_are_kept() -> None:
    history = History()
    for t in range(LENGTH_S + 30):
        history.add(second(t))
    columns = history.columns()
    assert columns["t"] == list(range(30, LENGTH_S + 30))
    assert columns.keys() == {f.name for f in fields(Point)}
    assert {len(column) for column in columns.values()} == {LENGTH_S}


def test_a_history_of_nothing_has_its_columns() -> None:
    assert History().columns() == {f.name: [] for f in fields(Point)}


def test_a_second_told_twice_is_one_point_and_the_latest_counts() -> None:
    history = History()
    for waiting in (1, 2):
        history.add(second(7, waiting=waiting))
    assert history.columns()["waiting"] == [2]


@given(st.lists(st.integers(0, 50)), st.integers(1, 20))
def test_times_always_ascend(times: list[int], length: int) -> None:
    history = History(length)
    for t in times:
        history.add(second(t))
    kept = history.columns()["t"]
    assert kept == sorted(set(kept))
    assert len(kept) <= length
    assert not times or kept[-1] == max(times)


def test_a_point_says_what_the_ready_pods_are_to_carry() -> None:
    reading = Reading({"audience": 1, "amplified": 2, "scripted": 3, "api": 4}, 5, 0.12345, 0.98765, 1234.56)
    made = point(snapshot(3), reading, T0_S + 0.9)
    assert (made.t, made.goal, made.ready, made.pods) == (int(T0_S), 75.0, 3, 3)
    assert (made.scripted, made.waiting, made.ttft_p50_s, made.tokens_per_s) == (3, 5, 0.123, 1234.6)
    assert made.usd_per_hour == 1.11


def test_without_an_autoscaler_or_prices_a_point_has_gaps_and_is_still_json() -> None:
    bare = snapshot(1, autoscaler=None)
    bare = replace(bare, nodes=(replace(bare.nodes[0], usd_per_hour=None),))
    made = point(bare, Reading(), T0_S)
    assert (made.metric, made.goal, made.desired, made.usd_per_hour, made.ttft_p95_s) == (None,) * 5
    history = History()
    history.add(made)
    assert json.loads(json.dumps(history.columns()))["metric"] == [None]


def test_a_node_counts_once_it_has_joined() -> None:
    nodes = (node(0), node(1, phase="draining"), node(2, phase="ordered"))
    assert point(replace(snapshot(1), nodes=nodes), Reading(), T0_S).nodes == 2
