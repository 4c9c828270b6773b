"""A fleet that changes, dies or is far too small, under load, over real HTTP."""

import asyncio
import json
import signal
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from inference.discovery import Discovery
from inference.pool import Pool
from inference.upstream import Upstream
from tests.gateway.gateways import BODY, DONE, Counted, front_of
from tests.inference.servers import (
    FAST,
    ROLE,
    STREAM_END,
    STREAM_HEAD,
    chunk,
    engine,
    engine_process,
    event,
    free_port,
    profile_file,
    scripted,
    serving,
    until,
)
from webapp.gateway.asgi import GatewayApp
from webapp.gateway.connection import Connection
from webapp.gateway.line import Limits
from webapp.gateway.ticket import CHAT

STREAM = json.dumps({**BODY, "stream": True}).encode()
HOSTS = ("127.0.0.2", "127.0.0.3", "127.0.0.4")


async def post(front: Upstream, body: bytes = STREAM, request_id: str = "x") -> tuple[int, dict[str, str], bytes]:
    exchange = await front.post(CHAT, body, {"x-request-id": request_id})
    try:
        return exchange.status, exchange.headers, await exchange.read()
    finally:
        exchange.close()


async def slow_greeting(reader, writer):
    writer.write(STREAM_HEAD + chunk(ROLE))
    for word in ("a", "b", "c"):
        await writer.drain()
        await asyncio.sleep(0.01)
        writer.write(chunk(event(content=word)))
    writer.write(chunk(DONE) + STREAM_END)
    await writer.drain()


async def test_dns_answer_that_changes_under_load_fails_no_request():
    known = [HOSTS[0]]

    async def resolve(host: str, port: int) -> list[str]:
        return list(known)

    port = free_port()
    async with AsyncExitStack() as stack:
        replicas = {h: (await stack.enter_async_context(scripted(slow_greeting, h, port)))[1] for h in HOSTS}
        pool = Pool(check_every_s=0.02)
        discovery = Discovery(pool, [f"dns+http://vllm.test:{port}"], resolve=resolve, every_s=0.01)
        await discovery.start()
        await pool.start()
        gateway = Counted(pool)
        url = await stack.enter_async_context(serving(GatewayApp(gateway), http=Connection))
        front, stop, answers = Upstream(url), asyncio.Event(), []

        async def keep_asking() -> None:
            while not stop.is_set():
                answers.append(await post(front))

        askers = [asyncio.create_task(keep_asking()) for _ in range(8)]
        for step in ((0, 1), (1, 2), (2,), (0,), (0, 1, 2), (1,)):
            known[:] = [HOSTS[i] for i in step]
            await until(lambda: pool.urls == [f"http://{h}:{port}" for h in known] and pool.ready_count == len(known))
            before = {h: replicas[h].posts for h in known}
            await until(lambda b=before: all(replicas[h].posts > posts for h, posts in b.items()))
        stop.set()
        await asyncio.gather(*askers)
        assert {status for status, _, _ in answers} == {200}
        assert all(body.endswith(DONE) and body.count(b'"content"') == 4 for _, _, body in answers)
        assert gateway.value("retries_total") == 0
        await discovery.close()
        await pool.close()


async def test_three_of_four_replicas_that_die_at_once_cost_no_request_that_had_no_token(tmp_path):
    profile = profile_file(tmp_path, step_base_ms=3000)
    async with AsyncExitStack() as stack:
        processes = await asyncio.gather(
            *(stack.enter_async_context(engine_process("--profile", profile)) for _ in range(4))
        )
        url, gateway = await stack.enter_async_context(front_of(*(process.url for process in processes)))
        front = Upstream(url)
        body = json.dumps({**BODY, "stream": True, "max_tokens": 1}).encode()
        asking = [asyncio.create_task(post(front, body)) for _ in range(40)]
        await until(lambda: [r.in_flight for r in gateway.pool.replicas] == [10] * 4)
        for process in processes[:3]:
            process.send(signal.SIGKILL)
        answers = await asyncio.gather(*asking)
        assert all(status == 200 and body.endswith(DONE) and b'"error"' not in body for status, _, body in answers)
        await until(lambda: gateway.pool.ready_count == 1)
        assert (await post(front, body))[0] == 200
        assert gateway.is_idle()


class Opened(Counted):
    """Remembers the order in which requests came."""

    def __init__(self, pool: Pool, limits: Limits) -> None:
        super().__init__(pool, limits)
        self.opened: list[str] = []

    def open(self, body, source, request_id=None, **more):
        self.opened.append(request_id)
        return super().open(body, source, request_id, **more)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the memory in use from /proc")
async def test_2000_requests_onto_two_replicas_of_32_are_answered_in_order_or_refused_and_memory_stays_flat():
    limits = Limits(max_waiting=1500, max_in_flight_per_replica=64)
    seen: dict[int, list[str]] = {0: [], 1: []}

    def noting(number: int):
        replica = engine(FAST, max_num_seqs=32)

        async def app(scope, receive, send):
            if scope["method"] == "POST":
                seen[number].append(dict(scope["headers"])[b"x-request-id"].decode())
            await replica(scope, receive, send)

        return app

    async with serving(noting(0)) as a, serving(noting(1)) as b:
        pool = Pool([a, b], check_every_s=0.5)
        await pool.start()
        gateway = Opened(pool, limits)
        async with serving(GatewayApp(gateway), http=Connection) as url:
            body = json.dumps({**BODY, "stream": True, "max_tokens": 3}).encode()
            sizes = []
            for crowd in (2000, 1000):
                front = Upstream(url, connect_timeout_s=60)
                answers = await asyncio.gather(*(post(front, body, f"{crowd}-{i}") for i in range(crowd)))
                front.close()
                sizes.append(resident_bytes())
                by_status = {status: [a for a in answers if a[0] == status] for status, _, _ in answers}
                assert by_status.keys() <= {200, 429}
                assert len(by_status[200]) >= min(crowd, 1500)
                assert all(body.endswith(DONE) and b'"error"' not in body for _, _, body in by_status[200])
                for _, headers, refusal in by_status.get(429, ()):
                    assert int(headers["retry-after"]) > 0
                    assert json.loads(refusal)["error"]["type"] == "overloaded_error"
                rank = {request_id: i for i, request_id in enumerate(gateway.opened)}
                for ids in seen.values():
                    ranks = [rank[i] for i in ids]
                    # Requests granted together may pass each other on their way; nobody passes more than those.
                    place = {at: i for i, at in enumerate(sorted(ranks))}
                    assert all(abs(i - place[at]) < limits.max_in_flight_per_replica for i, at in enumerate(ranks))
                    ids.clear()
                gateway.opened.clear()
                assert gateway.is_idle()
            assert gateway.value("wait_seconds_count") > 1500
            assert sizes[1] - sizes[0] < 40e6
        await pool.close()
