import asyncio

import pytest

from inference.pool import Pool, back_off, gauge
from inference.upstream import Upstream
from tests.inference.servers import STEADY, STREAM_HEAD, chunk, engine, free_port, scripted, serving, until


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


def replicas(pool: Pool, *loads: tuple[int, int]) -> None:
    """Ready, with so many requests of ours and of others."""
    for replica, (in_flight, others) in zip(pool.replicas, loads, strict=True):
        replica.ready, replica.in_flight, replica.others = True, in_flight, others


def app(paths: dict[str, tuple[int, bytes]]):
    """Answers those paths, the others with 404."""

    async def answer(scope, receive, send):
        status, body = paths.get(scope["path"], (404, b""))
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": body})

    return answer


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
    async with serving(app({"/v1/models": (200, b'{"data":[{"id":"other"},{"id":"adapter"}]}')})) as url:
        pool = await pools(url)
        assert [(r.ready, r.model, r.waiting) for r in pool.replicas] == [(True, "other", 0)]
        assert pool.models() == ["adapter", "other"]


@pytest.mark.parametrize("status", [500, 503])
async def test_unhealthy_server_is_not_ready(pools, status):
    async with serving(app({"/health": (status, b"")})) as url:
        pool = await pools(url)
        assert pool.pick() is None


async def test_replica_that_goes_is_unready_and_ready_again_when_it_is_back(pools):
    port = free_port()
    async with serving(engine(), port):
        pool = await pools(f"http://127.0.0.1:{port}")
        assert pool.ready_count == 1
    await until(lambda: pool.ready_count == 0)
    came = asyncio.Event()
    pool.on_room.append(came.set)
    async with serving(engine(), port):
        await asyncio.wait_for(came.wait(), 10)
        assert pool.pick() is pool.replicas[0]


async def test_others_requests_count_and_our_own_only_once(pools):
    """Three of another gateway's wait there, and two of ours, which it reports as well."""
    async with serving(engine(STEADY, max_num_seqs=1)) as url:
        pool = await pools(url)
        (replica,) = pool.replicas
        replica.in_flight = 2
        body = b'{"messages":[{"role":"user","content":"story"}],"stream":true}'
        exchanges = [await Upstream(url).post("/v1/chat/completions", body) for _ in range(5)]
        await until(lambda: replica.running + replica.waiting == 5)
        assert (replica.others, replica.load) == (3, 5)
        replica.in_flight = 9  # more since then
        assert replica.load == 12
        for exchange in exchanges:
            exchange.close()


async def test_check_that_takes_too_long_counts_only_from_the_second_on_and_not_while_bytes_come():
    """Its health answers once and then never; meanwhile it streams, then it no longer does."""
    streaming, stalled = asyncio.Event(), 0

    async def handle(reader, writer):
        nonlocal stalled
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"POST"):
            writer.write(STREAM_HEAD)
            while not streaming.is_set():
                writer.write(chunk(b"x"))
                await asyncio.sleep(0.01)
        elif head.startswith(b"GET /health"):
            stalled += 1
            if stalled > 1:
                await reader.read()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    pool = Pool([url], check_every_s=0.02, check_timeout_s=0.1)
    await pool.start()
    (replica,) = pool.replicas
    exchange = await replica.upstream.post("/", b"{}")
    reading = asyncio.create_task(exchange.read())
    await until(lambda: stalled >= 5)
    assert (replica.ready, replica.timeouts) == (True, 0)
    streaming.set()
    exchange.close()
    await asyncio.gather(reading, return_exceptions=True)
    await until(lambda: not replica.ready)
    assert replica.timeouts == 2
    await pool.close()
    server.close()


async def test_scrape_that_hangs_is_no_illness_and_its_figures_are_dropped():
    hang = asyncio.Event()
    figures = b"vllm:num_requests_running 3\nvllm:num_requests_waiting 4\n"

    async def replica_app(scope, receive, send):
        if scope["path"] == "/metrics" and hang.is_set():
            await receive()
            await receive()
            return
        await app({"/health": (200, b""), "/v1/models": (200, b"{}"), "/metrics": (200, figures)})(scope, receive, send)

    async with serving(replica_app) as url:
        pool = Pool([url], check_every_s=0.02, check_timeout_s=0.1, stale_after_s=0.3)
        await pool.start()
        (replica,) = pool.replicas
        await until(lambda: (replica.running, replica.waiting, replica.others) == (3, 4, 7))
        hang.set()
        await until(lambda: (replica.running, replica.waiting, replica.others) == (0, 0, 0))
        assert replica.ready
        await pool.close()


async def test_figures_that_are_none_are_passed_over(pools):
    metrics = b'vllm:num_requests_running NaN\nvllm:num_requests_waiting{a="1"} much\n'
    async with serving(app({"/health": (200, b""), "/v1/models": (200, b"{}"), "/metrics": (200, metrics)})) as url:
        pool = await pools(url)
        assert pool.ready_count == 1
        assert pool.replicas[0].load == 0


def test_failing_replica_is_asked_less_and_less_often():
    assert [back_off(n) for n in range(1, 8)] == [0.5, 1, 2, 4, 5, 5, 5]
    assert back_off(2000) == 5


async def test_set_checks_what_is_new_at_once_and_keeps_what_stays():
    async with serving(engine()) as a, serving(engine()) as b, serving(engine()) as c:
        pool = Pool([a, b], check_every_s=3600)
        await pool.start()
        first, second = pool.replicas
        pool.set([b, c, c])
        assert pool.urls == [b, c]
        assert pool.replicas[0] is second
        await until(lambda: pool.ready_count == 2)
        assert not first.ready
        pool.remove(b)
        pool.add(a)
        assert pool.urls == [c, a]
        await until(lambda: pool.ready_count == 2)
        pool.set([])
        assert pool.pick() is None
        await pool.close()


async def test_request_on_a_replica_that_is_removed_goes_on_and_its_connection_closes_after_it():
    go_on, closed = asyncio.Event(), asyncio.Event()

    async def script(reader, writer):
        writer.write(STREAM_HEAD + chunk(b"one"))
        await go_on.wait()
        writer.write(chunk(b"two") + b"0\r\n\r\n")
        await reader.read()
        closed.set()

    async with scripted(script) as (url, _):
        pool = Pool([url])
        await pool.start()
        (replica,) = pool.replicas
        exchange = await replica.upstream.post("/", b"{}")
        assert await exchange.chunk() == b"one"
        pool.remove(url)
        assert pool.replicas == ()
        go_on.set()
        assert await exchange.read() == b"two"
        exchange.close()
        await asyncio.wait_for(closed.wait(), 10)
        assert replica.upstream.in_use == 0
        await pool.close()


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


async def test_full_replicas_are_not_picked():
    pool = Pool(["http://a", "http://b", "http://c"])
    replicas(pool, (2, 0), (1, 9), (0, 0))
    first, second, third = pool.replicas
    third.refusals = 1
    assert pool.pick(limit=2) is second
    assert pool.pick(limit=1) is None
    third.refusals = 0
    assert pool.pick(limit=1) is third
    third.in_flight = 1
    assert pool.pick(avoid={first, second}, limit=1) is None  # there is another, and it is worth waiting for


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
    text = b'# HELP a x\na{x="1"} 2.0\na{x="2"} 3.0\na_by_reason{x="1"} 9.0\nb 1e2\n'
    assert (gauge(text, b"a"), gauge(text, b"b"), gauge(text, b"c")) == (5, 100, 0)
    assert gauge(b"b 7", b"b") == 7


@pytest.mark.parametrize("body", [b"", b"[]", b'{"data":[]}', b'{"data":[{}]}'])
async def test_odd_list_of_models_leaves_the_name_open(pools, body):
    async with serving(app({"/v1/models": (200, body)})) as url:
        pool = await pools(url)
        assert [(r.ready, r.model) for r in pool.replicas] == [(True, None)]
