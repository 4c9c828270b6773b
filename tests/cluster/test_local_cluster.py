"""The local cluster: the whole control plane with real replicas, on this machine."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import pytest

from inference.cluster.cluster import NotPossible
from inference.cluster.local.cluster import LocalCluster
from inference.cluster.manifests import ManifestError
from inference.engine.profile import ProfileError
from inference.pool import Pool
from inference.upstream import Upstream
from tests.cluster.fakes import (
    FastClock,
    begun,
    copy_manifests,
    edit,
    engines,
    finish_reason,
    ready,
    running,
    until_view,
)
from tests.inference.servers import profile_file, until
from tests.processes import runs

PROGRAM = """
import asyncio, sys
from pathlib import Path
from inference.cluster.local.cluster import LocalCluster
from inference.pool import Pool

async def main():
    cluster = LocalCluster(Pool(), folder=Path(sys.argv[1]), profile="instant", speed_up=1000)
    await cluster.start()
    await cluster.pin(2)
    while cluster.snapshot().ready < 2:
        await asyncio.sleep(0.02)
    print("ready", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
def folder(tmp_path) -> Path:
    """Manifests as the project's, with up to three pods and without waits that only real time would justify."""
    base = copy_manifests(tmp_path)
    edit(base, r"maxReplicaCount: \d+", "maxReplicaCount: 3")
    edit(base, r"stabilizationWindowSeconds: \d+", "stabilizationWindowSeconds: 0")
    edit(base, r"consolidateAfter: \w+", "consolidateAfter: 5s")
    edit(base, r"sleep: \{seconds: \d+\}", "sleep: {seconds: 1}")
    edit(base, r"interval: \d+s", "interval: 1s")
    return base


@pytest.fixture
def slow(tmp_path) -> str:
    """A profile of 20 ms a step, in which streams last."""
    return profile_file(tmp_path, step_base_ms=20)


async def crowd(url: str, streams: int) -> list[asyncio.Task[None]]:
    """Endless streams to one replica."""

    async def follow() -> None:
        body = {"prompt": "x", "max_tokens": 4000, "ignore_eos": True, "stream": True}
        exchange = await Upstream(url).post("/v1/completions", json.dumps(body).encode())
        try:
            await exchange.read()
        finally:
            exchange.close()

    return [asyncio.create_task(follow()) for _ in range(streams)]


async def leave(streams: list[asyncio.Task[None]]) -> None:
    for stream in streams:
        stream.cancel()
    await asyncio.gather(*streams, return_exceptions=True)


async def test_load_adds_pods_and_nodes_up_to_the_most_and_its_end_removes_them(folder, slow):
    async with running(folder, profile=slow) as (cluster, pool):
        view = await until_view(cluster, ready(1))
        streams = await crowd(pool.urls[0], 50)
        view = await until_view(cluster, ready(3))
        assert sorted(pool.urls) == sorted(pod.url for pod in view.pods)
        assert {pod.node for pod in view.pods} == {node.name for node in view.nodes if node.phase == "ready"}
        assert (view.autoscaler.desired, view.autoscaler.max_replicas) == (3, 3)
        assert view.usd_per_hour > 0
        loaded = await until_view(cluster, lambda view: any(pod.waiting for pod in view.pods))
        assert max(pod.running or 0 for pod in loaded.pods) == loaded.pods[0].max_running
        await leave(streams)
        view = await until_view(cluster, lambda view: ready(1)(view) and len(view.nodes) == 1)
        assert pool.urls == [view.pods[0].url]
        assert {"up", "down"} == {one.what for one in view.happenings if one.kind == "scale"}
    assert engines() == set()


async def test_number_changed_in_the_manifest_changes_what_happens(folder, slow):
    edit(folder, r"maxReplicaCount: 3", "maxReplicaCount: 2")
    async with running(folder, profile=slow) as (cluster, pool):
        await until_view(cluster, ready(1))
        streams = await crowd(pool.urls[0], 50)
        view = await until_view(cluster, lambda view: view.autoscaler.desired > 1)
        assert view.autoscaler.metric / view.autoscaler.target > 3
        assert (view.autoscaler.desired, len(view.pods)) == (2, 2)
        await leave(streams)


async def test_pod_killed_from_outside_leaves_the_pool_and_is_healed(folder):
    async with running(folder) as (cluster, pool):
        (pod,) = (await until_view(cluster, ready(1))).pods
        (pid,) = engines()
        os.kill(pid, signal.SIGKILL)
        await until(lambda: pool.urls == [])
        (healed,) = (await until_view(cluster, lambda view: ready(1)(view) and view.pods[0].restarts == 1)).pods
        assert healed.name == pod.name
        assert pool.urls == [healed.url] != [pod.url]
        assert not runs(pid)


async def test_pod_killed_by_the_presenter_gets_no_warning_and_is_healed(folder, slow):
    async with running(folder, profile=slow) as (cluster, pool):
        with pytest.raises(NotPossible):
            await cluster.kill_pod()
        await until_view(cluster, ready(1))
        stream = await begun(pool.urls[0], 4000)
        name = await cluster.kill_pod()
        assert b"[DONE]" not in await _rest(stream)
        view = await until_view(cluster, lambda view: ready(1)(view) and view.pods[0].restarts == 1)
        assert view.pods[0].name == name
        assert any(one.kind == "chaos" and one.subject == name for one in view.happenings)
        with pytest.raises(NotPossible):
            await cluster.kill_pod("vllm-no-such")


async def test_pods_given_up_let_their_streams_end(folder, slow):
    async with running(folder, profile=slow) as (cluster, pool):
        await cluster.pin(2)
        await until_view(cluster, ready(2))
        streams = {url: await begun(url, 120) for url in pool.urls}
        await cluster.pin(1)
        view = await until_view(cluster, lambda view: any(pod.phase == "terminating" for pod in view.pods))
        (gone,) = [pod.url for pod in view.pods if pod.phase == "terminating"]
        assert gone not in pool.urls
        assert await finish_reason(streams[gone]) == "length"
        await until_view(cluster, ready(1))
        assert len(engines()) == 1
        streams.pop(gone)
        for stream in streams.values():
            stream.close()


async def test_interrupted_node_is_replaced_and_its_streams_end(folder, slow):
    async with running(folder, profile=slow) as (cluster, pool):
        before = await until_view(cluster, ready(1))
        stream = await begun(pool.urls[0], 120)
        node = await cluster.interrupt_node()
        assert node == before.pods[0].node
        view = await until_view(
            cluster, lambda view: any(pod.phase == "ready" and pod.node not in (None, node) for pod in view.pods)
        )
        assert pool.urls == [pod.url for pod in view.pods if pod.phase == "ready"]
        assert await finish_reason(stream) == "length"


async def test_replica_that_cannot_start_is_told_and_the_rest_goes_on(folder):
    edit(folder, r'"4096"', '"400000000"')
    async with running(folder) as (cluster, pool):
        view = await until_view(cluster, lambda view: any(one.what == "lost" for one in view.happenings))
        text = next(one.text for one in view.happenings if one.what == "lost")
        assert "exit status 2" in text
        assert "less than one request of 400000000" in text
        assert "less than one request" in cluster.output(view.pods[0].name)[-1]
        await cluster.pin(2)
        view = await until_view(cluster, lambda view: len(view.pods) == 2)
        assert pool.urls == []


async def test_metrics_of_this_process_scale_before_any_request_waits(folder):
    overlay = folder.parent / "overlays" / "crowd-aware"
    page = {"web": lambda: b"crowdspike_expected_requests 60\n"}
    async with running(overlay, scrape_also=page) as (cluster, _):
        view = await until_view(cluster, lambda view: view.autoscaler.desired > 1)
        assert view.autoscaler.triggers["expected"] == 60
        assert view.autoscaler.triggers["running"] == 0


async def test_laptop_that_slept_knows_the_load_before_it_decides(folder, slow):
    clock = FastClock()
    async with running(folder, profile=slow, clock=clock) as (cluster, pool):
        await until_view(cluster, ready(1))
        streams = await crowd(pool.urls[0], 50)
        await until_view(cluster, lambda view: view.autoscaler.desired == 3)
        seen = []
        cluster.on_change = lambda: seen.append(cluster.snapshot().autoscaler)
        clock.jump(3600)
        await until(lambda: len(seen) >= 2)
        assert [one for one in seen if one.metric is None or one.fallback or one.desired != 3] == []
        await leave(streams)


async def test_loop_survives_its_own_failures(folder, caplog):
    async with running(folder) as (cluster, _):

        def fail() -> None:
            raise RuntimeError("the listener is broken")

        cluster.on_change = fail
        await until_view(cluster, ready(1))
        assert "the listener is broken" in caplog.text


async def test_program_killed_leaves_no_replica(folder):
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, str(folder), stdout=asyncio.subprocess.PIPE
    )
    pids: set[int] = set()
    try:
        assert await program.stdout.readline() == b"ready\n"
        pids = engines(program.pid)
        assert len(pids) == 2
        program.kill()
        await program.wait()
        await until(lambda: not any(runs(pid) for pid in pids))
    finally:
        for pid in filter(runs, pids):
            os.kill(pid, signal.SIGKILL)
        if program.returncode is None:
            program.kill()
            await program.wait()


def test_what_is_wrong_from_the_start_is_said_when_it_is_made(folder, tmp_path):
    with pytest.raises(ProfileError, match="no profile 'h100'"):
        LocalCluster(Pool(), folder=folder, profile="h100")
    with pytest.raises(ManifestError):
        LocalCluster(Pool(), folder=tmp_path / "nowhere")
    broken = tmp_path / "qa.json"
    broken.write_text('{"question": 1}')
    with pytest.raises(ValueError, match="expected a list"):
        LocalCluster(Pool(), folder=folder, qa=broken)


async def _rest(stream) -> bytes:
    """What a stream that is cut off has still brought."""
    found = b""
    try:
        while chunk := await stream.chunk():
            found += chunk
    except Exception:
        return found
    return found


async def test_a_warm_cluster_has_its_first_pod_at_once_and_its_cold_start_behind_it(tmp_path):
    pool = Pool()
    cluster = LocalCluster(pool, profile="instant", speed_up=1.0, warm=True)
    try:
        await cluster.start()
        (pod,) = cluster.snapshot().pods
        assert pod.phase == "starting", "its node is ready and its image there, though both take a minute"
        await until(lambda: cluster.snapshot().ready == 1)
        told = [(one.kind, one.what) for one in cluster.snapshot().happenings]
        assert ("node", "ready") in told and ("pod", "started") in told
        (ready,) = [one for one in cluster.snapshot().happenings if one.what == "ready" and one.kind == "pod"]
        (started,) = [one for one in cluster.snapshot().happenings if one.what == "started"]
        assert started.at_s == pytest.approx(ready.at_s, abs=60), "it has not been starting for all that time"
    finally:
        await cluster.close()
        await pool.close()


def arguments(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")


async def test_a_pod_behaves_like_the_gpu_of_its_node(tmp_path):
    pool = Pool()
    cluster = LocalCluster(pool, speed_up=1000, warm=True)
    try:
        await cluster.start()
        await until(lambda: cluster.snapshot().ready == 1)
        (node,) = cluster.snapshot().nodes
        assert node.instance_type == "g6.xlarge", "the cheapest that fits"
        (pid,) = [container.pid for container in cluster._kubelet.containers.values()]
        command = arguments(pid)
        assert command[command.index("--profile") + 1] == "l4-mistral-7b-awq"
    finally:
        await cluster.close()
        await pool.close()
