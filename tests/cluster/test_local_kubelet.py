"""The kubelet: what it carries out, and what it keeps in step with its containers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from inference.cluster import manifests
from inference.cluster.local.command import engine_command
from inference.cluster.local.kubelet import Kubelet
from inference.cluster.local.scraper import Scraper
from inference.cluster.plane import Kill, Start, Stop
from inference.cluster.scraping import Scrapes
from inference.pool import Pool
from tests.inference.servers import until


class Reported:
    """What the plane is told, in order, but for the times."""

    def __init__(self) -> None:
        self.said: list[tuple[object, ...]] = []

    def step(self, pod: str, now_s: float, name: str) -> None:
        self.said.append(("step", pod, name))

    def started(self, pod: str, now_s: float, url: str) -> None:
        self.said.append(("started", pod))

    def probed(self, pod: str, now_s: float, ok: bool) -> None:
        self.said.append(("probed", pod, ok))

    def gauges(self, pod: str, running: int, waiting: int) -> None:
        self.said.append(("gauges", pod, running, waiting))

    def ended(self, pod: str, now_s: float, why: str) -> None:
        self.said.append(("ended", pod, why))


class Machine:
    """A kubelet with all that it touches."""

    def __init__(self) -> None:
        self.plane = Reported()
        self.pool = Pool()
        self.scrapes = Scrapes()
        self.scraper = Scraper(self.scrapes, 0.05, time.time)
        command = engine_command({}, profile="instant", qa=None, startup_scale=0)
        spec = manifests.load(manifests.defaults())
        self.kubelet = Kubelet(
            self.plane, spec, lambda _gpu: command, self.pool, self.scraper, time.time, asyncio.Event()
        )  # fmt: skip

    @property
    def up(self) -> dict[str, float]:
        return {sample.labels["pod"]: sample.value for sample in self.scrapes.instant("up", time.time())}


@asynccontextmanager
async def machine() -> AsyncIterator[Machine]:
    one = Machine()
    try:
        yield one
    finally:
        await one.kubelet.close()
        await one.scraper.close()


async def test_pod_is_scraped_under_its_name_and_stands_in_the_pool_while_it_runs():
    async with machine() as one:
        one.kubelet.carry_out(Start("vllm-a"))
        assert one.pool.urls == []
        await until(lambda: ("gauges", "vllm-a", 0, 0) in one.plane.said)
        assert one.up == {"vllm-a": 1}
        assert one.pool.urls == one.kubelet.urls() != []
        one.kubelet.carry_out(Kill("vllm-a"))
        assert one.pool.urls == []
        await until(lambda: one.plane.said[-1] == ("ended", "vllm-a", "killed by SIGKILL"))
        assert one.up == {}


async def test_pod_that_is_asked_to_end_leaves_the_pool_at_once_and_is_scraped_to_its_end():
    async with machine() as one:
        one.kubelet.carry_out(Start("vllm-a"))
        await until(lambda: one.pool.urls != [] and "vllm-a" in one.up)
        one.kubelet.carry_out(Stop("vllm-a", 60))  # of which 15 s are the preStop wait
        assert one.pool.urls == []
        one.plane.said.clear()
        await until(lambda: ("gauges", "vllm-a", 0, 0) in one.plane.said)
        assert one.up == {"vllm-a": 1}


async def test_output_is_kept_over_restarts_and_until_the_pod_is_gone():
    async with machine() as one:
        for ends in (1, 2):
            one.kubelet.carry_out(Start("vllm-a"))
            await until(lambda: one.kubelet.urls() != [])
            one.kubelet.carry_out(Kill("vllm-a"))
            await until(lambda ends=ends: [said[0] for said in one.plane.said].count("ended") == ends)
        one.kubelet.keep_output_of({"vllm-a"})
        assert len(one.kubelet.output("vllm-a")) == 2
        one.kubelet.keep_output_of(set())
        assert one.kubelet.output("vllm-a") == []


async def test_close_ends_what_runs_and_what_has_not_begun():
    async with machine() as one:
        one.kubelet.carry_out(Start("vllm-a"))
        await until(lambda: one.pool.urls != [])
        for pod in ("vllm-b", "vllm-c", "vllm-d"):
            one.kubelet.carry_out(Start(pod))
        await one.kubelet.close()
        ended = [said[1] for said in one.plane.said if said[0] == "ended"]
        assert sorted(ended) == ["vllm-a", "vllm-b", "vllm-c", "vllm-d"]
        assert (one.kubelet.containers, one.pool.urls) == ({}, [])
