import asyncio
import socket

import pytest

from inference.pool import Pool, gauge
from inference.upstream import Upstream
from tests.inference.servers import STEADY, engine, serving, until


@pytest.fixture
async def pools():
    made = []

    async def start(*urls: str) -> Pool:
        pool = Pool(urls, check_every_s=0.02)
        made.append(pool)
        await pool.start()
        return pool

    yield start
    for pool in made:
        await pool.close()


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def replicas(pool: Pool, *loads: tuple[int, int]) -> None:
    for replica, (in_flight, waiting) in zip(pool.replicas, loads, strict=True):
        replica.ready, replica.in_flight, replica.waiting = True, in_flight, waiting


async def test_started_pool_knows_who_is_ready_and_what_it_serves(pools):
    async with serving(engine()) as url:
        pool = await pools(url, f"http://127.0.0.1:{free_port()}")
        assert [(r.ready, r.model) for r in pool.replicas] == [(True, "mistral"), (False, None)]
        assert pool.pick() is pool.replicas[0]
        assert (pool.ready_count, pool.models()) == (1, ["mistral"])


async def test_reported_queue_is_scraped(pools):
    replica = engine(STEADY, max_num_seqs=1)
    async with serving(replica) as url:
        pool = await pools(url)
        body = b'{"messages":[{"role":"user","content":"story"}],"stream":true}'
        exchanges = [await Upstream(url).post("/v1/chat/completions", body) for _ in range(3)]
        await until(lambda: (pool.replicas[0].running, pool.replicas[0].waiting) == (1, 2))
        for exchange in exchanges:
            exchange.close()
        await until(lambda: (pool.replicas[0].running, pool.replicas[0].waiting) == (0, 0))


async def test_server_without_health_and_metrics_is_ready_when_it_lists_models(pools):
    async def app(scope, receive, send):
        status, body = (200, b'{"data":[{"id":"other"}]}') if scope["path"] == "/v1/models" else (404, b"{}")
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": body})

    async with serving(app) as url:
        pool = await pools(url)
        assert [(r.ready, r.model, r.waiting) for r in pool.replicas] == [(True, "other", 0)]


async def test_unhealthy_server_is_not_ready(pools):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 503, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async with serving(app) as url:
        pool = await pools(url)
        assert pool.pick() is None


async def test_replica_that_goes_is_unready_and_ready_again_when_it_is_back(pools):
    port = free_port()
    async with serving(engine(), port):
        pool = await pools(f"http://127.0.0.1:{port}")
        assert pool.ready_count == 1
    await until(lambda: pool.ready_count == 0)
    waiting = asyncio.create_task(pool.wait_ready())
    async with serving(engine(), port):
        await asyncio.wait_for(waiting, 5)
        assert pool.pick() is pool.replicas[0]


async def test_least_loaded_ready_replica_is_picked():
    pool = Pool([f"http://r{i}" for i in range(4)])
    assert pool.pick() is None
    replicas(pool, (2, 0), (1, 3), (0, 1), (0, 0))
    pool.mark_unready(pool.replicas[3])
    assert pool.pick() is pool.replicas[2]


async def test_ties_are_spread():
    pool = Pool([f"http://r{i}" for i in range(3)])
    replicas(pool, (1, 0), (0, 1), (2, 0))
    assert {pool.pick() for _ in range(200)} == {pool.replicas[0], pool.replicas[1]}


async def test_avoided_replica_is_taken_only_when_alone():
    pool = Pool(["http://a", "http://b"])
    replicas(pool, (0, 0), (9, 0))
    first, second = pool.replicas
    assert pool.pick(avoid={first}) is second
    assert pool.pick(avoid={first, second}) is first


async def test_one_that_stalls_delays_no_other(pools):
    stalled = asyncio.Event()

    async def stall(reader, writer):
        stalled.set()
        await reader.read()

    server = await asyncio.start_server(stall, "127.0.0.1", 0)
    stalling = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with serving(engine()) as url:
        pool = Pool([stalling, url], check_every_s=0.02)
        starting = asyncio.create_task(pool.start())
        await stalled.wait()
        await until(lambda: pool.ready_count == 1)
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        await pool.close()
    server.close()


def test_gauge_sums_over_labels_and_ignores_longer_names():
    text = '# HELP a x\na{x="1"} 2.0\na{x="2"} 3.0\na_by_reason{x="1"} 9.0\nb 1e2\n'
    assert (gauge(text, "a"), gauge(text, "b"), gauge(text, "c")) == (5, 100, 0)


@pytest.mark.parametrize("body", [b"", b"[]", b'{"data":[]}', b'{"data":[{}]}'])
async def test_odd_list_of_models_leaves_the_name_open(pools, body):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    async with serving(app) as url:
        pool = await pools(url)
        assert [(r.ready, r.model) for r in pool.replicas] == [(True, None)]
