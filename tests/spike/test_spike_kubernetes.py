"""A run on a cluster: real k6 and Locust processes as pods, whose logs become one stream of reports."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from loadgen.gateway.stub import Stub
from loadgen.spike.kubernetes.cluster import Cluster
from loadgen.spike.kubernetes.tools import TOOLS
from loadgen.spike.plan import Plan, Prompt, Stage
from loadgen.spike.point import Began, Point, Report, Sent, Trouble
from loadgen.spike.tools.tool import Job, Tool, ToolFailed
from tests.cluster.kube_server import PODS
from tests.inference.servers import until
from tests.spike.spike_cluster import (
    CONFIGMAPS,
    SECRETS,
    TESTRUNS,
    SpikeCluster,
    kubeconfig,
    spike_cluster,
    stamp,
)
from tests.spike.spike_targets import listening

WITHIN_S = 40.0
PLAN = Plan(
    "spike",
    "open",
    10,
    (Stage(10, 0.5), Stage(40, 0), Stage(40, 1), Stage(0, 0.5)),
    "k6",
    work=(Prompt("hi", 10), Prompt("why?", 10)),
    model="m",
    max_in_flight=100,
)
LONG = replace(PLAN, stages=(Stage(10, 60),))


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[SpikeCluster]:
    (tmp_path / "cluster").mkdir()
    async with spike_cluster(tmp_path / "cluster") as found:
        yield found


@pytest.fixture
async def stub() -> AsyncIterator[str]:
    async with listening(Stub) as url:
        yield url


def a_tool(name: str, folder: Path, server: SpikeCluster, target: str, plan: Plan = PLAN, **more) -> Tool:
    run = folder / "20261121T190000Z-spike"
    run.mkdir(exist_ok=True)
    wanted = {"parallelism": 2, "kubeconfig": kubeconfig(folder, server.url)}
    job = Job(replace(plan, source=name), target, run, api_key="sk-very-secret")
    return TOOLS[name](job, Cluster(**{**wanted, **more}))


async def ran(tool: Tool) -> list[Report]:
    async with asyncio.timeout(WITHIN_S):
        await tool.arm()
        await tool.fire()
        return [report async for report in tool.reports()]


def of(kind: type, reports: list[Report]) -> list:
    return [report for report in reports if isinstance(report, kind)]


async def test_the_points_of_all_runners_are_one_stream(tmp_path, server, stub) -> None:
    tool = a_tool("k6", tmp_path, server, stub)
    reports = await ran(tool)
    assert await tool.ending() == ("done", "")
    assert (tool.version, tool.pids) == ("1.1.0", [])
    assert len(server.logs) == 2
    numbers = list(range(PLAN.planned))
    assert sorted(sent.n for sent in of(Sent, reports)) == numbers
    assert sorted(point.n for point in of(Point, reports)) == numbers
    assert {(p.by, p.outcome, p.completion_tokens) for p in of(Point, reports)} == {("k6", "served", 74)}
    assert len(of(Began, reports)) == 1
    assert not of(Trouble, reports)
    assert server.everything() == []
    for log in server.logs.values():
        assert sum(b'"metric":"crowdspike_point","type":"Point"' in line for line in log) > 10


async def test_a_log_that_breaks_is_read_on_and_nothing_comes_twice(tmp_path, server, stub) -> None:
    tool = a_tool("k6", tmp_path, server, stub)
    async with asyncio.timeout(WITHIN_S):
        await tool.arm()
        await tool.fire()
        await until(lambda: len(server.objects(PODS)) == 2)
        for pod, lines in zip(server.objects(PODS), (3, 150), strict=True):
            server.cut[pod["metadata"]["name"]] = lines
        reports = [report async for report in tool.reports()]
    assert server.cuts == 2
    assert sorted(point.n for point in of(Point, reports)) == list(range(PLAN.planned))
    assert sorted(sent.n for sent in of(Sent, reports)) == list(range(PLAN.planned))
    assert len(of(Began, reports)) == 1
    again = [request for request in server.requests if "sinceTime" in request.query]
    assert len(again) >= 2


async def test_locusts_master_tells_what_its_workers_did(tmp_path, server, stub) -> None:
    short = replace(PLAN, stages=(Stage(20, 1),))
    tool = a_tool("locust", tmp_path, server, stub, short)
    reports = await ran(tool)
    assert await tool.ending() == ("done", ""), (tmp_path / "20261121T190000Z-spike" / "tool.log").read_text()
    assert len(server.processes) == 3
    points = of(Point, reports)
    assert sorted(point.n for point in points) == list(range(short.planned))
    assert {(p.by, p.first_by, p.outcome) for p in points} == {("locust", "token", "served")}
    assert len(of(Began, reports)) == 1
    assert server.everything() == []


async def test_until_it_is_fired_nothing_is_made(tmp_path, server, stub) -> None:
    tool = a_tool("k6", tmp_path, server, stub)
    await tool.arm()
    assert server.everything() == []
    tried = [request for request in server.requests if request.query.get("dryRun") == "All"]
    assert [request.path for request in tried] == [TESTRUNS, CONFIGMAPS, SECRETS]
    tool.kill()
    assert [report async for report in tool.reports()] == []
    assert server.everything() == []


async def test_what_is_secret_is_in_the_secret_alone(tmp_path, server, stub) -> None:
    tool = a_tool("locust", tmp_path, server, stub)
    await tool.arm()
    bodies = {request.path: request.body for request in server.requests if request.method == "POST"}
    assert [path for path, body in bodies.items() if b"sk-very-secret" in body] == [SECRETS]
    tool.kill()
    assert [report async for report in tool.reports()] == []


async def test_stopped_it_ends_with_what_was_measured_and_nothing_stays(tmp_path, server, stub) -> None:
    tool = a_tool("k6", tmp_path, server, stub, LONG, parallelism=1)
    reports = []
    async with asyncio.timeout(WITHIN_S):
        await tool.arm()
        await tool.fire()
        async for report in tool.reports():
            reports.append(report)
            if isinstance(report, Point) and len(of(Point, reports)) == 5:
                await tool.stop()
    assert await tool.ending() == ("stopped", "")
    assert 5 <= len(of(Point, reports)) < LONG.planned
    assert server.everything() == []
    await until(lambda: all(process.returncode is not None for process in server.processes.values()))


async def test_killed_it_is_over_at_once_and_nothing_stays(tmp_path, server, stub) -> None:
    tool = a_tool("k6", tmp_path, server, stub, LONG, parallelism=1)
    await tool.arm()
    await tool.fire()
    async with asyncio.timeout(WITHIN_S):
        async for report in tool.reports():
            if isinstance(report, Sent):
                tool.kill()
    assert await tool.ending() == ("stopped", "")
    assert server.everything() == []


async def test_what_was_made_may_be_kept(tmp_path, server, stub) -> None:
    short = replace(PLAN, stages=(Stage(10, 0.2),))
    tool = a_tool("k6", tmp_path, server, stub, short, keep=True, parallelism=1)
    await ran(tool)
    assert await tool.ending() == ("done", "")
    assert len(server.everything()) == 3
    assert "cleanup" not in server.objects(TESTRUNS)[0]["spec"]


async def test_what_the_script_throws_is_told_once_for_each_runner(tmp_path, server, stub) -> None:
    broken = replace(PLAN, work=(), stages=(Stage(10, 0.5),))
    tool = a_tool("k6", tmp_path, server, stub, broken)
    reports = await ran(tool)
    assert {"TypeError" in trouble.text for trouble in of(Trouble, reports)} == {True}
    assert len(of(Trouble, reports)) <= 2
    assert (tmp_path / "20261121T190000Z-spike" / "tool.log").read_text().count("TypeError") >= 2


async def test_a_script_that_can_not_be_loaded_is_the_scripts_error(tmp_path, server, stub) -> None:
    tool = a_tool("k6", tmp_path, server, stub, replace(PLAN, scenario="audience", loop="closed"))
    assert {type(report) for report in await ran(tool)} == {Trouble}
    ending, words = await tool.ending()
    assert ending == "script"
    assert "say which room" in words
    assert server.everything() == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda server: server.served.discard(TESTRUNS), "no k6-operator"),
        (lambda server: server.denied.add("create testruns"), "testruns is forbidden"),
        (lambda server: server.denied.add("get pods/log"), "right to get pods/log in the namespace talk"),
        (lambda server: server.denied.add("delete testruns"), "right to delete testruns.k6.io"),
    ],
    ids=["no operator", "not allowed to make", "not allowed to read logs", "not allowed to take away"],
)
async def test_a_cluster_that_will_not_do_is_told_before_anything_is_made(tmp_path, server, stub, change, told) -> None:
    change(server)
    tool = a_tool("k6", tmp_path, server, stub)
    with pytest.raises(ToolFailed, match=told) as refused:
        await tool.arm()
    assert refused.value.ending == "options"
    assert server.everything() == []


async def test_without_a_way_to_a_cluster_it_says_so(tmp_path, server, stub) -> None:
    tool = a_tool("k6", tmp_path, server, stub, kubeconfig=str(tmp_path / "none.yaml"))
    with pytest.raises(ToolFailed, match="no way to a Kubernetes API server"):
        await tool.arm()


PULLS = {"waiting": {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "grafana/k6:9.9.9"'}}


async def test_a_pod_whose_image_is_not_there_ends_the_run_with_the_reason(tmp_path, server, stub) -> None:
    server.stuck = {"phase": "Pending", "containerStatuses": [{"name": "k6", "state": PULLS}]}
    tool = a_tool("k6", tmp_path, server, stub, image="grafana/k6:9.9.9")
    assert await ran(tool) == []
    ending, words = await tool.ending()
    assert ending == "failed"
    assert "ImagePullBackOff: Back-off pulling image" in words
    assert server.everything() == []


async def test_a_run_that_the_operator_refuses_is_over(tmp_path, server, stub) -> None:
    server.stage = "error"
    tool = a_tool("k6", tmp_path, server, stub)
    assert await ran(tool) == []
    ending, words = await tool.ending()
    assert (ending, "refuses the TestRun" in words) == ("failed", True)


async def test_a_runner_that_is_lost_ends_the_run(tmp_path, server, stub) -> None:
    tool = a_tool("k6", tmp_path, server, stub, LONG)
    await tool.arm()
    await tool.fire()
    async with asyncio.timeout(WITHIN_S):
        async for report in tool.reports():
            if isinstance(report, Point) and len(server.objects(PODS)) == 2:
                server.remove(PODS, server.objects(PODS)[0]["metadata"]["name"])
    ending, words = await tool.ending()
    assert (ending, "was taken away" in words) == ("failed", True)
    assert server.everything() == []


async def test_a_worker_that_ends_before_its_time_ends_the_run_with_its_words(tmp_path, server, stub) -> None:
    tool = a_tool("locust", tmp_path, server, stub, LONG, parallelism=1)
    await tool.arm()
    await tool.fire()
    async with asyncio.timeout(WITHIN_S):
        async for report in tool.reports():
            if isinstance(report, Point):
                worker = next(name for name in server.processes if "-worker-" in name)
                if server.processes[worker].returncode is None:
                    server.logs[worker].append(stamp() + b" MemoryError: no more")
                    server.processes[worker].kill()
    ending, words = await tool.ending()
    assert ending == "failed"
    assert "-worker-" in words
    assert "MemoryError: no more" in words
    assert server.everything() == []
