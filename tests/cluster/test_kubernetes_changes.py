"""Two views → what happened in between."""

from __future__ import annotations

from dataclasses import replace

import pytest

from inference.cluster.kubernetes.changes import Change, changes
from inference.cluster.kubernetes.scaling import PAUSED, PAUSED_REPLICAS
from inference.cluster.kubernetes.view import View, World
from tests.cluster.recorded import NOW_S, WORLD, added, at, conditions, edited, item, seen

READY, STARTING, FETCHING, PENDING, ENDING = "k2x9p", "4wq7z", "9mbd5", "tz6vc", "c5rhl"


def between(before: World, after: World) -> list[Change]:
    return changes(seen(before), seen(after), NOW_S)


def words(found: list[Change]) -> list[tuple[str, str]]:
    return [(change.kind, change.what) for change in found]


def without(part: str, *endings: str) -> World:
    world = WORLD
    for ending in endings:
        world = edited(world, part, ending, None)
    return world


def test_nothing_has_happened_between_two_equal_views() -> None:
    assert between(WORLD, WORLD) == []


def test_what_is_heard_of_for_the_first_time_is_not_new() -> None:
    assert changes(View("vllm"), seen(), NOW_S) == []
    assert changes(seen(World(pods=())), seen(), NOW_S) != []


@pytest.mark.parametrize(
    ("ending", "steps"),
    [
        (PENDING, ["made"]),
        (FETCHING, ["made", "scheduled"]),
        (STARTING, ["made", "scheduled", "started"]),
        (READY, ["made", "scheduled", "started", "ready"]),
    ],
)
def test_new_pod_tells_every_step_that_it_has_made(ending: str, steps: list[str]) -> None:
    assert words(between(without("pods", ending), WORLD)) == [("pod", step) for step in steps]


def test_happening_has_the_time_at_which_it_happened() -> None:
    made, *_, ready = between(without("pods", READY), WORLD)
    assert (made.at_s, ready.at_s) == (at("10:00:00"), at("10:02:26"))
    assert ready.text == "Pod vllm-…-k2x9p is ready, 146 s after it was made"


def test_clock_of_the_cluster_that_is_ahead_makes_no_future() -> None:
    found = changes(seen(without("pods", READY)), seen(), at("10:01:00"))
    assert max(change.at_s for change in found) == at("10:01:00")


def test_pod_that_becomes_ready_says_so_once() -> None:
    running = {"running": {"startedAt": "2026-11-21T10:11:26Z"}}
    ready = {
        "conditions": conditions(item("pods", STARTING), Ready=("True", "10:11:38")),
        "containerStatuses": [{"name": "vllm", "state": running, "started": True, "restartCount": 0}],
    }
    after = edited(WORLD, "pods", STARTING, {"status": ready})
    assert words(between(WORLD, after)) == [("pod", "ready")]
    assert between(after, after) == []


def test_pod_that_fails_its_probe_and_recovers() -> None:
    it = item("pods", READY)
    unready = edited(WORLD, "pods", READY, {"status": {"conditions": conditions(it, Ready=("False", "10:11:00"))}})
    assert words(between(WORLD, unready)) == [("pod", "unready")]
    assert [change.text for change in between(unready, WORLD)] == ["Pod vllm-…-k2x9p is ready again"]


def test_container_that_is_started_again_says_how_it_ended() -> None:
    ended = {"terminated": {"exitCode": 137, "reason": "OOMKilled", "finishedAt": "2026-11-21T10:11:05Z"}}
    running = {"running": {"startedAt": "2026-11-21T10:11:06Z"}}
    container = {"name": "vllm", "started": False, "restartCount": 1, "state": running, "lastState": ended}
    it = item("pods", READY)
    status = {"containerStatuses": [container], "conditions": conditions(it, Ready=("False", "10:11:06"))}
    found = between(WORLD, edited(WORLD, "pods", READY, {"status": status}))
    assert [(one.what, one.text) for one in found] == [
        ("restarted", "Pod vllm-…-k2x9p starts again (OOMKilled, exit status 137)")
    ]


def test_pod_that_ended_in_peace_is_removed_and_any_other_is_lost() -> None:
    assert words(between(WORLD, without("pods", ENDING))) == [("pod", "removed")]
    assert words(between(WORLD, without("pods", READY))) == [("pod", "lost")]


def test_evicted_pod_says_why() -> None:
    status = {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}
    (found,) = between(WORLD, edited(WORLD, "pods", READY, {"status": status}))
    assert (found.what, found.text) == ("lost", "Pod vllm-…-k2x9p is lost: The node was low on resource: memory.")


def test_node_is_ordered_and_then_ready_under_another_name() -> None:
    joined = {
        "metadata": {"labels": {"node.kubernetes.io/instance-type": "g5.xlarge", "karpenter.sh/capacity-type": "spot"}},
        "status": {
            "nodeName": "ip-10-0-5-5.ec2.internal",
            "conditions": conditions(item("nodeclaims", "gpu-zz8kq"), Initialized=("True", "10:12:12")),
        },
    }
    it = item("nodes", "ip-10-0-3-7.ec2.internal")
    it["metadata"] |= {"name": "ip-10-0-5-5.ec2.internal", "uid": "another"}
    after = added(edited(WORLD, "claims", "gpu-zz8kq", joined), "nodes", it)
    ordered = between(without("claims", "gpu-zz8kq"), WORLD)
    (ready,) = changes(seen(), seen(after), at("10:13:00"))
    assert words(ordered) == [("node", "ordered")]
    assert (ready.what, ready.subject) == ("ready", "ip-10-0-5-5.ec2.internal")
    assert ready.text.startswith("g5.xlarge (Spot, $0.43/h) is ready, ")


def test_node_that_goes_is_removed() -> None:
    gone = edited(without("claims", "gpu-x9wxq"), "nodes", "ip-10-0-9-2.ec2.internal", None)
    (found,) = between(WORLD, gone)
    assert (found.what, found.text) == ("removed", "g5.xlarge (Spot, $0.43/h) is gone")


def test_order_that_is_given_up_is_told_as_such() -> None:
    (found,) = between(WORLD, without("claims", "gpu-zz8kq"))
    assert found.text == "Node gpu-zz8kq was given up before it came"


def test_interruption_is_told_once_though_karpenter_tells_it_twice() -> None:
    notices = [it for it in WORLD.events or () if it["reason"] == "SpotInterrupted"]
    none = replace(WORLD, events=[it for it in WORLD.events or () if it not in notices])
    first = added(none, "events", notices[0])
    assert words(between(none, first)) == [("interruption", "notice")]
    assert between(first, added(first, "events", notices[1])) == []


def test_refused_node_carries_the_reason_of_the_cloud() -> None:
    refusal = next(it for it in WORLD.events or () if it["reason"] == "InsufficientCapacityError")
    none = replace(WORLD, events=[it for it in WORLD.events or () if it is not refusal])
    (found,) = between(none, WORLD)
    assert (found.kind, found.what, found.subject) == ("node", "refused", "gpu-q7nbt")
    assert "insufficient capacity" in found.text
    again = added(none, "events", {**refusal, "count": 2})
    assert words(between(WORLD, again)) == [("node", "refused")]


def test_scaling_tells_from_where_to_where_and_why() -> None:
    change = {"status": {"desiredReplicas": 10, "lastScaleTime": "2026-11-21T10:11:35Z"}}
    (found,) = between(WORLD, edited(WORLD, "hpas", "keda-hpa-vllm", change))
    assert (found.kind, found.what, found.at_s) == ("scale", "up", at("10:11:35"))
    assert found.text.startswith("Scale up from 4 to 10: 92 / 25 = 3.7 → 4")


def test_metric_tells_when_it_crosses_the_target_either_way() -> None:
    def metric(average: str) -> World:
        external = {**item("hpas", "keda-hpa-vllm")["status"]["currentMetrics"][0]["external"]}
        external["current"] = {"averageValue": average}
        change = {"status": {"currentMetrics": [{"type": "External", "external": external}]}}
        return edited(WORLD, "hpas", "keda-hpa-vllm", change)

    quiet, busy = metric("9"), metric("9200m")  # with 1 ready: 27 is within 10 % of the target of 25, 27.6 is not
    assert words(between(quiet, busy)) == [("metric", "crossed")]
    assert words(between(busy, quiet)) == [("metric", "back")]


@pytest.mark.parametrize(
    ("annotation", "value", "on", "off"),
    [(PAUSED_REPLICAS, "4", "pinned", "unpinned"), (PAUSED, "true", "held", "resumed")],
)
def test_what_a_person_does_to_the_scaling_is_told(annotation: str, value: str, on: str, off: str) -> None:
    change = {"metadata": {"annotations": {annotation: value}}}
    by_hand = replace(edited(WORLD, "scaled_objects", "vllm", change), hpas=())
    assert words(between(WORLD, by_hand)) == [("hold", on)]
    assert words(between(by_hand, WORLD)) == [("hold", off)]


def test_nodes_are_not_new_when_their_orders_become_readable() -> None:
    assert between(replace(WORLD, claims=None), WORLD) == []
