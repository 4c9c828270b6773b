"""What is said of a pod by its object, and of a run by its pods' logs."""

from __future__ import annotations

import pytest

from loadgen.spike.kubernetes.pods import Standing, gone, standing
from loadgen.spike.kubernetes.readers import K6Reader, LocustReader, Said
from loadgen.spike.point import Dropped, Sent, Trouble
from loadgen.spike.tools.lines import encode
from tests.spike.spike_cluster import ended, running

UNSCHEDULED = {
    "phase": "Pending",
    "conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available"}
    ],
}
WAITING = {"waiting": {"reason": "PodInitializing"}}


def waits(reason: str, message: str = "") -> dict:
    state = {"waiting": {"reason": reason, "message": message}}
    return {"phase": "Pending", "containerStatuses": [{"name": "k6", "state": state}]}


@pytest.mark.parametrize(
    ("status", "stands"),
    [
        ({}, Standing("p", "waits")),
        (UNSCHEDULED, Standing("p", "waits", "no node takes it: 0/3 nodes are available")),
        (waits("ContainerCreating"), Standing("p", "waits", "ContainerCreating")),
        (waits("ErrImagePull", "not found"), Standing("p", "waits", "ErrImagePull: not found")),
        (waits("ImagePullBackOff"), Standing("p", "waits", "ImagePullBackOff", hopeless=True)),
        (waits("InvalidImageName", "x"), Standing("p", "waits", "InvalidImageName: x", hopeless=True)),
        (running("k6"), Standing("p", "runs")),
        (ended("k6", 0), Standing("p", "over", exit_code=0)),
        (ended("k6", 107, reason="Error"), Standing("p", "over", exit_code=107)),
        (ended("k6", 137, reason="OOMKilled"), Standing("p", "over", "ran out of memory", exit_code=137)),
        (
            {"phase": "Failed", "reason": "Evicted", "message": "The node was low on memory"},
            Standing("p", "over", "Evicted: The node was low on memory", hopeless=True),
        ),
        (
            {
                "phase": "Pending",
                "containerStatuses": [{"name": "k6", "state": WAITING}],
                "initContainerStatuses": [{"name": "packages", "state": {"waiting": {"reason": "ImagePullBackOff"}}}],
            },
            Standing("p", "waits", "ImagePullBackOff", hopeless=True),
        ),
        (
            {
                "phase": "Failed",
                "containerStatuses": [{"name": "k6", "state": WAITING}],
                "initContainerStatuses": [{"name": "packages", "state": {"terminated": {"exitCode": 1}}}],
            },
            Standing(
                "p", "over", "could not get ready: its container packages failed", hopeless=True, blames="packages"
            ),
        ),
    ],
)
def test_how_a_pod_stands(status, stands) -> None:
    assert standing({"metadata": {"name": "p"}, "status": status}, "k6") == stands


def test_a_pod_that_vanished_is_over_and_one_that_had_ended_is_as_it_was() -> None:
    over = Standing("p", "over", exit_code=0)
    assert gone(over) is over
    lost = gone(Standing("p", "runs"))
    assert (lost.state, "taken away" in lost.wrong) == ("over", True)


def test_points_and_words_of_k6_come_in_one_log() -> None:
    reader = K6Reader()
    dropped = b'{"metric":"dropped_iterations","type":"Point","data":{"time":"2026-11-21T19:40:41Z","value":2}}'
    thrown = b'{"level":"error","msg":"TypeError: x at arrivals.js:3","source":"stacktrace"}'
    log = [dropped, thrown, thrown, b'{"type":"Metric","data":{},"metric":"vus"}', b"not json at all", b""]
    said = [one for line in log for one in reader.read(line)]
    assert [one.count for one in said if isinstance(one, Dropped)] == [2]
    assert [one.text for one in said if isinstance(one, Trouble)] == ["TypeError: x at arrivals.js:3"]
    assert [one.text for one in said if isinstance(one, Said)][-1] == "error: not json at all"
    assert reader.last_words == "not json at all"


def test_reports_and_words_of_locust_come_in_one_log() -> None:
    reader = LocustReader()
    sent = Sent(3, 1795290041.5)
    log = [b"[2026-11-21] INFO/locust.main: Starting", encode(sent).encode(), b"ModuleNotFoundError: No module", b"  "]
    said = [one for line in log for one in reader.read(line)]
    assert [one for one in said if not isinstance(one, Said)] == [sent]
    assert len(said) == 3
    assert reader.last_words == "ModuleNotFoundError: No module"
