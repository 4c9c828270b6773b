"""Clients that leave at any moment, and clients that do not read: what they leave behind here and on the replica."""

import asyncio
import json
import random
import socket
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import urlsplit

import pytest

from inference.pool import gauge
from inference.upstream import Upstream
from tests.gateway.gateways import BODY, DONE, UNREACHABLE, front_of, gateway_to, hold, say_nothing, text_of
from tests.inference.servers import (
    STREAM_END,
    STREAM_HEAD,
    chunk,
    engine_process,
    event,
    get,
    profile_file,
    scripted,
    until,
)
from webapp.gateway.connection import Connection
from webapp.gateway.line import Limits
from webapp.gateway.ticket import CHAT

SEED = 20261121


def request(stream: bool, **fields) -> bytes:
    body = json.dumps({**BODY, "stream": stream, **fields}).encode()
    return b"POST %s HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % (CHAT.encode(), len(body)) + body


@asynccontextmanager
async def client(url: str, stream: bool = True, **fields):
    """A connection on which the request has been sent; it is dropped at the end."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(request(stream, **fields))
    try:
        yield reader
    finally:
        writer.transport.abort()


async def figures(url: str) -> tuple[int, int]:
    """Running and waiting, as the replica reports them."""
    _, page = await get(url, "/metrics")
    return gauge(page, b"vllm:num_requests_running"), gauge(page, b"vllm:num_requests_waiting")


async def reports(url: str, running: int, waiting: int) -> None:
    async with asyncio.timeout(10):
        while await figures(url) != (running, waiting):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("stream", [True, False])
async def test_client_that_leaves_is_gone_from_the_replica_whether_it_runs_or_waits_there(tmp_path, stream):
    profile = profile_file(tmp_path, step_base_ms=20)
    wish = {"max_tokens": 1000, "ignore_eos": True}
    async with (
        engine_process("--profile", profile, "--max-num-seqs", "1") as replica,
        front_of(replica.url) as (url, gateway),
    ):
        async with client(url, stream, **wish), client(url, stream, **wish):
            await reports(replica.url, running=1, waiting=1)
        await reports(replica.url, running=0, waiting=0)
        await until(gateway.is_idle)
        assert gateway.value("requests_total", status="499") == 2


async def token_and_silence(reader, writer):
    writer.write(STREAM_HEAD + chunk(event(content="Hi")))
    await reader.read()


async def half_a_body(reader, writer):
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{")
    await reader.read()


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("phase", [say_nothing, hold, token_and_silence, half_a_body])
@pytest.mark.parametrize("http", [Connection, "httptools", "h11"])
async def test_client_that_leaves_is_told_to_the_replica_in_every_phase_whatever_the_server_speaks(phase, stream, http):
    gone = asyncio.Event()

    async def script(reader, writer):
        await phase(reader, writer)  # returns when the other side has gone
        gone.set()

    async with scripted(script) as (replica_url, replica), front_of(replica_url, http=http) as (url, gateway):
        async with client(url, stream):
            await until(lambda: replica.posts == 1)
        await asyncio.wait_for(gone.wait(), 10)
        await until(gateway.is_idle)
        assert gateway.records[0].status == 499


async def test_client_that_leaves_the_waiting_room_frees_its_place():
    async with front_of(UNREACHABLE) as (url, gateway):
        async with client(url):
            await until(lambda: gateway.waiting == 1)
        await until(gateway.is_idle)
        assert gateway.open(BODY, "api").position == 1


async def test_client_that_leaves_while_the_connection_is_made_frees_its_place():
    """A replica whose accept queue is full: the kernel does not answer one more."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        async with AsyncExitStack() as stack:
            for _ in range(4):
                waiting = stack.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(address)
            async with gateway_to() as gateway:
                gateway.pool.add(f"http://{address[0]}:{address[1]}")
                (replica,) = gateway.pool.replicas
                replica.ready = True
                task = asyncio.create_task(text_of(gateway.open(BODY, "api")))
                await until(lambda: replica.in_flight == 1)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                assert gateway.is_idle()


async def test_1000_clients_that_leave_at_random_moments_leave_nothing_behind(tmp_path):
    chance = random.Random(SEED)
    profile = profile_file(tmp_path, step_base_ms=2)
    async with engine_process("--profile", profile, "--max-num-seqs", "16") as replica:
        limits = Limits(max_in_flight_per_replica=48)
        async with front_of(replica.url, limits=limits) as (url, gateway):
            async with client(url, max_tokens=1) as reader:
                await reader.readuntil(b"[DONE]")
            await until(gateway.is_idle)
            tasks_before = len(asyncio.all_tasks())

            async def come_and_leave() -> None:
                async with client(url, chance.random() < 0.7, max_tokens=chance.randint(1, 200)) as reader:
                    stay_s = chance.expovariate(1 / 0.15)
                    try:
                        async with asyncio.timeout(stay_s):
                            await reader.read()  # the connection is kept alive: this ends with the time alone
                    except TimeoutError:
                        pass

            for _ in range(10):
                await asyncio.gather(*(come_and_leave() for _ in range(100)))
            await until(gateway.is_idle)
            await reports(replica.url, running=0, waiting=0)
            await until(lambda: len(asyncio.all_tasks()) <= tasks_before)
            assert len(gateway.records) == gateway.value("requests_total") == 1001
            assert gateway.value("requests_total", status="499") > 0
            assert gateway.value("requests_total", status="200") > 1
            assert gateway.open(BODY, "api").position == 1


class Flood:
    """A script: tokens without end, or `size_bytes` of them. `gone` is set when nobody takes them any more."""

    def __init__(self, size_bytes: float = float("inf")) -> None:
        self.gone = asyncio.Event()
        self._size_bytes = size_bytes

    async def __call__(self, reader, writer):
        writer.write(STREAM_HEAD)
        sent, token = 0, chunk(event(content="x" * 1000))
        try:
            while sent < self._size_bytes:
                writer.write(token)
                sent += len(token)
                await writer.drain()
            await reader.read()
        except ConnectionError:
            pass
        self.gone.set()


@asynccontextmanager
async def one_byte_a_second(url: str):
    """A client with a small window that has sent its request; gives how it is cut off."""
    parts = urlsplit(url)
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, (parts.hostname, parts.port))
        await loop.sock_sendall(sock, request(True))

        async def read() -> int:
            got = 0
            while byte := await loop.sock_recv(sock, 1):
                got += len(byte)
                if not cut.is_set():
                    await asyncio.wait([asyncio.ensure_future(cut.wait())], timeout=1)
            return got

        cut = asyncio.Event()
        reading = asyncio.create_task(read())
        yield reading, cut
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


@pytest.mark.parametrize("http", [Connection, "httptools"])
async def test_client_that_reads_a_byte_a_second_is_ended_and_so_is_its_stream(http):
    flood = Flood()
    async with (
        scripted(flood) as (replica_url, _),
        front_of(replica_url, http=http) as (url, gateway),
        one_byte_a_second(url) as (reading, cut),
    ):
        await asyncio.wait_for(flood.gone.wait(), 20)
        await until(gateway.is_idle)
        assert [(r.status, r.error) for r in gateway.records] == [(499, "slow_reader")]
        if http is Connection:  # another server waits for the client to read what it has written
            cut.set()
            with pytest.raises(ConnectionResetError):
                await asyncio.wait_for(reading, 20)


async def test_client_that_reads_slowly_but_steadily_gets_all_of_it_unchanged():
    """Far more than all buffers hold: the gateway waits for the client, and the replica for the gateway."""
    events = [event(content=f"{i} " + "x" * 1000) for i in range(3000)]

    async def script(reader, writer):
        writer.write(STREAM_HEAD)
        for part in (*events, DONE):
            writer.write(chunk(part))
            await writer.drain()
        writer.write(STREAM_END)
        await writer.drain()

    async with scripted(script) as (replica_url, _), front_of(replica_url) as (url, gateway):
        exchange = await Upstream(url).post(CHAT, json.dumps({**BODY, "stream": True}).encode())
        received = b""
        while part := await exchange.chunk():
            received += part
            await asyncio.sleep(0.001)
        assert received == b"".join(events) + DONE
        assert gateway.records[0].completion_tokens == len(events)
        assert gateway.records[0].status == 200


class Impatient(Connection):
    stalled_after_s = 0.3


async def test_client_that_stops_reading_is_dropped_also_when_no_more_comes():
    """Too much for the sockets, too little for the bound."""
    flood = Flood(size_bytes=500_000)
    async with (
        scripted(flood) as (replica_url, _),
        front_of(replica_url, http=Impatient) as (url, gateway),
        one_byte_a_second(url) as (reading, cut),
    ):
        await asyncio.wait_for(flood.gone.wait(), 20)
        await until(gateway.is_idle)
        assert gateway.records[0].status == 499
        cut.set()
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reading, 20)
