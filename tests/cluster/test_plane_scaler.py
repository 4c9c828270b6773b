"""The control plane with the autoscaler itself, and with the manifests that a cluster gets."""

from __future__ import annotations

import pytest

from inference.cluster import manifests
from inference.cluster.autoscaling.scaler import Scaler
from inference.cluster.spec import ClusterSpec
from tests.cluster.plane_harness import SPEC, Simulated


def loaded(spec: ClusterSpec, running: float, waiting: float) -> Simulated:
    """A cluster with its first pod ready, and this load from now on."""
    sim = Simulated(spec, scaling=Scaler(spec.scaling))
    sim.run(200)
    assert sim.phases == {"ready": 1}
    put(sim, running, waiting)
    return sim


def put(sim: Simulated, running: float, waiting: float) -> None:
    sim.query = lambda query: waiting if "waiting" in query else running


def test_a_spike_takes_one_step_up_and_halves_back_after_the_window() -> None:
    sim = loaded(SPEC, running=32, waiting=20)
    sim.run(200)
    assert sim.phases == {"ready": 10}
    [up] = sim.texts("scale", "up")
    assert up.startswith("10 pods instead of 1: running 32 + ")
    assert "= 232" in up
    put(sim, 0, 0)
    sim.run(280)
    assert sim.view.autoscaler.desired == 10, "the window of 300 s is not over"
    sim.run(600)
    assert sim.phases == {"ready": 1}
    downs = [text.split(" ")[0] for text in sim.texts("scale", "down")]
    assert downs[0] == "5"
    assert downs[-1] == "1"
    assert len(sim.view.nodes) == 1


def test_number_set_by_hand_is_left_and_taken_up_again() -> None:
    sim = loaded(SPEC, running=0, waiting=0)
    sim.plane.pin(0, sim.now_s)
    sim.run(120)
    assert not sim.view.pods
    sim.plane.pin(None, sim.now_s)
    sim.run(240)
    assert sim.phases == {"ready": 1}


@pytest.mark.parametrize("speed_up", [1.0, 10.0])
def test_the_projects_own_manifests_carry_a_spike(speed_up: float) -> None:
    spec = manifests.load(manifests.defaults())
    sim = Simulated(spec, scaling=Scaler(spec.scaling), speed_up=speed_up)
    sim.run(200)
    assert sim.view.ready == 1
    put(sim, 320, 200)
    sim.run(300)
    assert sim.view.ready == spec.scaling.max_replicas
    assert {node.capacity_type for node in sim.view.nodes} == {"spot"}
    sim.plane.interrupt(None, sim.now_s)
    sim.run(300)
    assert sim.view.ready == spec.scaling.max_replicas
    put(sim, 0, 0)
    sim.run(1200)
    assert sim.view.ready == spec.scaling.min_replicas == len(sim.view.nodes)
