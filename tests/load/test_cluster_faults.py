"""What must hold while the cluster breaks under a room and scripted load: every saved answer gets its reply, and no
scripted request fails that the gateway could have saved. Real replicas, killed, given notice and given up."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from loadgen.audit import audit, read_log
from loadgen.cluster.stage import Stage, ready, stages
from loadgen.cluster.streams import Streams
from loadgen.machine import allow_connections
from loadgen.phone import Habits
from loadgen.phones import Phones, phones_in
from loadgen.presenter import Presenter
from loadgen.processes import TOKEN, Process
from tests.cluster.fakes import copy_manifests, edit, engines
from tests.processes import S3, s3, web_app

PATIENCE_S = 60
PODS = 4
PHONES = 60
ANSWER_WITHIN_S = 30.0
USERS = 40
TOKENS = 60
"""In 1.3 s at the profile's pace, so that each fault meets streams under way."""
SPEED_UP = 40


@dataclass(frozen=True)
class Show:
    """All that goes on at once."""

    web: Process
    presenter: Presenter
    code: str
    phones: Phones
    stage: Stage
    streams: Streams

    async def until(self, holds: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
        return await self.stage.until(holds, what, PATIENCE_S)

    async def settled(self, pods: int = PODS) -> dict[str, Any]:
        return await self.until(
            lambda cluster: self.stage.settled and len(cluster["pods"]) == pods, f"{pods} pods, all ready"
        )

    async def steer(self, action: str, **more: object) -> None:
        await self.presenter.steer(self.code, action, **more)

    async def kill_by_pid(self) -> None:
        """The one that has run for longest: a pod that is killed again and again waits longer before it starts."""
        os.kill(min(engines(self.web.pid)), signal.SIGKILL)

    async def kill_from_the_console(self) -> None:
        pods = [pod for pod in self.stage.cluster["pods"] if pod["phase"] == "ready"]
        await self.steer("kill", name=min(pods, key=lambda pod: pod["restarts"])["name"])

    async def end(self) -> None:
        """Every user has an answer, every phone its reply."""
        await self.streams.all_ended(PATIENCE_S)
        await self.phones.all_acked("cost", PATIENCE_S)
        await self.phones.all_replied("cost", PATIENCE_S)

    async def check(self, logged: Counter[str]) -> None:
        """No answer, no reply and no request was lost, by what came back and by the ids in the log."""
        export = [record for record in await self.presenter.export(self.code) if record["type"] == "answered"]
        found = audit(self.phones.sent, export, logged)
        assert found.clean and found.acknowledged == PHONES, found
        assert not [sent for sent in self.phones.sent if sent.reply_failed]
        assert all(record["reply"] for record in export)
        assert {logged[f"reply-{sent.id}"] for sent in self.phones.sent} == {1}
        assert [stream.error for stream in self.streams.unserved] == []
        assert self.streams.short == []
        assert "Traceback" not in self.web.log()


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    """The project's, with four pods at all times and short waits where pods go."""
    base = copy_manifests(tmp_path)
    edit(base, r"minReplicaCount: \d+", f"minReplicaCount: {PODS}")
    edit(base, r"maxReplicaCount: \d+", f"maxReplicaCount: {PODS + 2}")
    edit(base, r"consolidateAfter: \w+", "consolidateAfter: 5s")
    edit(base, r"sleep: \{seconds: \d+\}", "sleep: {seconds: 1}")
    edit(base, r"interval: \d+s", "interval: 1s")
    return base


@asynccontextmanager
async def show(folder: Path, manifests: Path, store: str, place: S3 | None = None) -> AsyncIterator[Show]:
    """A settled cluster under its users' streams, and phones that see the question; it is not open yet."""
    allow_connections(4 * (PHONES + USERS))
    options = ("--cluster", "local", "--cluster-manifests", str(manifests), "--cluster-speed-up", str(SPEED_UP))
    with web_app(folder, store, s3=place, options=options) as web:
        await asyncio.to_thread(web.wait_ready)
        presenter = Presenter([web.url], TOKEN)
        code = await presenter.make_room()
        await presenter.control(code, "goto", activity="cost")
        habits, streams = Habits(answer_within_s=ANSWER_WITHIN_S), Streams(web.url, TOKENS)
        async with phones_in([web.url], code, PHONES, habits) as phones, stages(web.url, code) as (stage,):
            running = Show(web, presenter, code, phones, stage, streams)
            await running.settled()
            yield running
        presenter.close()


def restarts(cluster: dict[str, Any]) -> int:
    return sum(pod["restarts"] for pod in cluster["pods"])


async def test_ten_kill_9s_lose_no_reply_and_cut_only_what_had_begun(tmp_path: Path, manifests: Path) -> None:
    store = tmp_path / "store"
    async with show(tmp_path, manifests, str(store)) as running:
        async with running.streams.users(USERS):
            await running.presenter.control(running.code, "open")
            for kill in 5 * [running.kill_by_pid, running.kill_from_the_console]:
                before = restarts(running.stage.cluster)
                await kill()
                await running.until(lambda cluster, n=before: restarts(cluster) > n, "the kill is noticed")
                # A reply is made three times at most: the next kill is not to meet those that this one has met.
                await running.until(lambda cluster: ready(cluster) >= PODS - 1, "pods take over")
        await running.end()
        await running.check(read_log(store, running.code))
        assert {stream.error for stream in running.streams.broken} == {"error event"}
        assert len(running.streams.broken) < len(running.streams.ended)


async def test_spot_interruptions_scaling_and_a_store_outage_cut_nothing(tmp_path: Path, manifests: Path) -> None:
    with s3() as place:
        async with show(tmp_path, manifests, place.store, place) as running:
            async with running.streams.users(USERS):
                await running.presenter.control(running.code, "open")
                for outage in (False, True, False):
                    nodes = {node["name"] for node in running.stage.cluster["nodes"]}
                    if outage:
                        place.server.faults[:] = [(503, "SlowDown")] * 100_000
                    await running.steer("interrupt")
                    await running.until(
                        lambda cluster, n=nodes: n - {node["name"] for node in cluster["nodes"]}, "a node is gone"
                    )
                    await running.settled()
                    place.server.faults.clear()
                for pods in (PODS + 2, PODS - 1):
                    await running.steer("pin", replicas=pods)
                    await running.settled(pods)
                await running.steer("unpin")
                await running.settled()
            await running.end()
            await running.check(place.read_log(running.code))
            assert [stream.error for stream in running.streams.broken] == []
            told = sum(sent.waits_told for sent in running.phones.sent)
            assert told > 0, "no phone met the outage"
