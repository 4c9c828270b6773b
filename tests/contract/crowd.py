"""Requests that run side by side on the server under contract, and what it reports of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx

from tests.contract.metrics import values
from tests.contract.requests import PROMPT, TEXT_PATH

LONG = {"model": "mistral", "prompt": PROMPT, "max_tokens": 1000, "ignore_eos": True}
WITHIN_S = 60.0  # a hang is a failure; how long it takes is none


class Crowd:
    """Callers that ask for 1,000 tokens each and never come to their end."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client
        self._callers: list[asyncio.Task[None]] = []

    def join(self, count: int, stream: bool = True) -> None:
        self._callers += [asyncio.create_task(self._call(stream)) for _ in range(count)]

    async def leave(self, count: int) -> None:
        """The first `count` callers close their connections."""
        leaving, self._callers = self._callers[:count], self._callers[count:]
        for caller in leaving:
            caller.cancel()
        await asyncio.gather(*leaving, return_exceptions=True)

    async def leave_all(self) -> None:
        await self.leave(len(self._callers))

    async def values(self) -> Mapping[str, float]:
        return values((await self.client.get("/metrics")).text)

    async def wait(self, reached: Callable[[Mapping[str, float]], Any]) -> Mapping[str, float]:
        """The server's figures once they are as `reached` says. Raises TimeoutError."""
        async with asyncio.timeout(WITHIN_S):
            while True:
                if reached(figures := await self.values()):
                    return figures
                await asyncio.sleep(0.02)

    async def wait_load(self, running: int, waiting: int) -> Mapping[str, float]:
        return await self.wait(lambda v: (v["num_requests_running"], v["num_requests_waiting"]) == (running, waiting))

    async def _call(self, stream: bool) -> None:
        async with self.client.stream("POST", TEXT_PATH, json={**LONG, "stream": stream}) as response:
            async for _ in response.aiter_raw():
                pass


@asynccontextmanager
async def crowd(url: str) -> AsyncIterator[Crowd]:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=WITHIN_S, limits=limits) as client:
        callers = Crowd(client)
        try:
            yield callers
        finally:
            await callers.leave_all()
            await callers.wait_load(running=0, waiting=0)
