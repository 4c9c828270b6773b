"""Follows a run's pods from their making to their end, and merges what they say into one stream of reports."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from inference.cluster.cluster import NoCluster
from inference.cluster.kubernetes.api import ApiError, Missing, Refused, Resource, Unreachable
from loadgen.spike.kubernetes import pods
from loadgen.spike.kubernetes.api import Api
from loadgen.spike.kubernetes.cluster import START_WITHIN_S
from loadgen.spike.kubernetes.logs import Log
from loadgen.spike.kubernetes.pods import Standing
from loadgen.spike.kubernetes.readers import Reader, Said
from loadgen.spike.point import Report
from loadgen.spike.tools.tool import Ending

LOOK_S = 0.5
"""The k6-operator takes the pods away a second or so after their end."""
BLIND_S = 60.0
"""So long the API server may be away."""
LAST_LINES = 20
_WORST: tuple[Ending, ...] = ("script", "options", "port", "failed", "interrupted", "thresholds", "stopped", "done")


@dataclass(frozen=True, slots=True)
class Crew:
    """The pods of a run: `selector` chooses all `count` of them. Those whose names begin with `teller` report, and the
    run is over when `tellers` of them are."""

    selector: str
    count: int
    teller: str
    tellers: int
    container: str
    reader: Callable[[], Reader]


class Following:
    """`write` takes lines for the log. `leaving`: the pods have been told to go. `failed` says why it had to be given
    up."""

    def __init__(self, api: Api, namespace: str, crew: Crew, write: Callable[[str], None]) -> None:
        self._api = api
        self._crew = crew
        self._write = write
        self._resource = Resource("v1", "pods", namespace, label_selector=crew.selector)
        self._pods: dict[str, Standing] = {}
        self._readers: dict[str, Reader] = {}
        self._logs: dict[str, asyncio.Task[None]] = {}
        self._written: set[str] = set()
        self._began: set[str] = set()
        self.heard: asyncio.Queue[Report | None] = asyncio.Queue()
        self.leaving = False
        self.failed = ""
        self._broken = False

    async def run(self, refusal: Callable[[], Awaitable[str]]) -> None:
        """Until the pods that report are over and all was read, or it failed. `refusal` is asked while there are not
        all pods: why there never will be, or nothing."""
        since_s = seen_s = time.monotonic()
        try:
            while not (self.failed or self._broken or self._over()):
                await asyncio.sleep(LOOK_S)
                try:
                    await self._look()
                    if len(self._began) < self._crew.count and not self.leaving:
                        self.failed = self.failed or await refusal()
                        if time.monotonic() - since_s > START_WITHIN_S:
                            self.failed = self.failed or self._not_begun()
                    seen_s = time.monotonic()
                except Unreachable as error:
                    if time.monotonic() - seen_s > BLIND_S:
                        self.failed = f"The API server did not answer for {BLIND_S:.0f} s: {error}"
                except (Missing, Refused, NoCluster) as error:
                    self.failed = f"The pods can't be seen: {error}"
        finally:
            for task in self._logs.values():
                task.cancel()
            results = await asyncio.gather(*self._logs.values(), return_exceptions=True)
        for error in results:
            if isinstance(error, Exception):
                raise error

    def ending(self) -> tuple[Ending, str]:
        """The worst that a pod had."""
        if self.failed:
            return "failed", self.failed
        read = [(self._pods[name], reader) for name, reader in self._readers.items()]
        endings = [self._ending_of(pod, reader) for pod, reader in read if pod.state == "over"]
        return min(endings, key=lambda one: _WORST.index(one[0]), default=("failed", "No pod of it ever ran."))

    def _ending_of(self, pod: Standing, reader: Reader) -> tuple[Ending, str]:
        if pod.wrong:
            return "failed", f"{pod.name}: {pod.wrong}"
        ending = reader.endings.get(pod.exit_code, "failed")
        return ending, "" if ending == "done" else reader.last_words or _status(pod)

    async def _look(self) -> None:
        """Raises ApiError, NoCluster."""
        listed, _ = await self._api.list(self._resource)
        found = {one.name: one for one in (pods.standing(it, self._crew.container) for it in listed)}
        self._pods = {**{name: pods.gone(pod) for name, pod in self._pods.items()}, **found}
        for pod in self._pods.values():
            if pod.state != "waits" and not pod.hopeless:
                self._began.add(pod.name)
                if self._tells(pod) and pod.name not in self._logs:
                    self._logs[pod.name] = asyncio.create_task(self._read(pod.name))
            if pod.wrong and pod.wrong not in self._written and not self.leaving:
                self._written.add(pod.wrong)
                self._write(f"{pod.name}: {pod.wrong}")
        if self.leaving or self._over():
            return
        for pod in filter(_is_broken, self._pods.values()):
            if pod.name not in self._logs:
                self.failed = f"{pod.name}: {pod.wrong or await self._last_words(pod) or _status(pod)}"
            elif self._logs[pod.name].done():  # it is heard out first
                self._broken = True

    def _tells(self, pod: Standing) -> bool:
        return pod.name.startswith(self._crew.teller)

    async def _read(self, name: str) -> None:
        reader = self._readers[name] = self._crew.reader()
        log = Log(self._api, self._resource, name, self._crew.container, lambda: self._pods[name].state == "over")
        async for line in log.lines():
            for said in reader.read(line):
                if isinstance(said, Said):
                    self._write(f"{name}: {said.text}")
                else:
                    self.heard.put_nowait(said)

    async def _last_words(self, pod: Standing) -> str:
        """Of a pod whose log nobody follows."""
        reader = self._crew.reader()
        asked = {"container": pod.blames or self._crew.container, "tailLines": str(LAST_LINES)}
        with suppress(ApiError):
            log = b"".join([part async for part in self._api.log(self._resource, pod.name, asked)])
            for said in (said for line in log.splitlines() for said in reader.read(line)):
                if isinstance(said, Said):
                    self._write(f"{pod.name}: {said.text}")
        return reader.last_words

    def _over(self) -> bool:
        tellers = [pod for pod in self._pods.values() if self._tells(pod)]
        wanted = 0 if self.leaving else self._crew.tellers
        read = all(task.done() for task in self._logs.values())
        return read and len(tellers) >= wanted and all(pod.state == "over" for pod in tellers)

    def _not_begun(self) -> str:
        count = self._crew.count
        what = f"{count - len(self._began)} of {count} pods did not start within {START_WITHIN_S:.0f} s"
        if len(self._pods) < count:
            what += f"; {count - len(self._pods)} were not even made (a quota? an operator that is away?)"
        why = {pod.wrong for pod in self._pods.values() if pod.state == "waits" and pod.wrong}
        return ". ".join([what, *sorted(why)])


def _is_broken(pod: Standing) -> bool:
    """It will do nothing more, before its time."""
    return pod.hopeless or (pod.state == "over" and bool(pod.wrong or pod.exit_code))


def _status(pod: Standing) -> str:
    return f"{pod.name} ended with exit status {pod.exit_code}."
