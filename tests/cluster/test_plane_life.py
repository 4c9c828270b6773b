"""The life of pods and nodes: a spike up and back, in which order, when, and what is said of it."""

from __future__ import annotations

import pytest

from inference.cluster.plane import Start, Stop
from inference.cluster.plane_pods import PodState, by_deletion
from inference.cluster.snapshot import ClusterSnapshot
from tests.cluster.plane_harness import T0, Scripted, Simulated, with_pod, with_pool


def spiked(**options) -> Simulated:
    """One replica is ready, and ten have just been asked for."""
    sim = Simulated(**options)
    sim.run(180)
    assert sim.view.ready == 1
    sim.scaling.desired = 10
    sim.run(15)
    return sim


def test_a_spike_makes_ten_of_one_and_afterwards_one_of_ten_on_one_node() -> None:
    sim = spiked()
    sim.run(185)
    assert sim.phases == {"ready": 10}
    assert len(sim.view.nodes) == 10
    sim.scaling.desired = 1
    sim.run(300)
    assert sim.phases == {"ready": 1}
    assert [node.phase for node in sim.view.nodes] == ["ready"]
    assert sim.words("node").count("removed") == 9
    assert sim.starts.total() == 10
    assert sim.ends.total() == 9


@pytest.mark.parametrize("speed_up", [1.0, 10.0])
def test_phases_come_in_order_and_take_their_times(speed_up: float) -> None:
    sim = Simulated(speed_up=speed_up, boots_s=60 / speed_up)
    sim.run(180)
    [pod] = sim.view.pods
    times = {(one.kind, one.what): one.at_s - T0 for one in sim.plane.happenings}
    order = [("pod", "made"), ("node", "ordered"), ("node", "ready"), ("pod", "scheduled"), ("pod", "started")]
    assert list(times) == [*order, ("pod", "ready")]
    assert times["node", "ordered"] == pytest.approx(1.0)  # the batch's idle second is Karpenter's own: not sped up
    node_s = times["node", "ready"] - times["node", "ordered"]
    assert 30 <= node_s * speed_up <= 47
    assert times["pod", "scheduled"] == times["node", "ready"]
    assert times["pod", "started"] - times["pod", "scheduled"] == pytest.approx(44 / speed_up)
    assert times["pod", "ready"] - times["pod", "started"] == pytest.approx(60 / speed_up)
    assert pod.since_s - T0 == pytest.approx(times["pod", "ready"])
    assert sim.view.speed_up == speed_up


def test_the_view_follows_a_pod_through_its_phases() -> None:
    sim = Simulated()
    seen: list[tuple[str, str]] = []
    for _ in range(200):
        sim.run(1)
        [pod] = sim.view.pods
        if (now := (pod.phase, pod.step)) not in seen:
            seen.append(now)
    assert seen == [("pending", ""), ("image", ""), ("starting", "weights"), ("ready", "")]
    assert pod.url == f"http://{pod.name}"
    assert pod.max_running == 24
    assert pod.node == sim.view.nodes[0].name


def test_the_image_is_fetched_once_for_a_node() -> None:
    sim = Simulated(with_pod(gpus=0, replicas=2, cpu=1.5, memory_gib=6.0))
    sim.run(60)
    assert len(sim.view.nodes) == 1
    sim.run(120)
    assert sim.phases == {"ready": 2}
    started = [at_s for at_s, action in sim.actions if isinstance(action, Start)]
    assert started[0] == started[1]
    [node] = sim.view.nodes
    sim.scaling.desired = 1
    sim.run(20)
    sim.scaling.desired = 2
    sim.run(20)
    assert {pod.phase for pod in sim.view.pods} == {"ready", "starting"}
    assert [one.name for one in sim.view.nodes] == [node.name]


def test_nodes_are_counted_on_before_they_are_ready() -> None:
    """Pods that come while nodes are on their way do not make Karpenter order again."""
    sim = spiked()
    sim.run(25)
    assert sim.phases["pending"] == 9
    assert len(sim.view.nodes) == 10


def test_pods_that_are_not_needed_any_more_go_first() -> None:
    sim = spiked()
    [first] = [pod.name for pod in sim.view.pods if pod.phase == "ready"]
    sim.scaling.desired = 1
    sim.run(16)
    assert [pod.name for pod in sim.view.pods] == [first]
    assert not any(isinstance(action, Stop) for _, action in sim.actions)


def test_of_ready_pods_the_one_ready_for_the_shortest_time_goes() -> None:
    sim = spiked()
    sim.run(200)
    ready = [one.subject for one in sim.plane.happenings if (one.kind, one.what) == ("pod", "ready")]
    sim.scaling.desired = 7
    sim.run(20)
    stopped = [action.pod for _, action in sim.actions if isinstance(action, Stop)]
    assert stopped == ready[:6:-1]
    assert {action.grace_s for _, action in sim.actions if isinstance(action, Stop)} == {90.0}


def test_a_pod_on_its_way_out_keeps_its_room_until_it_has_ended() -> None:
    sim = Simulated(stops_s=60.0)
    sim.run(180)
    sim.scaling.desired = 0
    sim.plane.pin(0, sim.now_s)
    sim.run(50)
    assert sim.phases == {"terminating": 1}
    assert [node.phase for node in sim.view.nodes] == ["ready"]
    sim.run(100)
    assert not sim.view.pods
    assert not sim.view.nodes


def test_room_that_comes_free_is_taken_at_once() -> None:
    sim = Simulated(with_pool(limits={"nvidia.com/gpu": 1}))
    sim.run(180)
    sim.plane.pin(0, sim.now_s)
    sim.run(1)
    sim.plane.pin(1, sim.now_s)
    sim.run(3)
    assert sim.phases == {"terminating": 1, "pending": 1}
    assert sim.plane.next_due_s(sim.now_s) > sim.now_s
    [ending] = [pod.name for pod in sim.view.pods if pod.phase == "terminating"]
    sim.end(ending)
    assert sim.plane.next_due_s(sim.now_s) <= sim.now_s
    sim.tick()
    assert sim.phases == {"starting": 1}


def test_pods_are_given_up_in_the_order_of_the_replica_set_controller() -> None:
    order = [
        PodState("no node", 9.0),
        PodState("fetches its image", 9.0, "image", node="a"),
        PodState("starts", 9.0, "starting", node="b"),
        PodState("shares its node, ready longest", 1.0, "ready", node="c", ready_s=10.0),
        PodState("ready last", 1.0, "ready", node="d", ready_s=30.0),
        PodState("restarted", 1.0, "ready", node="e", ready_s=20.0, restarts=2),
        PodState("younger", 2.0, "ready", node="f", ready_s=20.0),
        PodState("older", 1.0, "ready", node="g", ready_s=20.0),
        PodState("ready first", 9.0, "ready", node="h", ready_s=11.0),
    ]
    doubled = PodState("shares its node too", 1.0, "ready", node="c", ready_s=9.0)
    names = [pod.name for pod in by_deletion([*reversed(order), doubled])]
    assert names == [*(pod.name for pod in order[:4]), doubled.name, *(pod.name for pod in order[4:])]


def test_nodes_stay_where_consolidation_is_never() -> None:
    sim = Simulated(with_pool(consolidate_after_s=None))
    sim.run(180)
    sim.plane.pin(0, sim.now_s)
    sim.run(3600)
    assert not sim.view.pods
    assert len(sim.view.nodes) == 1


def test_an_empty_node_that_is_needed_again_in_time_is_kept() -> None:
    sim = Simulated()
    sim.run(180)
    [node] = sim.view.nodes
    sim.plane.pin(0, sim.now_s)
    sim.run(25)
    sim.plane.pin(1, sim.now_s)
    sim.run(100)
    assert sim.phases == {"ready": 1}
    assert [one.name for one in sim.view.nodes] == [node.name]


def test_a_pod_becomes_unready_after_as_many_failures_as_the_probe_allows() -> None:
    sim = Simulated()
    sim.run(180)
    [pod] = sim.view.pods
    for failures, phase in [(1, "ready"), (2, "ready"), (3, "unready")]:
        sim.plane.probed(pod.name, sim.now_s, False)
        assert sim.view.pods[0].phase == phase, failures
    sim.plane.probed(pod.name, sim.now_s, True)
    sim.plane.probed(pod.name, sim.now_s, False)
    sim.plane.probed(pod.name, sim.now_s, False)
    assert sim.view.pods[0].phase == "ready"
    assert sim.words("pod")[-2:] == ["unready", "ready"]
    assert "has failed 3 probes in a row" in sim.texts("pod", "unready")[0]


def test_a_pod_that_never_was_ready_does_not_become_unready() -> None:
    sim = Simulated(boots_s=1000)
    sim.run(180)
    [pod] = sim.view.pods
    for _ in range(5):
        sim.plane.probed(pod.name, sim.now_s, False)
    assert sim.view.pods[0].phase == "starting"


def test_gauges_are_shown_until_the_container_ends() -> None:
    sim = Simulated()
    sim.run(180)
    [pod] = sim.view.pods
    assert pod.running is None
    sim.plane.gauges(pod.name, 7, 3)
    assert (sim.view.pods[0].running, sim.view.pods[0].waiting) == (7, 3)
    sim.end(pod.name)
    assert (sim.view.pods[0].running, sim.view.pods[0].url) == (None, None)


def test_dollars_and_gpu_hours_are_those_of_the_nodes() -> None:
    sim = Simulated()
    sim.run(3601)
    [node] = sim.view.nodes
    assert node.usd_per_hour == 0.349
    assert sim.plane.usd(T0 + 3601) == pytest.approx(0.349)
    assert sim.plane.gpu_hours(T0 + 3601) == pytest.approx(1.0)
    sim.plane.pin(0, sim.now_s)
    sim.run(600)
    assert not sim.view.nodes
    spent = sim.plane.usd(sim.now_s)
    assert spent == pytest.approx(0.349 * (3600 + 5 + 30) / 3600)
    assert sim.plane.usd(sim.now_s + 3600) == spent


def test_sentences_say_what_happened_with_numbers() -> None:
    sim = spiked()
    sim.run(200)
    assert sim.texts("node", "ordered")[0] == "g6.xlarge (Spot, $0.35/h) ordered: 1 pod found no room"
    assert sim.texts("node", "ordered")[1] == "g6.xlarge (Spot, $0.35/h) ordered for 1 of 9 pods that found no room"
    assert sim.texts("scale", "up") == ["10 pods instead of 1: told to want 10"]
    name = sim.view.pods[0].name
    assert sim.texts("pod", "made")[0] == f"Pod vllm-…-{name[-5:]} was made"
    assert sim.texts("pod", "ready")[0].startswith(f"Pod vllm-…-{name[-5:]} is ready, 1")
    assert sim.texts("pod", "ready")[0].endswith(" s after it was made")


def test_names_are_like_those_of_kubernetes_and_none_comes_twice() -> None:
    sim = spiked()
    names = [pod.name for pod in sim.view.pods]
    assert len(set(names)) == 10
    assert len({name.rsplit("-", 1)[0] for name in names}) == 1
    assert all(len(name.rsplit("-", 1)[1]) == 5 and name.startswith("vllm-") for name in names)


def test_the_view_survives_json_and_carries_the_last_forty_happenings() -> None:
    sim = spiked()
    sim.run(400)
    view = sim.view
    assert ClusterSnapshot.from_json(view.to_json()) == view
    assert (view.source, view.simulated) == ("local", True)
    assert view.happenings == tuple(sim.plane.happenings)[-40:]
    assert len(sim.plane.happenings) > 40
    for _ in range(20):
        sim.plane.pin(10, sim.now_s)
        sim.run(30)
        sim.plane.pin(0, sim.now_s)
        sim.run(200)
    assert len(sim.plane.happenings) == 200


@pytest.mark.parametrize("speed_up", [1.0, 10.0])
def test_the_same_seed_gives_the_same_history(speed_up: float) -> None:
    def history(seed: int) -> list[object]:
        sim = spiked(seed=seed, speed_up=speed_up)
        sim.plane.interrupt(None, sim.now_s)
        sim.run(300)
        return [*sim.plane.happenings, sim.plane.usd(sim.now_s), *sim.actions, sim.view]

    assert history(7) == history(7)
    assert history(7) != history(8)


def test_ticks_in_between_change_nothing() -> None:
    jumping, stepping = Simulated(), Simulated()
    for sim in (jumping, stepping):
        sim.scaling.desired = 4
    jumping.run(400)
    for _ in range(1600):
        stepping.run(0.25)
        stepping.tick()
    assert list(jumping.plane.happenings) == list(stepping.plane.happenings)


def test_it_tells_when_it_is_due_and_does_nothing_before() -> None:
    sim = Simulated(scaling=Scripted())
    sim.run(180)
    due_s = sim.plane.next_due_s(sim.now_s)
    assert sim.now_s < due_s <= sim.now_s + 15
    before = list(sim.plane.happenings)
    assert sim.plane.tick(due_s - 0.001, sim.query) == []
    assert list(sim.plane.happenings) == before
    sim.end(sim.view.pods[0].name)
    assert sim.plane.next_due_s(sim.now_s) <= sim.now_s
