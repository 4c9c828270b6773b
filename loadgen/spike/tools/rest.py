"""k6's REST API on 127.0.0.1, as far as one run needs it: is it ready, begin, stop.

https://grafana.com/docs/k6/latest/reference/k6-rest-api/
"""

from __future__ import annotations

import json
from enum import IntEnum

import httpx

TIMEOUT_S = 3.0


class RestFailed(Exception):
    """It did not answer, or refused."""


class Status(IntEnum):
    """How far k6 is; the numbers are its own."""

    WAITING = 4
    RUNNING = 7


class Rest:
    """One k6 at `address` (`host:port`)."""

    def __init__(self, address: str) -> None:
        self._url = f"http://{address}/v1/status"

    async def waits(self) -> bool:
        """Whether it has loaded all and waits for `begin`. False also while it does not listen yet."""
        try:
            return (await self._call("GET"))["status"] == Status.WAITING
        except RestFailed:
            return False

    async def begin(self) -> None:
        """Raises RestFailed."""
        await self._call("PATCH", paused=False)

    async def stop(self) -> None:
        """Gives up what is under way and ends. Raises RestFailed."""
        await self._call("PATCH", stopped=True)

    async def _call(self, method: str, **attributes: bool) -> dict:
        wish = {"data": {"type": "status", "id": "default", "attributes": attributes}} if attributes else None
        try:
            # No certificates and no proxy: this is the loopback.
            async with httpx.AsyncClient(timeout=TIMEOUT_S, verify=False, trust_env=False) as client:
                answer = await client.request(method, self._url, json=wish)
            if answer.status_code != 200:
                raise RestFailed(f"k6 says {answer.status_code}: {answer.text[:200]}")
            return answer.json()["data"]["attributes"]
        except (httpx.HTTPError, json.JSONDecodeError, KeyError, TypeError) as error:
            raise RestFailed(f"k6 does not answer: {error}") from None
