"""k6 and Locust on a cluster, as Tools.

Nothing waits armed there: the k6-operator lets its runners begin as soon as all are there. So `arm` has the API server
try all that will be made, and `fire` makes it; the load begins when the pods have started.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

from inference.cluster.cluster import NoCluster
from inference.cluster.kubernetes.api import ApiError, Resource
from inference.cluster.kubernetes.objects import NOTHING
from loadgen.spike.kubernetes import jobs, testrun
from loadgen.spike.kubernetes.api import Api
from loadgen.spike.kubernetes.cluster import START_WITHIN_S, Cluster, Manifest, name_of, version_of
from loadgen.spike.kubernetes.following import Crew, Following
from loadgen.spike.kubernetes.made import Made
from loadgen.spike.kubernetes.readers import K6Reader, LocustReader
from loadgen.spike.point import Report
from loadgen.spike.supervisor import Limits
from loadgen.spike.tools.tool import Ending, Job, ToolFailed

LIMITS = Limits(fire_s=30.0, over_s=START_WITHIN_S + 60.0, stop_s=60.0, kill_s=15.0)
"""A supervisor's: pods take their time to come, and to go."""
LOG_BYTES = 4 << 20


class _OnCluster:
    name = ""

    def __init__(self, job: Job, cluster: Cluster, objects: list[Manifest], crew: Crew, image: str) -> None:
        self.version = version_of(image)
        self._log_path = job.folder / "tool.log"
        self._left_bytes = LOG_BYTES
        self._keep = cluster.keep
        self._crew = crew
        self._api = Api(cluster.kubeconfig, cluster.context)
        self._made = Made(self._api, objects, cluster.namespace)
        self._following: Following | None = None
        self._given_up = False
        self._fired, self._killed, self._ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @property
    def pids(self) -> list[int]:
        return []

    async def arm(self) -> None:
        try:
            await self._made.check()
        except BaseException as error:
            await self._api.close()
            if isinstance(error, (NoCluster, ApiError)):
                raise ToolFailed(f"The cluster can't be used: {error}.", "options") from None
            raise

    async def fire(self) -> None:
        try:
            await self._made.make()
        except (NoCluster, ApiError) as error:
            raise ToolFailed(f"The run could not be made on the cluster: {error}.") from None
        self._fired.set()

    async def reports(self) -> AsyncIterator[Report]:
        killed = asyncio.create_task(self._killed.wait())
        following: asyncio.Task[None] | None = None
        try:
            await _first(killed, asyncio.create_task(self._fired.wait()))
            if not killed.done():
                self._following = Following(self._api, self._made.namespace, self._crew, self._write)
                self._following.leaving = self._given_up
                heard = self._following.heard
                following = asyncio.create_task(self._following.run(self._refusal))
                following.add_done_callback(lambda _: heard.put_nowait(None))
                killed.add_done_callback(lambda _: following.cancel())
                while (report := await heard.get()) is not None:
                    yield report
                with suppress(asyncio.CancelledError):
                    await following  # an error of ours
        finally:
            for task in filter(None, (killed, following)):
                task.cancel()
            await asyncio.gather(*filter(None, (killed, following)), return_exceptions=True)
            if not self._keep or self._given_up or (self._following and self._following.failed):
                await self._made.remove()
            await self._api.close()
            self._ended.set()

    async def stop(self) -> None:
        self._given_up = True
        if self._following is None:
            self._killed.set()
            return
        self._following.leaving = True
        await self._made.remove()

    def kill(self) -> None:
        self._given_up = self._given_up or not self._ended.is_set()
        self._killed.set()

    async def ending(self) -> tuple[Ending, str]:
        await self._ended.wait()
        if self._given_up or self._following is None:
            return "stopped", ""
        return self._following.ending()

    async def _refusal(self) -> str:
        """Why there will never be all pods. Raises ApiError."""
        return ""

    async def _root(self) -> Manifest:
        """What the run began with, as it is now; empty when it is gone. Raises ApiError."""
        root = self._made.root
        one = Resource(root.version, root.plural, root.namespace, field_selector=f"metadata.name={self._made.name}")
        listed, _ = await self._api.list(one)
        return dict(listed[0]) if listed else {}

    def _write(self, line: str) -> None:
        """To `tool.log`, to a size. A run goes on without it."""
        self._left_bytes -= len(line) + 1
        if self._left_bytes > 0:
            with suppress(OSError), self._log_path.open("a", encoding="utf-8") as file:
                file.write(f"{line}\n")


class KubernetesK6(_OnCluster):
    """A Tool: a TestRun of the k6-operator. Raises BadPlan, ToolFailed."""

    name = "k6"

    def __init__(self, job: Job, cluster: Cluster) -> None:
        name = name_of(job.folder.name)
        count = cluster.parallelism
        crew = Crew(testrun.selector(name), count, name, count, testrun.CONTAINER, K6Reader)
        super().__init__(job, cluster, testrun.manifests(name, job, cluster), crew, cluster.image or testrun.IMAGE)

    async def _refusal(self) -> str:
        root = await self._root()
        if not root:
            return "Somebody has taken the TestRun away."
        if root.get("status", NOTHING).get("stage") == "error":
            return (
                f"The k6-operator refuses the TestRun: see its log, and that of the Job {self._made.name}-initializer."
            )
        return ""


class KubernetesLocust(_OnCluster):
    """A Tool: Jobs for a master and its workers. Raises BadPlan, ToolFailed."""

    name = "locust"

    def __init__(self, job: Job, cluster: Cluster) -> None:
        name = name_of(job.folder.name)
        count = cluster.parallelism + 1
        crew = Crew(jobs.selector(name), count, f"{name}-{jobs.MASTER}-", 1, jobs.CONTAINER, LocustReader)
        super().__init__(job, cluster, jobs.manifests(name, job, cluster), crew, cluster.image or jobs.IMAGE)


TOOLS = {"k6": KubernetesK6, "locust": KubernetesLocust}


async def _first(*tasks: asyncio.Task) -> None:
    """Waits for one of them, and leaves the first alone."""
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks[1:]:
            task.cancel()
