"""`LocalCluster`: the thin loop that carries out on this machine what the control plane decides, and tells it what came
of it. What is decided is in `plane.py`; how a pod's process lives in `container.py`."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from inference.cluster import manifests
from inference.cluster.autoscaling import promql
from inference.cluster.autoscaling.scaler import Scaler
from inference.cluster.cluster import NotPossible
from inference.cluster.coldstart import ColdStart
from inference.cluster.karpenter import catalogue
from inference.cluster.local.clock import Clock
from inference.cluster.local.command import engine_command
from inference.cluster.local.kubelet import Kubelet
from inference.cluster.local.scraper import Read, Scraper, Target
from inference.cluster.plane import Action, Plane
from inference.cluster.scraping import Scrapes
from inference.cluster.snapshot import ClusterSnapshot
from inference.engine import profile as profiles
from inference.engine.answers import read_entries
from inference.engine.app import DEFAULT_PROFILE
from inference.pool import Pool

log = logging.getLogger("crowdspike.cluster")

EVERY_S = 0.2
SLEPT_S = 30.0
BEFORE_S = 240.0


class LocalCluster:
    """A cluster whose pods are simulated replicas on this machine (see inference.cluster.cluster.Cluster).

    `folder` holds the manifests, the project's own by default. A replica behaves like `profile`, by default like the
    GPU of its node. Cold starts are `speed_up` times faster than in life; with `warm` the first pods had theirs before.
    `pool` is kept in step with the pods that run. `scrape_also` are metrics pages of this process by target name, read
    as often as the pods'. `on_change` is called when the view has changed by more than its gauges. `late` is told by
    how many seconds a `scrape`, or a `pass` of the loop, in which the autoscaler syncs, began too late.

    Raises ManifestError, ProfileError, or ValueError or OSError for `qa`, all with a text for people.
    """

    def __init__(
        self,
        pool: Pool,
        *,
        folder: Path | None = None,
        profile: str | None = None,
        qa: Path | None = None,
        speed_up: float = 10.0,
        warm: bool = False,
        seed: int = 0,
        scrape_also: Mapping[str, Callable[[], bytes]] | None = None,
        clock: Callable[[], float] = time.time,
        late: Callable[[str, float], None] = lambda work, late_s: None,
    ) -> None:
        profiles.load(profile or DEFAULT_PROFILE)
        if qa is not None:
            read_entries(qa.read_text(encoding="utf-8"))
        self._spec = manifests.load(folder or manifests.defaults())
        self._queries = {trigger.query: promql.parse(trigger.query) for trigger in self._spec.scaling.triggers}
        self._speed_up, self._seed = speed_up, seed
        self._plane = self._new_plane()
        self._clock = Clock(clock)
        self._scrapes = Scrapes(name for query in self._queries.values() for name in query.names)
        self._scraper = Scraper(self._scrapes, self._spec.scrape_interval_s, self._clock, partial(late, "scrape"))
        self._scrape_also = scrape_also or {}
        self._late = late
        self._pool = pool
        self._random = random.Random(seed)
        self._woken = asyncio.Event()
        self._profile, self._qa, self._warm = profile, qa, warm
        self._startup_scale = 1 / speed_up
        self._kubelet = Kubelet(self._plane, self._spec, self._command, pool, self._scraper, self._clock, self._woken)
        self._seen: object = None
        self._task: asyncio.Task[None] | None = None
        self.on_change: Callable[[], None] | None = None

    async def start(self) -> None:
        """Begin with as many pods as the manifests say for the start; unless it is warm, they have no node yet."""
        assert self._task is None, "started twice"
        if self._warm:
            self._live_through_the_first_start()
        for name, read in self._scrape_also.items():
            self._scraper.add(Target(name, _in_process(read), {"job": name}))
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """End every pod, with some seconds for those whose streams have not ended yet."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._kubelet.close()
        await self._scraper.close()
        self._pool.set(())

    def snapshot(self) -> ClusterSnapshot:
        return self._plane.snapshot(self._clock())

    def told(self) -> str:
        return ""  # the gateway sees every request of these replicas

    def urls(self) -> list[str]:
        """Of the pods that run and are not asked to end."""
        return self._kubelet.urls()

    def output(self, pod: str) -> list[str]:
        """The last lines that a pod has printed, over its restarts; empty for one that there is not."""
        return self._kubelet.output(pod)

    async def pin(self, replicas: int | None) -> None:
        self._plane.pin(replicas, self._clock())
        self._woken.set()

    async def hold(self, on: bool) -> None:
        self._plane.hold(on, self._clock())
        self._woken.set()

    async def kill_pod(self, name: str | None = None) -> str:
        running = self._kubelet.containers
        if name is None:
            ready = [pod.name for pod in self.snapshot().pods if pod.phase == "ready" and pod.name in running]
            if not ready:
                raise NotPossible("No pod is ready, so there is none to kill. Wait for one, or name one.")
            name = self._random.choice(ready)
        if name not in running:
            raise NotPossible(f"No container runs in a pod {name}, so there is nothing to kill.")
        self._plane.killed(name, self._clock())
        running[name].kill()
        return name

    async def interrupt_node(self, name: str | None = None) -> str:
        node = self._plane.interrupt(name, self._clock())
        self._woken.set()
        return node

    async def set_unavailable(self, instance_type: str, on: bool) -> None:
        self._plane.set_unavailable(instance_type, on, self._clock())
        self._woken.set()

    def _command(self, gpu: str) -> list[str]:
        profile = self._profile or profiles.of_gpu(gpu) or DEFAULT_PROFILE
        return engine_command(self._spec.pod.arguments, profile=profile, qa=self._qa, startup_scale=self._startup_scale)

    def _new_plane(self) -> Plane:
        return Plane(
            self._spec,
            Scaler(self._spec.scaling),
            catalogue.load(),
            ColdStart.load().faster(self._speed_up),
            seed=self._seed,
            speed_up=self._speed_up,
        )

    def _live_through_the_first_start(self) -> None:
        """Nodes and images of the first pods came in the minutes before now; their engines start without delay."""
        took_s = sum(1 for _ in _ticks(self._new_plane(), 0.0, BEFORE_S)) * EVERY_S
        scale, self._startup_scale = self._startup_scale, 0.0
        for actions in _ticks(self._plane, self._clock() - took_s, took_s + EVERY_S):
            for action in actions:
                self._kubelet.carry_out(action)
        self._startup_scale = scale

    # The loop.

    async def _run(self) -> None:
        passed_s, now = self._clock(), asyncio.get_running_loop().time
        while True:
            self._woken.clear()
            try:
                if self._clock() - passed_s > SLEPT_S:
                    # The machine was asleep. What it knew of the load then says nothing of now.
                    log.warning("the clock has jumped by %.0f s", self._clock() - passed_s)
                    await self._scraper.refresh()
                passed_s = self._clock()
                self._pass(passed_s)
            except Exception:
                log.exception("the local cluster's loop failed, and goes on")
            due = now() + EVERY_S
            try:
                async with asyncio.timeout_at(due):
                    await self._woken.wait()
            except TimeoutError:
                self._late("pass", now() - due)

    def _pass(self, now_s: float) -> None:
        for action in self._plane.tick(now_s, lambda query: self._queries[query].value(self._scrapes, now_s)):
            self._kubelet.carry_out(action)
        view = self._plane.snapshot(now_s)
        self._kubelet.keep_output_of({pod.name for pod in view.pods})
        seen = (
            view.happenings[-1].seq if view.happenings else 0,
            view.autoscaler,
            [(pod.name, pod.phase, pod.step) for pod in view.pods],
            [(node.name, node.phase) for node in view.nodes],
        )
        if seen != self._seen:
            self._seen = seen
            if self.on_change is not None:
                self.on_change()


def _ticks(plane: Plane, from_s: float, for_s: float) -> Iterator[list[Action]]:
    """What an idle plane wants done, until its first pods all run."""
    for n in range(int(for_s / EVERY_S)):
        yield plane.tick(from_s + n * EVERY_S, lambda _query: 0.0)
        pods = plane.snapshot(from_s + n * EVERY_S).pods
        if pods and all(pod.phase == "starting" for pod in pods):
            return


def _in_process(read: Callable[[], bytes]) -> Read:
    async def page() -> bytes:
        return read()

    return page
