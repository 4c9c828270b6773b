"""The gateway over HTTP for the tests: with or without keys, and what was counted."""

import asyncio
from contextlib import asynccontextmanager

import httpx
from prometheus_client import CollectorRegistry

from inference.pool import Pool
from tests.inference.servers import STORY, serving
from webapp.gateway import keys
from webapp.gateway.asgi import GatewayApp
from webapp.gateway.gateway import Gateway
from webapp.gateway.keys import Keyring
from webapp.gateway.line import Limits
from webapp.gateway.metrics import Metrics
from webapp.gateway.quota import Quota
from webapp.log.memory import MemoryStore

CHAT = "/v1/chat/completions"
BODY = {"model": "mistral", "messages": STORY}
STREAM = {**BODY, "stream": True}
UNREACHABLE = "http://127.0.0.1:9"


@asynccontextmanager
async def front_of(*urls: str, limits: Limits | None = None, keyring: Keyring | None = None):
    """The gateway's URL, and the gateway. `gateway.ends` has the record of each request that has ended."""
    pool = Pool(urls, check_every_s=0.02)
    await pool.start()
    quota, ends = Quota(), []
    gateway = Gateway(pool, Metrics(CollectorRegistry()), limits, [quota.charge, ends.append])
    gateway.ends = ends
    try:
        async with serving(GatewayApp(gateway, keys=keyring, quota=quota)) as url:
            yield url, gateway
    finally:
        await pool.close()


@asynccontextmanager
async def keyring_of(**figures: int):
    """A ring with one key, and an Authorization header that has it."""
    store = MemoryStore()
    secret = await keys.add(store, "analyst", 1, **figures)
    ring = Keyring(store)
    await ring.start()
    yield ring, {"authorization": f"Bearer {secret}"}
    await ring.close()


async def raw(url: str, request: bytes) -> bytes:
    """All that the gateway sends until it closes the connection."""
    parts = httpx.URL(url)
    reader, writer = await asyncio.open_connection(parts.host, parts.port)
    writer.write(request)
    try:
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()


def http(url: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, trust_env=False, timeout=10)


def ended(gateway: Gateway, source: str, status: str) -> int:
    return sum(count for (_, *rest), count in gateway.metrics.requests.items() if rest == [source, status])
