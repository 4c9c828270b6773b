"""The pods' containers on this machine: carries out what the plane decides, tells it what comes of it, and keeps the
pool and the scraped targets in step."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

from inference.cluster.local.container import Container
from inference.cluster.local.fetching import fetch
from inference.cluster.local.scraper import Scraper, Target
from inference.cluster.plane import Action, Kill, Plane, Start, Stop
from inference.cluster.spec import ClusterSpec
from inference.pool import RUNNING, WAITING, Pool, gauge
from inference.upstream import Upstream

log = logging.getLogger("crowdspike.cluster")

CLOSE_WITHIN_S = 5.0
OUTPUT_LINES = 50


class Kubelet:
    """Hears the containers' reports. `command` is what runs in a pod on a node with that GPU. `woken` is set whenever
    the plane has something new to think about."""

    def __init__(
        self,
        plane: Plane,
        spec: ClusterSpec,
        command: Callable[[str], Sequence[str]],
        pool: Pool,
        scraper: Scraper,
        clock: Callable[[], float],
        woken: asyncio.Event,
    ) -> None:
        self.containers: dict[str, Container] = {}
        self._plane = plane
        self._spec = spec
        self._command = command
        self._pool = pool
        self._scraper = scraper
        self._clock = clock
        self._woken = woken
        # Loading the engine's code takes 0.4 s of a core, so nine pods 3 s of one of two: less than their simulated
        # start-up at 10×. Half of the cores stay with the replicas that serve the spike which asks for more of them.
        self._starting = asyncio.Semaphore(max(1, (os.cpu_count() or 1) // 2))
        self._output: dict[str, deque[str]] = {}

    def carry_out(self, action: Action) -> None:
        match action:
            case Start(pod, gpu):
                assert pod not in self.containers, f"{pod} is started twice"
                output = self._output.setdefault(pod, deque(maxlen=OUTPUT_LINES))
                self.containers[pod] = Container(pod, self._command(gpu), self._spec.pod, self._starting, output, self)
            case Stop(pod, grace_s):
                self.containers[pod].stop(grace_s)
                self._sync_pool()
            case Kill(pod):
                self.containers[pod].stopping = True
                self.containers[pod].kill()
                self._sync_pool()

    def urls(self) -> list[str]:
        """Of the pods that listen and are not asked to end."""
        return [c.url for c in self.containers.values() if c.url and not c.stopping]

    def output(self, pod: str) -> list[str]:
        """The last lines that a pod has printed, over its restarts."""
        return list(self._output.get(pod, ()))

    def keep_output_of(self, pods: set[str]) -> None:
        for pod in self._output.keys() - pods - self.containers.keys():
            del self._output[pod]

    async def close(self) -> None:
        """End every container: SIGTERM, and after some seconds SIGKILL."""
        gone = [asyncio.create_task(container.gone.wait()) for container in self.containers.values()]
        for container in list(self.containers.values()):
            container.terminate()
        if gone:
            await asyncio.wait(gone, timeout=CLOSE_WITHIN_S)
        for container in list(self.containers.values()):
            container.kill()
        await asyncio.gather(*gone)

    # What a container reports.

    def step(self, pod: str, name: str) -> None:
        self._plane.step(pod, self._clock(), name)
        self._woken.set()

    def started(self, pod: str, url: str) -> None:
        self._scraper.add(self._target(pod, url))
        self._sync_pool()
        self._plane.started(pod, self._clock(), url)
        self._woken.set()

    def probed(self, pod: str, ok: bool) -> None:
        self._plane.probed(pod, self._clock(), ok)
        self._woken.set()

    def ended(self, pod: str, why: str) -> None:
        container = self.containers.pop(pod)
        if not container.stopping:
            log.warning("pod %s: %s", pod, why)
        if container.url:
            self._scraper.remove(container.url)
            self._sync_pool()
        self._plane.ended(pod, self._clock(), why)
        self._woken.set()

    def _target(self, pod: str, url: str) -> Target:
        upstream = Upstream(url)

        async def read() -> bytes:
            status, page = await fetch(upstream, "/metrics", self._spec.scrape_interval_s)
            if status != 200:
                raise ValueError(f"status {status}")
            return page

        def report(page: bytes) -> None:
            with suppress(ValueError, OverflowError):  # NaN, or more than any number
                self._plane.gauges(pod, gauge(page, RUNNING), gauge(page, WAITING))

        return Target(url, read, {"pod": pod}, report, upstream.close)

    def _sync_pool(self) -> None:
        if self._pool.urls != (urls := self.urls()):
            self._pool.set(urls)
