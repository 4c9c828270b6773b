"""The cluster as a process follows and steers it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from inference.cluster.cluster import NotPossible
from tests.scripted_cluster import T0_S, ScriptedCluster, pod, snapshot
from webapp.gateway.record import Record
from webapp.live.controls import ACTIONS, Controls
from webapp.live.fleet import MAX_SLOTS, Fleet
from webapp.live.vitals import WHO, Vitals


class Played:
    """A fleet whose clock and load are the test's."""

    def __init__(self) -> None:
        self.now_s = T0_S
        self.in_flight = dict.fromkeys(WHO, 0)
        self.cluster = ScriptedCluster(snapshot(1))
        self.vitals = Vitals(self.in_flight, lambda: 0, lambda: self.now_s)
        self.fleet = Fleet(self.cluster, self.vitals, lambda: self.now_s)

    def tick(self, seconds: int = 1) -> None:
        for _ in range(seconds):
            self.now_s += 1
            self.fleet.tick()


def test_each_second_is_kept_once() -> None:
    played = Played()
    played.tick(5)
    assert played.fleet.history.columns()["t"] == [int(T0_S) + n for n in range(1, 6)]


def test_a_spike_is_followed_to_the_first_answer_of_a_new_replica() -> None:
    played = Played()
    played.tick(12)
    played.in_flight["k6"] = 200
    played.tick(3)
    played.cluster.tell("scale", "up", "1 → 4 pods", played.now_s)
    played.cluster.tell("pod", "made", "a pod", played.now_s + 0.5, pod(1).name)
    played.tick(2)
    new = pod(1, url="http://replica-1")
    played.cluster.now = replace(played.cluster.now, pods=(pod(0), new))
    played.cluster.tell("pod", "ready", "it is ready", played.now_s, new.name)
    played.tick()
    played.fleet.ended(Record("r1", "/v1", "k6", 502, 1.0, replica=new.url))
    assert played.fleet.chain is not None
    assert played.fleet.chain.t_s("completion") is None
    played.fleet.ended(Record("r2", "/v1", "k6", 200, 1.0, replica=new.url))
    played.tick()
    steps = {step.name: step.t_s for step in played.fleet.chain.steps}
    assert steps["edge"] == 0
    assert steps["decision"] < steps["pending"] < steps["ready"] < steps["completion"]
    assert steps["recovered"] is None


def test_a_document_is_made_again_when_it_is_old_or_is_to_be_fresh() -> None:
    played = Played()
    first = played.fleet.document()
    assert played.fleet.document() is first
    played.cluster.now = snapshot(2)
    assert len(played.fleet.document()["pods"]) == 1
    assert len(played.fleet.document(fresh=True)["pods"]) == 2
    played.cluster.now = snapshot(3)
    played.now_s += 1
    assert len(played.fleet.document()["pods"]) == 3


@pytest.mark.parametrize(("most", "pods", "slots"), [(10, 1, 10), (2, 1, 5), (2, 7, 7), (100, 1, MAX_SLOTS)])
def test_the_stage_has_places_for_as_many_pods_as_there_may_be(most: int, pods: int, slots: int) -> None:
    played = Played()
    now = snapshot(pods)
    played.cluster.now = replace(now, autoscaler=replace(now.autoscaler, max_replicas=most))
    assert played.fleet.slots == slots


async def test_every_action_is_carried_out_and_says_so() -> None:
    cluster = ScriptedCluster(snapshot(2))
    controls = Controls(cluster)
    for action in ACTIONS:
        said = await controls.do(action, "g6.xlarge" if action in ("deny", "allow") else None, 7)
        assert said.endswith(".")
    assert cluster.done == [
        ("pin", 7),
        ("pin", None),
        ("hold", True),
        ("hold", False),
        ("interrupt_node", None),
        ("kill_pod", None),
        ("set_unavailable", "g6.xlarge", True),
        ("set_unavailable", "g6.xlarge", False),
    ]
    assert controls.unavailable == set()


async def test_what_was_refused_is_remembered_until_the_cluster_is_another() -> None:
    cluster = ScriptedCluster(snapshot(1))
    controls = Controls(cluster)
    cluster.refusal = "Not here."
    for action in ("kill", "deny"):
        with pytest.raises(NotPossible):
            await controls.do(action, "g6.xlarge")
        assert controls.refused(action) == "Not here."
    assert controls.refused("interrupt") == ""
    assert controls.unavailable == set()
    cluster.now = snapshot(2)
    assert controls.refused("kill") == ""
