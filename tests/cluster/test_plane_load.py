"""How many pods are asked for: by the autoscaler, by a person, and what the view says of it."""

from __future__ import annotations

import pytest

from inference.cluster.cluster import NotPossible
from tests.cluster.plane_harness import T0, Scripted, Simulated, with_pod


def test_the_autoscaler_is_asked_when_it_is_due_with_pods_asked_for_and_ready() -> None:
    sim = Simulated()
    sim.run(180)
    sim.scaling.desired = 3
    sim.run(30)
    times, current, ready = zip(*sim.scaling.syncs, strict=True)
    assert [at_s - T0 for at_s in times] == [15.0 * i for i in range(len(times))]
    assert current[-2:] == (1, 3)
    assert set(current[:-1]) == {1}
    assert (ready[0], ready[-1]) == (0, 1)


def test_the_view_has_the_last_decision_and_why() -> None:
    sim = Simulated(scaling=Scripted(desired=4, metric=88.0, fallback=True))
    assert sim.view.autoscaler.metric is None
    assert sim.view.autoscaler.desired == 1
    sim.query = {"sum(running)": 88.0}.get
    sim.run(1)
    seen = sim.view.autoscaler
    assert (seen.desired, seen.metric, seen.target, seen.formula) == (4, 88.0, 25.0, "running + waiting * 10")
    assert (seen.triggers, seen.fallback, seen.why) == ({"running": 88.0}, True, "told to want 4")
    assert (seen.min_replicas, seen.max_replicas) == (1, 10)


def test_it_begins_with_the_deployments_replicas_within_the_bounds() -> None:
    assert Simulated(with_pod(replicas=3)).view.autoscaler.desired == 3
    assert Simulated(with_pod(replicas=0)).view.autoscaler.desired == 1
    assert Simulated(with_pod(replicas=40)).view.autoscaler.desired == 10


def test_a_pinned_number_holds_whatever_the_load() -> None:
    sim = Simulated()
    sim.plane.pin(3, sim.now_s)
    sim.run(240)
    assert sim.view.ready == 3
    assert (sim.view.autoscaler.pinned, sim.view.autoscaler.desired) == (3, 3)
    assert sim.view.autoscaler.why == "Set to 3 pods by hand"
    sim.scaling.desired = 7
    sim.run(60)
    assert sim.view.autoscaler.desired == 3
    sim.plane.pin(None, sim.now_s)
    assert (sim.view.autoscaler.pinned, sim.view.autoscaler.desired) == (None, 3)
    assert sim.scaling.resets == 1
    sim.run(0)
    assert sim.view.autoscaler.desired == 7
    assert sim.words("hold") == ["pinned", "unpinned"]
    assert sim.words("scale") == ["up", "up"]


@pytest.mark.parametrize("replicas", [-1, 11])
def test_a_number_out_of_bounds_cannot_be_pinned(replicas: int) -> None:
    sim = Simulated()
    with pytest.raises(NotPossible, match="from 0 to 10"):
        sim.plane.pin(replicas, sim.now_s)
    assert sim.view.autoscaler.pinned is None


def test_held_stays_where_it_is_and_goes_on_afterwards() -> None:
    sim = Simulated(scaling=Scripted(desired=2))
    sim.run(16)
    sim.plane.hold(True, sim.now_s)
    sim.scaling.desired = 9
    sim.run(60)
    assert (sim.view.autoscaler.desired, sim.view.autoscaler.held) == (2, True)
    assert sim.view.autoscaler.why == "Held at 2 pods by hand"
    sim.plane.hold(False, sim.now_s)
    sim.run(0)
    assert (sim.view.autoscaler.desired, sim.view.autoscaler.held) == (9, False)
    assert sim.words("hold") == ["held", "resumed"]


def test_saying_it_twice_is_saying_it_once() -> None:
    sim = Simulated()
    for _ in range(2):
        sim.plane.pin(2, sim.now_s)
        sim.plane.hold(True, sim.now_s)
    for _ in range(2):
        sim.plane.pin(None, sim.now_s)
        sim.plane.hold(False, sim.now_s)
    assert sim.words("hold") == ["pinned", "held", "unpinned", "resumed"]


def test_what_is_both_set_and_held_follows_the_load_only_when_neither() -> None:
    sim = Simulated(scaling=Scripted(desired=5))
    sim.plane.pin(2, sim.now_s)
    sim.plane.hold(True, sim.now_s)
    sim.plane.pin(None, sim.now_s)
    sim.run(60)
    assert (sim.view.autoscaler.desired, sim.scaling.resets) == (2, 0)
    sim.plane.hold(False, sim.now_s)
    sim.run(1)
    assert (sim.view.autoscaler.desired, sim.scaling.resets) == (5, 1)


def test_from_nothing_set_by_hand_it_returns_to_the_minimum() -> None:
    sim = Simulated()
    sim.plane.pin(0, sim.now_s)
    sim.run(100)
    assert not sim.view.pods
    sim.plane.pin(None, sim.now_s)
    assert sim.view.autoscaler.desired == 1
    assert sim.texts("scale", "up")[-1] == "1 pod instead of 0: at least as many as the minimum"


def test_the_metric_goes_on_while_a_number_is_pinned() -> None:
    sim = Simulated(scaling=Scripted(metric=50.0))
    sim.plane.pin(1, sim.now_s)
    sim.run(1)
    assert sim.view.autoscaler.metric == 50.0


def test_the_metric_crosses_its_target_beyond_the_tolerance_and_comes_back_within() -> None:
    sim = Simulated()
    for metric in (27.0, 28.0, 26.0, 25.5, 25.0, 27.4, None, 300.0):
        sim.scaling.metric = metric
        sim.run(15)
    assert sim.words("metric") == ["crossed", "back", "crossed"]
    assert sim.texts("metric", "crossed") == [
        "The load is 28 for 1 pod, above the target of 25 a pod",
        "The load is 300 for 1 pod, above the target of 25 a pod",
    ]
    sim.scaling.desired = 10
    sim.run(15)
    sim.scaling.metric = 240.0
    sim.run(15)
    assert sim.texts("metric", "back")[-1] == "The load is 240 for 10 pods, again within the target of 25 a pod"
