"""A container's log, line by line as it is written: each line once, however often the connection breaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime

from inference.cluster.kubernetes.api import Missing, Resource, Unreachable
from loadgen.spike.kubernetes.api import Api

AGAIN_S = 0.5
BACK_S = 2
"""A log is asked for again from so many seconds before its last line: the server takes whole seconds, and the times of
a container's two outputs are not quite in order."""


class Log:
    """`over` says whether the container has ended: then what it wrote is all there."""

    def __init__(self, api: Api, pods: Resource, pod: str, container: str, over: Callable[[], bool]) -> None:
        self._api = api
        self._pods = pods
        self._pod = pod
        self._container = container
        self._over = over
        self._seen: dict[int, set[bytes]] = {}
        self._latest_s = 0
        self.trouble = ""
        """Why it can't be read for now."""

    async def lines(self) -> AsyncIterator[bytes]:
        """Until the container has ended and all was read, or the pod is gone. Raises Refused."""
        while True:
            over = self._over()
            try:
                async for line in self._once():
                    yield line
                self.trouble = ""
                if over:
                    return
            except Missing:
                return
            except Unreachable as error:
                self.trouble = str(error)
            await asyncio.sleep(AGAIN_S)

    async def _once(self) -> AsyncIterator[bytes]:
        parameters = {"container": self._container, "follow": "true", "timestamps": "true"}
        if self._latest_s:
            since = datetime.fromtimestamp(self._latest_s - BACK_S, UTC)
            parameters["sinceTime"] = since.strftime("%Y-%m-%dT%H:%M:%SZ")
        rest = b""
        async for data in self._api.log(self._pods, self._pod, parameters):
            *whole, rest = (rest + data).split(b"\n")  # half a line comes again, or was never finished
            for line in whole:
                if self._is_new(line):
                    yield line.partition(b" ")[2]

    def _is_new(self, line: bytes) -> bool:
        """By its time and text together; the times have nanoseconds."""
        try:
            at_s = int(datetime.fromisoformat(line.partition(b" ")[0].decode()).timestamp())
        except ValueError:
            return False
        if line in self._seen.get(at_s, ()):
            return False
        self._seen.setdefault(at_s, set()).add(line)
        if at_s > self._latest_s:
            self._latest_s = at_s
            for old in [one for one in self._seen if one < at_s - 2 * BACK_S]:
                del self._seen[old]
        return True
