"""Gateways for the tests, in this process and behind real HTTP, and what scripted replicas do to them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prometheus_client import CollectorRegistry

from inference.pool import Pool, Replica
from tests.inference.servers import ROLE, STORY, STREAM_END, STREAM_HEAD, chunk, event, serving, whole
from webapp.gateway.asgi import GatewayApp
from webapp.gateway.connection import Connection
from webapp.gateway.gateway import Gateway
from webapp.gateway.line import Limits
from webapp.gateway.metrics import Metrics
from webapp.gateway.record import Record
from webapp.gateway.ticket import Ticket

BODY = {"messages": STORY}
UNREACHABLE = "http://127.0.0.1:9"
DONE = b"data: [DONE]\n\n"
HI = chunk(ROLE) + chunk(event(content="Hi")) + chunk(DONE) + STREAM_END


class Counted(Gateway):
    """A gateway whose metrics can be read, and the records of what has ended."""

    def __init__(self, pool: Pool, limits: Limits | None = None) -> None:
        self.registry = CollectorRegistry()
        self.records: list[Record] = []
        super().__init__(pool, Metrics(self.registry), limits, [self.records.append])

    def value(self, name: str, **labels: str) -> float:
        """The sum over all samples that have these labels."""
        return sum(
            sample.value
            for family in self.registry.collect()
            for sample in family.samples
            if sample.name == f"crowdspike_gateway_{name}" and labels.items() <= sample.labels.items()
        )

    def is_idle(self) -> bool:
        """Nothing is left of any request."""
        held = any(replica.in_flight or replica.upstream.in_use for replica in self.pool.replicas)
        return not (held or self.waiting or self.value("in_flight"))


@asynccontextmanager
async def gateway_to(*urls: str, limits: Limits | None = None) -> AsyncIterator[Counted]:
    pool = Pool(urls, check_every_s=0.02)
    await pool.start()
    try:
        yield Counted(pool, limits)
    finally:
        await pool.close()


@asynccontextmanager
async def front_of(
    *urls: str, limits: Limits | None = None, http: str | type[asyncio.Protocol] = Connection
) -> AsyncIterator[tuple[str, Counted]]:
    """The URL of a gateway, and the gateway."""
    async with gateway_to(*urls, limits=limits) as gateway, serving(GatewayApp(gateway), http=http) as url:
        yield url, gateway


def busy(replica: Replica, requests: int = 5) -> None:
    """So that another one is picked first."""
    replica.in_flight = requests


async def text_of(ticket: Ticket) -> str:
    return "".join([delta async for delta in ticket.deltas()])


# Scripts.


async def greet(reader, writer):
    writer.write(STREAM_HEAD + HI)
    await writer.drain()


async def hold(reader, writer):
    """Headers and the role, then nothing, until the other side goes."""
    writer.write(STREAM_HEAD + chunk(ROLE))
    await reader.read()


async def say_nothing(reader, writer):
    await reader.read()


async def break_before_token(reader, writer):
    writer.write(STREAM_HEAD + chunk(ROLE))
    await writer.drain()


async def break_after_token(reader, writer):
    writer.write(STREAM_HEAD + chunk(ROLE) + chunk(event(content="Hi") + b"data: {half"))
    await writer.drain()


def answer(status: int, *fields: bytes):
    async def script(reader, writer):
        writer.write(whole(status, b'{"error":{"message":"said so","type":"Kind","code":%d}}' % status, *fields))
        await writer.drain()

    return script
