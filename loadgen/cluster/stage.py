"""Follows a stage as its page does, and keeps what it says and when it came."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

from loadgen.http import Client


class NotSeen(Exception):
    """The stage did not show in time what was waited for; the text ends with what it showed last."""


class Stage:
    """One open stage. `latest` is its last snapshot. Of each, in order: `late_ms` is how long after it was made it was
    here, by this machine's clock; `received_s` when that was, by `time.monotonic()`."""

    def __init__(self) -> None:
        self.latest: dict[str, Any] = {}
        self.late_ms: list[float] = []
        self.received_s: list[float] = []
        self._came = asyncio.Event()

    @property
    def cluster(self) -> dict[str, Any]:
        """The cluster's part of the last snapshot; empty before the first."""
        return self.latest.get("cluster", {})

    @property
    def settled(self) -> bool:
        """Every pod that is asked for is ready, and there is no other."""
        pods = self.cluster.get("pods", ())
        return bool(pods) and len(pods) == self.cluster["scaling"]["desired"] and ready(self.cluster) == len(pods)

    async def until(self, holds: Callable[[dict[str, Any]], bool], what: str, within_s: float) -> dict[str, Any]:
        """The first view of the cluster, the last one included, for which it holds. Raises NotSeen."""
        try:
            async with asyncio.timeout(within_s):
                while not (self.cluster and holds(self.cluster)):
                    await self._came.wait()
        except TimeoutError:
            pods = [(pod["short"], pod["word"]) for pod in self.cluster.get("pods", ())]
            feed = "\n".join(line["text"] for line in self.cluster.get("feed", ()))
            raise NotSeen(f"not within {within_s:.0f} s: {what}; pods {pods}\n{feed}") from None
        return self.cluster

    async def follow(self, server: str, code: str) -> None:
        """Until it is cancelled. Raises Lost or Refused."""
        client = Client([server])
        async with aclosing(client.events(f"/stage/{code}/events", {"accept": "text/event-stream"})) as events:
            async for event in events:
                if event.name == "snapshot":
                    self._show(json.loads(event.data))

    def _show(self, snapshot: dict[str, Any]) -> None:
        self.late_ms.append(time.time() * 1000 - snapshot["now_ms"])
        self.received_s.append(time.monotonic())
        self.latest = snapshot
        self._came.set()
        self._came = asyncio.Event()


def ready(cluster: dict[str, Any]) -> int:
    return sum(pod["phase"] == "ready" for pod in cluster["pods"])


@asynccontextmanager
async def stages(server: str, code: str, count: int = 1) -> AsyncIterator[list[Stage]]:
    """Open stages, each of which has had a snapshot; they close with the block."""
    opened = [Stage() for _ in range(count)]
    tasks = [asyncio.create_task(stage.follow(server, code)) for stage in opened]
    try:
        for stage in opened:
            await stage.until(lambda cluster: True, "a first snapshot", 30)
        yield opened
    finally:
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome
