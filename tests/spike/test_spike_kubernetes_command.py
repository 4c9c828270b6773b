"""`crowdspike spike … --on kubernetes` as a person runs it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml

from loadgen.gateway.stub import Stub
from loadgen.spike.folder import read_run
from loadgen.spike.order import BAD_INPUT, INTERRUPTED, INVALID, PASS
from tests.cluster.kube_server import PODS
from tests.spike.spike_cluster import TESTRUNS, SpikeCluster, kubeconfig, spike_cluster
from tests.spike.spike_targets import listening
from webapp.cli import main

WITHIN_S = 60.0
ON = ("--on", "kubernetes")
NOBODY = "http://127.0.0.1:9"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[SpikeCluster]:
    (tmp_path / "cluster").mkdir()
    async with spike_cluster(tmp_path / "cluster") as found:
        yield found


async def spike(server: SpikeCluster, folder: Path, scenario: str, *arguments: str) -> asyncio.subprocess.Process:
    ours = {k: v for k, v in os.environ.items() if not k.startswith("CROWDSPIKE_")}
    ours["KUBECONFIG"] = kubeconfig(folder, server.url)
    out = asyncio.subprocess.PIPE
    command = [sys.executable, "-m", "webapp.cli", "spike", scenario, *ON, "--out", str(folder / "run"), *arguments]
    return await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=out, stderr=out, env=ours
    )


async def test_a_run_on_a_cluster_ends_with_a_verdict_and_a_folder(server, tmp_path) -> None:
    async with listening(Stub) as target, asyncio.timeout(WITHIN_S):
        asked = ("--target", target, "--peak", "10", "--duration", "3s", "--parallelism", "2")
        process = await spike(server, tmp_path, "spike", *asked)
        out, err = await process.communicate()
    assert process.returncode in (PASS, INVALID), err.decode()  # a busy machine may send late
    run = read_run(tmp_path / "run")
    assert run.summary.counts.served == run.summary.counts.planned == run.plan.planned
    assert (run.summary.about.tool_on, run.summary.about.tool_version) == ("kubernetes", "1.1.0")
    assert sorted(point.due_s for point in run.points() if point.by == "k6") == pytest.approx(
        list(run.plan.arrivals()), abs=0.01
    )
    assert f"served    {run.plan.planned}; 0 failed".encode() in out
    assert server.everything() == []


async def test_ctrl_c_takes_everything_away_and_writes_the_folder(server, tmp_path) -> None:
    async with listening(Stub) as target, asyncio.timeout(WITHIN_S):
        process = await spike(server, tmp_path, "soak", "--target", target, "--peak", "10", "--duration", "60s")
        points = tmp_path / "run" / "points.jsonl"
        while not points.exists() or not points.stat().st_size:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        process.send_signal(signal.SIGINT)
        await process.communicate()
    assert process.returncode == INTERRUPTED
    assert read_run(tmp_path / "run").summary.counts.served > 0
    assert server.everything() == []
    assert [process.returncode is None for process in server.processes.values()] == [False]
    assert server.objects(PODS) == []


async def test_a_cluster_without_an_operator_is_told_and_sent_nothing(server, tmp_path) -> None:
    server.served.discard(TESTRUNS)
    async with listening(Stub) as target, asyncio.timeout(WITHIN_S):
        process = await spike(server, tmp_path, "spike", "--target", target, "--duration", "5s")
        out, err = await process.communicate()
    assert process.returncode == BAD_INPUT
    assert b"no k6-operator" in out + err
    assert server.everything() == []


@pytest.mark.parametrize("tool", ["k6", "locust"])
def test_a_dry_run_prints_the_manifests_and_asks_nobody(tool, capsys) -> None:
    asked = ["spike", "matrix", "--target", NOBODY, *ON, "--tool", tool, "--parallelism", "2", "--namespace", "talk"]
    assert main([*asked, "--image", "mine:7", "--dry-run"]) == 0
    out, err = capsys.readouterr()
    objects = list(yaml.safe_load_all(out))
    assert err == ""
    assert objects[-1]["kind"] == {"k6": "TestRun", "locust": "Job"}[tool]
    assert NOBODY in out
    assert "image: mine:7" in out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("spike", "--parallelism", "2"), "--parallelism is for --on kubernetes"),
        (("spike", "--keep"), "--keep is for --on kubernetes"),
        (("spike", *ON, "--parallelism", "65"), "give 1 to 64"),
        (("spike", *ON, "--prompt-tokens", "4000", "--dry-run"), "shorter --prompt-tokens"),
        (("audience", *ON, "--dry-run"), "name one with --room"),
    ],
)
def test_what_does_not_go_together_is_said(arguments, told, capsys) -> None:
    assert main(["spike", *arguments, "--target", NOBODY]) == BAD_INPUT
    assert told in capsys.readouterr().err
