"""API objects → the view: phases, nodes, what decides the number of pods."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.cluster.kubernetes.scaling import PAUSED, PAUSED_REPLICAS, quantity
from inference.cluster.kubernetes.view import Scope, World, look
from inference.cluster.snapshot import Autoscaler, Node, Pod
from tests.cluster.recorded import SCOPE, WORLD, added, at, conditions, edited, item, price, seen

READY, STARTING, FETCHING, PENDING, ENDING = "k2x9p", "4wq7z", "9mbd5", "tz6vc", "c5rhl"


def pod(ending: str, world: World = WORLD) -> Pod:
    return next(pod for pod in (seen(world).pods or {}).values() if pod.name.endswith(ending))


def node(key: str, world: World = WORLD, scope: Scope = SCOPE) -> Node:
    return (seen(world, scope).nodes or {})[key]


def scaling(world: World = WORLD) -> Autoscaler:
    found = seen(world).autoscaler
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("ending", "phase", "since"),
    [
        (PENDING, "pending", "10:10:00"),
        (FETCHING, "image", "10:10:42"),
        (STARTING, "starting", "10:11:26"),
        (READY, "ready", "10:02:26"),
        (ENDING, "terminating", "10:11:30"),  # the API server notes the end of the grace period, 90 s later
    ],
)
def test_pod_phase_comes_from_its_conditions_and_container(ending: str, phase: str, since: str) -> None:
    assert (pod(ending).phase, pod(ending).since_s) == (phase, at(since))


def test_pod_that_was_ready_and_fails_its_probe_is_unready() -> None:
    it = item("pods", READY)
    change = {"status": {"conditions": conditions(it, Ready=("False", "10:11:00"))}}
    world = edited(WORLD, "pods", READY, change)
    assert (pod(READY, world).phase, pod(READY, world).since_s) == ("unready", at("10:11:00"))


def test_pod_whose_container_waits_to_be_started_again_is_unready() -> None:
    ended = {"terminated": {"exitCode": 137, "reason": "OOMKilled", "finishedAt": "2026-11-21T10:11:05Z"}}
    waiting = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting failed container"}}
    container = {"name": "vllm", "ready": False, "started": False, "restartCount": 2}
    it = item("pods", READY)
    status = {
        "containerStatuses": [{**container, "state": waiting, "lastState": ended}],
        "conditions": conditions(it, Ready=("False", "10:11:06")),
    }
    found = pod(READY, edited(WORLD, "pods", READY, {"status": status}))
    assert (found.phase, found.since_s, found.restarts) == ("unready", at("10:11:05"), 2)


def test_pod_says_that_its_image_is_being_fetched() -> None:
    assert pod(FETCHING).step == "pulling"
    assert pod(STARTING).step == ""


def test_pod_carries_its_url_node_and_capacity() -> None:
    found = pod(READY)
    assert (found.url, found.node, found.max_running) == ("http://10.0.3.41:8000", "ip-10-0-3-7.ec2.internal", 32)
    ipv6 = edited(WORLD, "pods", READY, {"status": {"podIP": "2001:db8::7"}})
    assert pod(READY, ipv6).url == "http://[2001:db8::7]:8000"
    assert pod(PENDING).url is None


def test_pod_that_was_evicted_is_no_pod_of_ours_any_more() -> None:
    status = {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}
    view = seen(edited(WORLD, "pods", READY, {"status": status}))
    assert not any(one.name.endswith(READY) for one in (view.pods or {}).values())
    assert list(view.ended.values()) == ["The node was low on resource: memory."]


def test_pods_show_the_gauges_that_are_known() -> None:
    name = pod(READY).name
    found = {one.name: one for one in (look(WORLD, SCOPE, price, {name: (31, 7)}).pods or {}).values()}
    assert (found[name].running, found[name].waiting) == (31, 7)
    assert found[pod(STARTING).name].running is None


def test_only_nodes_of_karpenter_are_shown_where_no_pod_runs_on_others() -> None:
    assert set(seen().nodes or {}) == {"gpu-sfpsl", "gpu-m6pzn", "gpu-b4nnr", "gpu-x9wxq", "gpu-ht4vd", "gpu-zz8kq"}


def test_node_has_type_capacity_zone_and_price() -> None:
    found = node("gpu-sfpsl")
    assert (found.name, found.instance_type, found.capacity_type) == ("ip-10-0-3-7.ec2.internal", "g5.xlarge", "spot")
    assert (found.zone, found.usd_per_hour) == ("us-east-1a", 0.43)


def test_node_is_ready_once_karpenter_calls_it_initialized() -> None:
    assert (node("gpu-sfpsl").phase, node("gpu-sfpsl").since_s) == ("ready", at("10:00:46"))
    it = item("nodeclaims", "gpu-m6pzn")
    change = {"status": {"conditions": conditions(it, Initialized=("Unknown", "10:10:02"))}}
    world = edited(WORLD, "claims", "gpu-m6pzn", change)
    assert node("gpu-m6pzn", world).phase == "ordered"


def test_claim_without_a_node_is_an_ordered_node() -> None:
    bought, not_yet = node("gpu-ht4vd"), node("gpu-zz8kq")
    assert (bought.phase, bought.instance_type, bought.usd_per_hour) == ("ordered", "g5.xlarge", 0.43)
    assert (not_yet.phase, not_yet.name, not_yet.instance_type) == ("ordered", "gpu-zz8kq", "")
    assert not_yet.usd_per_hour is None


def test_interrupted_node_drains_and_says_when_it_ends() -> None:
    found = node("gpu-x9wxq")
    assert (found.phase, found.since_s, found.ends_s) == ("draining", at("10:11:30"), at("10:13:30"))


def test_drain_without_an_interruption_ends_when_karpenter_cuts_it_short() -> None:
    world = replace(WORLD, events=())
    assert node("gpu-x9wxq", world).ends_s == at("10:13:20")


@pytest.mark.parametrize(
    "spec", [{"unschedulable": True}, {"taints": [{"key": "karpenter.sh/disrupted", "effect": "NoSchedule"}]}]
)
def test_node_that_takes_no_pods_is_draining(spec: dict) -> None:
    assert node("gpu-sfpsl", edited(WORLD, "nodes", "10-0-3-7.ec2.internal", {"spec": spec})).phase == "draining"


def test_node_that_is_heard_no_more_is_draining() -> None:
    it = item("nodes", "ip-10-0-3-7.ec2.internal")
    lost = {"status": {"conditions": conditions(it, Ready=("Unknown", "10:11:20"))}}
    found = node("gpu-sfpsl", edited(WORLD, "nodes", "ip-10-0-3-7.ec2.internal", lost))
    assert (found.phase, found.since_s) == ("draining", at("10:11:20"))


def test_without_karpenter_the_nodes_that_carry_pods_are_shown() -> None:
    view = seen(replace(WORLD, claims=None))
    assert len(view.nodes or {}) == 4
    assert not view.ordering


def test_other_node_pools_can_be_left_out() -> None:
    other = item("nodeclaims", "gpu-zz8kq")
    other["metadata"]["labels"]["karpenter.sh/nodepool"] = "batch"
    other["metadata"]["name"] = "batch-1"
    world = added(WORLD, "claims", other)
    assert "batch-1" in (seen(world).nodes or {})
    assert "batch-1" not in (seen(world, replace(SCOPE, node_pool="gpu")).nodes or {})


def test_capacity_type_of_a_managed_node_group_is_understood() -> None:
    on_system = {"spec": {"nodeName": "ip-10-0-1-5.ec2.internal"}}
    world = edited(WORLD, "pods", READY, on_system)
    assert node("ip-10-0-1-5.ec2.internal", world).capacity_type == "on-demand"


def test_autoscaler_reads_the_composite_metric() -> None:
    found = scaling()
    # The HPA tells the average for each of 3 pods, 30667m, rounded up: 92.001.
    assert (found.metric, found.target, found.desired) == (92.0, 25.0, 4)
    assert (found.min_replicas, found.max_replicas, found.formula) == (1, 10, "running + waiting * 10")
    assert found.why == "92 / 25 = 3.7 → 4"
    assert (found.pinned, found.held, found.fallback) == (None, False, False)


def hpa_status(average: str, current: int, desired: int, **reasons: str) -> dict:
    it = item("hpas", "keda-hpa-vllm")
    told = [
        {**one, "status": "True", "reason": reasons[one["type"]]} if one["type"] in reasons else one
        for one in it["status"]["conditions"]
    ]
    metric = it["status"]["currentMetrics"][0]
    metric["external"]["current"] = {"averageValue": average}
    return {
        "status": {
            "conditions": told,
            "currentReplicas": current,
            "desiredReplicas": desired,
            "currentMetrics": [metric],
        }
    }


@pytest.mark.parametrize(
    ("status", "why"),
    [
        (
            hpa_status("332", 1, 10, ScalingLimited="TooManyReplicas"),
            "332 / 25 = 13.3 → 14, but the maximum is 10: 10",
        ),
        (hpa_status("0", 1, 1, ScalingLimited="TooFewReplicas"), "0 / 25 = 0.0 → 0, but the minimum is 1: 1"),
        (
            hpa_status("232", 1, 4, ScalingLimited="ScaleUpLimit"),
            "232 / 25 = 9.3 → 10, but no more may be added at once: 4",
        ),
        (
            hpa_status("5", 10, 10, AbleToScale="ScaleDownStabilized"),
            "50 / 25 = 2.0 → 2, but more were needed a while ago, so it waits before going down: 10",
        ),
        (
            hpa_status("27", 1, 1, AbleToScale="ReadyForNewScale"),
            "27 / 25 = 1.1 → 2, which is within 10 % of 1 pod: no change",
        ),
    ],
)
def test_why_gives_the_numbers_and_what_limits_them(status: dict, why: str) -> None:
    assert scaling(edited(WORLD, "hpas", "keda-hpa-vllm", status)).why == why


def test_why_says_that_the_metric_cannot_be_had() -> None:
    failed = {"type": "ScalingActive", "status": "False", "reason": "FailedGetExternalMetric", "message": "…"}
    status = {"status": {"conditions": [failed], "currentMetrics": [{"type": ""}]}}
    found = scaling(edited(WORLD, "hpas", "keda-hpa-vllm", status))
    assert found.metric is None
    assert found.why == "stays at 4 pods: the metric can't be had (FailedGetExternalMetric)"


def test_fallback_is_told() -> None:
    it = item("scaledobjects", "vllm")
    told = [{**one, "status": "True"} if one["type"] == "Fallback" else one for one in it["status"]["conditions"]]
    found = scaling(edited(WORLD, "scaled_objects", "vllm", {"status": {"conditions": told}}))
    assert found.fallback
    assert found.why.startswith("the metric can't be had, so KEDA's fallback decides; ")


def paused(**annotations: str) -> World:
    """KEDA deletes the HPA of a paused ScaledObject."""
    change = {"metadata": {"annotations": annotations}}
    return replace(edited(WORLD, "scaled_objects", "vllm", change), hpas=())


def test_pinned_number_of_pods_is_what_is_desired() -> None:
    found = scaling(paused(**{PAUSED_REPLICAS: "6"}))
    assert (found.pinned, found.desired, found.held) == (6, 6, False)
    assert found.why == "set to 6 pods by hand, whatever the load"


@pytest.mark.parametrize(("value", "held"), [("true", True), ("yes", True), ("false", False), ("0", False)])
def test_held_scaling_stays_at_the_pods_that_there_are(value: str, held: bool) -> None:
    found = scaling(paused(**{PAUSED: value}))
    assert (found.held, found.desired) == (held, 4)


def test_scaled_object_of_another_deployment_is_not_ours() -> None:
    assert seen(WORLD, replace(SCOPE, deployment="other")).autoscaler is None


def test_hpa_alone_is_enough() -> None:
    found = scaling(replace(WORLD, scaled_objects=()))
    assert (found.desired, found.target, found.max_replicas, found.formula) == (4, 25.0, 10, "")


def test_scaled_object_without_an_hpa_says_why() -> None:
    broken = {"type": "Ready", "status": "False", "reason": "ScaledObjectCheckFailed", "message": "no such trigger"}
    change = {"status": {"conditions": [broken]}}
    found = scaling(replace(edited(WORLD, "scaled_objects", "vllm", change), hpas=()))
    assert found.why == "KEDA has made no autoscaler: no such trigger"


def test_of_several_metrics_the_one_that_asks_for_most_counts() -> None:
    names = ("s0-prometheus", "s1-prometheus")
    metrics = [
        {"type": "External", "external": {"metric": {"name": name}, "target": {"averageValue": target}}}
        for name, target in zip(names, ("20", "5"), strict=True)
    ]
    current = [
        {"type": "External", "external": {"metric": {"name": name}, "current": {"averageValue": value}}}
        for name, value in zip(names, ("20", "8"), strict=True)
    ]
    world = edited(
        WORLD, "hpas", "keda-hpa-vllm", {"spec": {"metrics": metrics}, "status": {"currentMetrics": current}}
    )
    assert (scaling(world).target, scaling(world).metric) == (5.0, 24.0)


def test_what_is_not_listed_yet_is_not_known() -> None:
    view = seen(World())
    assert (view.pods, view.nodes, view.autoscaler) == (None, None, None)


@pytest.mark.parametrize(
    ("text", "value"), [("30667m", 30.667), ("25", 25.0), ("1k", 1000.0), ("2Ki", 2048.0), ("x", None), (None, None)]
)
def test_quantities_are_read(text: str | None, value: float | None) -> None:
    assert quantity(text) == (None if value is None else pytest.approx(value))


PARTS = {"pods": "pods", "nodes": "nodes", "nodeclaims": "claims", "hpas": "hpas", "scaledobjects": "scaled_objects"}


@given(st.sampled_from(sorted(PARTS)), st.data())
def test_object_of_which_a_part_is_absent_is_still_viewed(name: str, data: st.DataObject) -> None:
    objects = [item(name, "")]
    place = objects[0]
    while isinstance(place, dict) and place:
        key = data.draw(st.sampled_from(sorted(place)))
        if data.draw(st.booleans()) or not isinstance(place[key], dict):
            del place[key]
            break
        place = place[key]
    seen(replace(WORLD, **{PARTS[name]: objects}))
