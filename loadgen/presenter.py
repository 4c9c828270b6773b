"""The presenter's calls, for scripts: make a room, move it on, read what it collected."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager

from loadgen.http import Answer, Client

_POLLS = re.compile(rb"^crowdspike_state_polls_total (\S+)", re.MULTILINE)


class CallFailed(Exception):
    """The server did not do it; the text has its answer."""


class Presenter:
    """Raises CallFailed, or Lost when no answer comes."""

    def __init__(self, servers: Sequence[str], token: str) -> None:
        self._servers = servers
        self._client = Client(servers, timeout_s=30.0)
        self._headers = {"authorization": f"Bearer {token}", "accept": "application/json"}

    async def make_room(self, talk: int = 0) -> str:
        """The new room's code."""
        return json.loads((await self._post("/present/rooms", {"talk": str(talk)})).body)["code"]

    async def control(self, code: str, action: str, **more: str) -> int:
        """Carries out an action; the room's version after it."""
        return json.loads((await self._post(f"/present/{code}/control", {"action": action, **more})).body)["version"]

    async def steer(self, code: str, action: str, **more: object) -> str:
        """Does something to the cluster, and what it says to that."""
        return json.loads((await self._post(f"/present/{code}/cluster", {"action": action, **more})).body)["said"]

    async def state(self, code: str) -> dict:
        return json.loads((await self._get(f"/r/{code}/state")).body)

    @asynccontextmanager
    async def screens_open(self, code: str) -> AsyncIterator[None]:
        """Stage and console, each on a screen: they follow the room and fetch themselves anew when it changes."""
        tasks = [asyncio.create_task(self._follow(f"/{page}/{code}")) for page in ("stage", "present")]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            for outcome in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(outcome, Exception):
                    raise outcome

    async def _follow(self, page: str) -> None:
        client = Client(self._servers)
        async with aclosing(client.events(f"{page}/events", self._headers)) as events:
            async for event in events:
                if event.name == "changed":
                    _good(await client.request("GET", f"{page}/screen", self._headers), page)

    async def export(self, code: str) -> list[dict]:
        """Every response of the room, the oldest first."""
        answer = await self._get(f"/api/rooms/{code}/export?format=jsonl")
        return [json.loads(line) for line in answer.body.splitlines()]

    async def state_polls(self) -> int:
        """How many state polls have reached this server, by its own count."""
        found = _POLLS.search(await self.metrics())
        assert found, "the server has no counter of state polls"
        return int(float(found[1]))

    async def metrics(self) -> bytes:
        """This server's page of metrics."""
        return (await self._get("/metrics")).body

    def close(self) -> None:
        self._client.close()

    async def _get(self, path: str) -> Answer:
        return _good(await self._client.request("GET", path, self._headers), path)

    async def _post(self, path: str, body: dict) -> Answer:
        headers = {**self._headers, "content-type": "application/json"}
        return _good(await self._client.request("POST", path, headers, json.dumps(body).encode()), path)


def _good(answer: Answer, path: str) -> Answer:
    if answer.status >= 300:
        raise CallFailed(f"{path}: {answer.status} {answer.body[:300].decode(errors='replace')}")
    return answer
