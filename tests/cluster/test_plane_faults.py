"""What breaks, and how it heals: containers that end, nodes taken away, types that are sold out, limits."""

from __future__ import annotations

from dataclasses import replace

import pytest

from inference.cluster.cluster import NotPossible
from inference.cluster.plane import Kill, Start, Stop
from inference.cluster.spec import Requirement
from tests.cluster.plane_harness import OFFERS, POOL, T0, Simulated, with_pod, with_pool

ONLY_G6 = Requirement("karpenter.k8s.aws/instance-family", "In", ("g6",))


def ready(sim: Simulated, replicas: int = 1) -> Simulated:
    sim.plane.pin(replicas, sim.now_s)
    sim.run(240)
    assert sim.view.ready == replicas
    return sim


# Containers.


def test_a_container_that_ends_is_started_again_where_it_is() -> None:
    sim = ready(Simulated())
    [before] = sim.view.pods
    sim.plane.killed(before.name, sim.now_s)
    sim.end(before.name, "signal 9")
    sim.run(61)
    [after] = sim.view.pods
    assert (after.name, after.node, after.phase, after.restarts) == (before.name, before.node, "ready", 1)
    assert sim.words("chaos") == ["kill"]
    assert sim.words("pod")[-3:] == ["lost", "restarted", "ready"]
    assert "(signal 9)" in sim.texts("pod", "lost")[0]


def test_restarts_back_off_as_the_kubelets_do() -> None:
    sim = ready(Simulated(boots_s=1.0))
    name = sim.view.pods[0].name
    waits: list[float] = []
    for _ in range(8):
        ended_s = sim.now_s
        sim.end(name)
        while name not in sim.running:
            sim.run(max(0.0, sim.plane.next_due_s(sim.now_s) - sim.now_s))
        waits.append(sim.now_s - ended_s)
    assert waits == pytest.approx([0, 10, 20, 40, 80, 160, 300, 300])
    assert sim.view.pods[0].restarts == 8


def test_back_off_is_forgotten_after_ten_minutes_without_an_end() -> None:
    sim = ready(Simulated())
    name = sim.view.pods[0].name
    sim.end(name)
    sim.run(1)
    sim.end(name)
    assert sim.view.pods[0].step == "back-off 10 s"
    sim.run(11 + 601)
    sim.end(name)
    sim.run(0)
    assert name in sim.running


def test_a_pod_in_back_off_is_deleted_without_a_stop() -> None:
    sim = ready(Simulated())
    name = sim.view.pods[0].name
    sim.end(name)
    sim.run(1)
    sim.end(name)
    sim.plane.pin(0, sim.now_s)
    sim.run(30)
    assert not sim.view.pods
    assert not any(isinstance(action, Stop) for _, action in sim.actions)


def test_a_stop_that_nobody_has_fetched_is_withdrawn_when_the_container_ends_first() -> None:
    sim = ready(Simulated())
    node, pod = sim.view.nodes[0], sim.view.pods[0]
    sim.plane.interrupt(node.name, sim.now_s)
    sim.end(pod.name)
    assert not any(isinstance(action, Stop) for action in sim.tick())
    assert pod.name not in {one.name for one in sim.view.pods}


def test_reports_on_pods_that_are_gone_are_ignored() -> None:
    sim = ready(Simulated())
    before = sim.view
    for report in (
        lambda: sim.plane.started("vllm-gone", sim.now_s, "http://gone"),
        lambda: sim.plane.step("vllm-gone", sim.now_s, "weights"),
        lambda: sim.plane.probed("vllm-gone", sim.now_s, True),
        lambda: sim.plane.gauges("vllm-gone", 1, 1),
        lambda: sim.plane.killed("vllm-gone", sim.now_s),
        lambda: sim.plane.ended("vllm-gone", sim.now_s, "long ago"),
    ):
        report()
    assert sim.view == before


# Spot.


def test_an_interrupted_node_is_drained_and_replaced_before_it_is_taken() -> None:
    sim = ready(Simulated(), 2)
    name = sim.plane.interrupt(None, sim.now_s)
    told_s = sim.now_s
    [gone] = [pod.name for pod in sim.view.pods if pod.node == name]
    sim.run(0)
    node = next(node for node in sim.view.nodes if node.name == name)
    assert (node.phase, node.ends_s) == ("draining", told_s + 120)
    assert sim.phases == {"ready": 1, "terminating": 1, "pending": 1}
    assert sim.actions[-1] == (told_s, Stop(gone, 90.0))
    sim.run(10)
    assert gone not in {pod.name for pod in sim.view.pods}
    assert "ordered" in {node.phase for node in sim.view.nodes}
    sim.run(40)
    assert name not in {node.name for node in sim.view.nodes}
    sim.run(150)
    assert sim.view.ready == 2
    assert not any(isinstance(action, Kill) for _, action in sim.actions)
    assert sim.words("interruption") == ["notice"]
    assert "lost" not in sim.words("pod")


def test_pods_that_do_not_end_in_time_are_killed_when_spot_takes_the_node() -> None:
    sim = ready(Simulated(replace(with_pool(termination_grace_period_s=None), pod=with_pod(grace_period_s=600).pod)))
    sim.stops_s = 1000.0
    name = sim.plane.interrupt(None, sim.now_s)
    told_s = sim.now_s
    [gone] = [pod.name for pod in sim.view.pods]
    sim.run(119.9)
    assert gone in sim.running
    sim.run(0.1)
    assert [one for one in sim.actions if one[1].pod == gone][1:] == [
        (told_s, Stop(gone, 600)),
        (told_s + 120, Kill(gone)),
    ]
    assert gone not in {pod.name for pod in sim.view.pods}
    assert name not in {node.name for node in sim.view.nodes}
    assert "taken away before it had finished" in sim.texts("pod", "lost")[0]
    assert sim.ends[gone] == sim.starts[gone] == 1


def test_the_node_pools_grace_period_comes_before_spots_end() -> None:
    sim = ready(Simulated(with_pool(termination_grace_period_s=50.0)))
    sim.stops_s = 1000.0
    told_s = sim.now_s
    sim.plane.interrupt(None, sim.now_s)
    [gone] = [pod.name for pod in sim.view.pods]
    sim.run(50)
    assert [action for _, action in sim.actions if action.pod == gone][1:] == [Stop(gone, 50.0)]
    assert sim.ends[gone] == 1, "its grace ends with the node's"
    sim.run(30)
    assert told_s + 50 <= sim.now_s
    assert len(sim.texts("node", "removed")) == 1


def test_a_pod_that_outlives_its_grace_is_killed_with_the_node() -> None:
    """The adapter is slow with its SIGKILL: the node does not wait for it."""
    sim = ready(Simulated(with_pool(termination_grace_period_s=50.0)))
    pod = sim.view.pods[0].name
    sim.plane.interrupt(None, sim.now_s)
    assert sim.plane.tick(sim.now_s, sim.query) == [Stop(pod, 50.0)]
    assert sim.plane.next_due_s(sim.now_s + 49) <= T0 + 240 + 50
    assert Kill(pod) in sim.plane.tick(sim.now_s + 50, sim.query)


def test_pods_that_have_not_started_leave_an_interrupted_node_at_once() -> None:
    sim = Simulated()
    sim.run(60)
    assert sim.phases == {"image": 1}
    sim.plane.interrupt(None, sim.now_s)
    sim.run(1)
    assert sim.phases == {"pending": 1}
    assert not sim.actions
    assert [node.phase for node in sim.view.nodes] == ["draining", "ordered"]
    sim.run(200)
    assert sim.view.ready == 1


def test_what_cannot_be_interrupted_is_refused_with_a_reason() -> None:
    sim = Simulated(
        with_pool(requirements=(*POOL.requirements, Requirement("karpenter.sh/capacity-type", "In", ("on-demand",))))
    )
    with pytest.raises(NotPossible, match="no Spot node"):
        sim.plane.interrupt(None, sim.now_s)
    with pytest.raises(NotPossible, match="no node ip-10"):
        sim.plane.interrupt("ip-10", sim.now_s)
    ready(sim)
    with pytest.raises(NotPossible, match="on-demand"):
        sim.plane.interrupt(sim.view.nodes[0].name, sim.now_s)
    spot = ready(Simulated())
    name = spot.plane.interrupt(None, spot.now_s)
    with pytest.raises(NotPossible, match="is draining"):
        spot.plane.interrupt(name, spot.now_s)


def test_a_node_with_pods_is_interrupted_before_an_empty_one() -> None:
    for seed in range(5):
        sim = ready(Simulated(with_pool(consolidate_after_s=None), seed=seed), 4)
        sim.plane.pin(1, sim.now_s)
        sim.run(30)
        [pod] = sim.view.pods
        assert sim.plane.interrupt(None, sim.now_s) == pod.node


def test_a_pod_that_ends_anyway_is_not_asked_again_when_its_node_is_drained() -> None:
    sim = ready(Simulated(stops_s=60.0))
    [pod] = sim.view.pods
    sim.plane.pin(0, sim.now_s)
    sim.run(1)
    sim.plane.interrupt(pod.node, sim.now_s)
    sim.run(30)
    assert [action for _, action in sim.actions if isinstance(action, Stop)] == [Stop(pod.name, 90.0)]


# What can't be had.


def test_a_type_that_is_sold_out_gives_way_to_the_next_and_comes_back_after_three_minutes() -> None:
    sim = Simulated()
    sim.plane.set_unavailable("g6.xlarge", True, sim.now_s)
    sim.run(5)
    assert sim.types == {"g5.xlarge": 1}
    assert sim.words("node") == ["refused", "ordered"]
    assert sim.texts("node", "refused")[0] == (
        "g6.xlarge (Spot) refused in 4 zones: insufficient capacity, not asked for again within 180 s"
    )
    sim.plane.set_unavailable("g6.xlarge", False, sim.now_s)
    sim.plane.pin(2, sim.now_s)
    sim.run(100)
    assert sim.types == {"g5.xlarge": 2}, "the refusal is still remembered"
    sim.run(80)
    sim.plane.pin(3, sim.now_s)
    sim.run(5)
    assert sim.types == {"g5.xlarge": 2, "g6.xlarge": 1}
    assert sim.words("chaos") == ["unavailable", "available"]


def test_a_type_that_stays_sold_out_is_asked_for_again_every_three_minutes() -> None:
    sim = Simulated(with_pool(requirements=(*POOL.requirements, ONLY_G6)))
    for name in ("g6.xlarge", "g6.2xlarge"):
        sim.plane.set_unavailable(name, True, sim.now_s)
    sim.run(600)
    refused = [one for one in sim.plane.happenings if one.what == "refused" and one.subject == "g6.xlarge"]
    assert len(refused) in (6, 8), "Spot and on-demand, each time"
    assert sim.phases == {"pending": 1}
    assert not sim.view.nodes
    why = "No node for 1 pod: no capacity is to be had of any type that fits (g6.xlarge, g6.2xlarge)"
    assert sim.texts("node", "refused").count(why) == 1
    sim.plane.set_unavailable("g6.2xlarge", False, sim.now_s)
    sim.run(200)
    assert sim.types == {"g6.2xlarge": 1}


def test_an_unknown_type_cannot_be_made_unavailable() -> None:
    sim = Simulated()
    with pytest.raises(NotPossible, match=r"No instance type p5\.48xlarge .* g6\.xlarge"):
        sim.plane.set_unavailable("p5.48xlarge", True, sim.now_s)
    sim.plane.set_unavailable("g6.xlarge", False, sim.now_s)
    assert sim.words("chaos") == []


def test_the_node_pools_limits_are_kept_and_room_is_used_when_it_comes() -> None:
    sim = Simulated(with_pool(limits={"nvidia.com/gpu": 3}))
    sim.plane.pin(5, sim.now_s)
    sim.run(240)
    assert sim.phases == {"ready": 3, "pending": 2}
    assert len(sim.view.nodes) == 3
    said = "No node for 2 pods: another node would exceed the NodePool's limits (nvidia.com/gpu 3 of 3 in use)"
    assert sim.texts("node", "refused") == [said]
    sim.plane.pin(3, sim.now_s)
    sim.run(30)
    sim.plane.pin(5, sim.now_s)
    sim.run(240)
    assert sim.phases == {"ready": 3, "pending": 2}
    assert sim.texts("node", "refused") == [said, said], "once each time that it comes to it"


def test_a_pod_too_big_for_every_type_stays_pending_and_says_why() -> None:
    sim = Simulated(with_pod(cpu=4.0, memory_gib=200.0))
    sim.run(120)
    assert sim.phases == {"pending": 1}
    assert "has room for a pod of 4 CPU, 200 GiB and 1 GPU" in sim.texts("node", "refused")[0]
    assert len(sim.texts("node", "refused")) == 1


def test_pods_share_a_larger_node_where_that_is_cheaper() -> None:
    offers = replace(
        OFFERS,
        offers=tuple(replace(o, usd_per_hour=0.5) if o.type.name == "g6.12xlarge" else o for o in OFFERS.offers),
    )
    sim = Simulated(with_pool(requirements=(ONLY_G6,)), offers=offers)
    sim.plane.pin(5, sim.now_s)
    sim.run(240)
    assert sim.phases == {"ready": 5}
    assert sim.types == {"g6.12xlarge": 1, "g6.xlarge": 1}
    started = [at_s for at_s, action in sim.actions if isinstance(action, Start)]
    assert len(set(started)) == 2, "those on one node wait for one image"
