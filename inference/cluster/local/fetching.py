"""One GET to a pod, with a bound on its time."""

from __future__ import annotations

import asyncio

from inference.upstream import Upstream


async def fetch(upstream: Upstream, path: str, timeout_s: float) -> tuple[int, bytes]:
    """Status and body. Raises UpstreamError and TimeoutError."""
    async with asyncio.timeout(timeout_s):
        exchange = await upstream.get(path)
        try:
            return exchange.status, await exchange.read()
        finally:
            exchange.close()
