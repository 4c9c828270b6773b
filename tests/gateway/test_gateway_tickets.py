"""The gateway used in the process: tickets, the line, retries, failures."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest
from prometheus_client import CollectorRegistry

from inference.pool import Pool
from tests.inference.servers import (
    LONG_ANSWER,
    PATIENCE_S,
    ROLE,
    STEADY,
    STORY,
    STREAM_END,
    STREAM_HEAD,
    chunk,
    engine,
    event,
    scripted,
    serving,
    until,
    whole,
)
from webapp.gateway.errors import Failed, NoReplica, QueueFull, Refused
from webapp.gateway.gateway import Gateway
from webapp.gateway.line import Limits
from webapp.gateway.metrics import Metrics

BODY = {"messages": STORY}
UNREACHABLE = "http://127.0.0.1:9"
HI = chunk(ROLE) + chunk(event(content="Hi")) + chunk(b"data: [DONE]\n\n") + STREAM_END


class Counted(Gateway):
    """A gateway whose metrics can be read."""

    def __init__(self, pool: Pool, limits: Limits | None = None) -> None:
        self.registry = CollectorRegistry()
        super().__init__(pool, Metrics(self.registry), limits)

    def value(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"crowdspike_gateway_{name}", labels) or 0.0


@asynccontextmanager
async def gateway_to(*urls: str, limits: Limits | None = None):
    pool = Pool(urls, check_every_s=0.02)
    await pool.start()
    try:
        yield Counted(pool, limits)
    finally:
        await pool.close()


async def text_of(ticket) -> str:
    return "".join([delta async for delta in ticket.deltas()])


async def greet(reader, writer):
    writer.write(STREAM_HEAD + HI)
    await writer.drain()


async def hold(reader, writer):
    """Headers and the role, then nothing, until the other side goes."""
    writer.write(STREAM_HEAD + chunk(ROLE))
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


async def test_deltas_are_the_text_and_the_ticket_tells_how_far_it_is():
    async with serving(engine(STEADY)) as url, gateway_to(url) as gateway:
        ticket = gateway.open({**BODY, "max_tokens": 5}, "audience")
        assert (ticket.state, ticket.position) == ("waiting", 1)
        deltas = ticket.deltas()
        assert await anext(deltas) == "word0"
        assert (ticket.state, ticket.position) == ("streaming", 0)
        assert [delta async for delta in deltas] == [" word1", " word2", " word3", " word4"]
        assert ticket.state == "done"
        assert gateway.value("requests_total", source="audience", status="200") == 1
        assert gateway.value("ttft_seconds_count", source="audience") == 1
        assert gateway.value("in_flight", source="audience") == 0
        assert gateway.pool.replicas[0].in_flight == 0


async def test_model_is_filled_in_where_the_caller_names_none():
    async with scripted(greet) as (url, replica), gateway_to(url) as gateway:
        assert await text_of(gateway.open(BODY, "audience", "my-id")) == "Hi"
    assert json.loads(replica.bodies[0]) == {**BODY, "stream": True, "model": "mistral"}
    assert b"x-request-id: my-id\r\nx-load-source: audience\r\n" in replica.heads[0]


async def test_positions_count_the_older_ones_without_a_token():
    """One seat: the first streams, the others stand in line and move up one by one."""
    async with serving(engine(STEADY, max_num_seqs=1)) as url, gateway_to(url) as gateway:
        tickets = [gateway.open(BODY, "audience") for _ in range(4)]
        assert [t.position for t in tickets] == [1, 2, 3, 4]
        first = tickets[0].deltas()
        await anext(first)
        assert [t.position for t in tickets] == [0, 1, 2, 3]
        streams = []
        for ticket in tickets[1:]:
            stream = ticket.deltas()
            streams.append((stream, asyncio.create_task(anext(stream))))
            in_flight = 1 + len(streams)
            await until(lambda n=in_flight: gateway.pool.replicas[0].in_flight == n)
            await until(lambda n=len(streams): gateway.pool.replicas[0].waiting == n)
        await tickets[2].aclose()  # the one in the middle gives up
        assert [t.position for t in tickets] == [0, 1, 0, 2]
        await first.aclose()
        await streams[0][1]
        assert [t.position for t in tickets] == [0, 0, 0, 1]
        assert not streams[2][1].done()
        await tickets[1].aclose()
        await streams[2][1]
        assert [t.state for t in tickets] == ["failed", "failed", "failed", "streaming"]
        await tickets[3].aclose()
        with pytest.raises(StopAsyncIteration):
            await streams[1][1]


@pytest.mark.parametrize("how", ["aclose", "generator", "cancel"])
async def test_leaving_mid_stream_empties_the_replica(how):
    replica = engine(STEADY)
    async with serving(replica) as url, gateway_to(url) as gateway:
        ticket = gateway.open(BODY, "audience")
        deltas = ticket.deltas()
        await anext(deltas)
        assert replica.seats.running == 1
        if how == "aclose":
            await ticket.aclose()
            assert [delta async for delta in deltas] == []
        elif how == "generator":
            await deltas.aclose()
        else:
            task = asyncio.create_task(text_of_rest(deltas))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert task.cancelled()
        await until(lambda: replica.seats.running == 0)
        assert gateway.value("requests_total", source="audience", status="499") == 1
        assert gateway.pool.replicas[0].in_flight == 0


async def text_of_rest(deltas) -> str:
    return "".join([delta async for delta in deltas])


@pytest.mark.parametrize("how", ["aclose", "cancel"])
async def test_leaving_before_the_first_token_empties_the_line(how):
    async with scripted(hold) as (url, replica), gateway_to(url) as gateway:
        ticket = gateway.open(BODY, "audience")
        task = asyncio.create_task(text_of(ticket))
        await until(lambda: replica.posts == 1)
        if how == "aclose":
            await ticket.aclose()
            assert await task == ""  # ends early, nobody cancelled the reader
        else:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert task.cancelled()
        assert (ticket.position, ticket.state) == (0, "failed")
        assert gateway.open(BODY, "audience").position == 1


async def test_closing_while_no_replica_is_ready_ends_the_wait():
    async with gateway_to(UNREACHABLE) as gateway:
        ticket = gateway.open(BODY, "audience")
        task = asyncio.create_task(text_of(ticket))
        await until(lambda: gateway.value("waiting") == 1)
        await ticket.aclose()
        assert await task == ""
        assert gateway.value("waiting") == 0
        assert await text_of(ticket) == ""


@pytest.mark.parametrize("script", [break_before_token, answer(500), answer(503)])
async def test_failure_before_the_first_token_goes_to_another_replica(script):
    async with scripted(script) as (bad, failing), scripted(greet) as (good, _), gateway_to(bad, good) as gateway:
        gateway.pool.replicas[1].in_flight = 5  # so that the failing one comes first
        assert await text_of(gateway.open(BODY, "k6")) == "Hi"
        assert failing.posts == 1
        assert gateway.value("retries_total") == 1
        assert gateway.value("requests_total", source="k6", status="200") == 1


async def test_replica_that_cannot_be_reached_is_unready_at_once_and_another_serves():
    async with scripted(greet) as (good, _), gateway_to(UNREACHABLE, good) as gateway:
        dead, live = gateway.pool.replicas
        live.in_flight = 5
        dead.ready = True  # as it was until a moment ago
        assert await text_of(gateway.open(BODY, "api")) == "Hi"
        assert not dead.ready


async def test_retries_end_after_two():
    async with (
        scripted(break_before_token) as (a, one),
        scripted(break_before_token) as (b, two),
        scripted(break_before_token) as (c, three),
        scripted(break_before_token) as (d, four),
        gateway_to(a, b, c, d) as gateway,
    ):
        with pytest.raises(Failed) as caught:
            await text_of(gateway.open(BODY, "api"))
        assert caught.value.status == 502
        assert sorted(r.posts for r in (one, two, three, four)) == [0, 1, 1, 1]


@pytest.mark.parametrize("status", [400, 404, 429])
async def test_refusal_is_never_retried(status):
    fields = [b"retry-after: 7"] if status == 429 else []
    async with (
        scripted(answer(status, *fields)) as (a, one),
        scripted(answer(status, *fields)) as (b, two),
        gateway_to(a, b) as gateway,
    ):
        with pytest.raises(Refused) as caught:
            await text_of(gateway.open(BODY, "api"))
        error = caught.value
        assert (error.status, error.message, error.type) == (status, "said so", "Kind")
        assert error.retry_after_s == (7 if status == 429 else None)
        assert one.posts + two.posts == 1
        assert gateway.pool.ready_count == 2


async def test_only_replica_that_answers_5xx_is_not_asked_twice():
    async with scripted(answer(500)) as (url, replica), gateway_to(url) as gateway:
        with pytest.raises(Failed, match="said so"):
            await text_of(gateway.open(BODY, "api"))
        assert replica.posts == 1


@pytest.mark.parametrize(("code", "kind"), [(400, Refused), (500, Failed)])
async def test_error_event_before_the_first_token_is_an_error_not_a_token(code, kind):
    async def script(reader, writer):
        writer.write(STREAM_HEAD + chunk(ROLE + b'data: {"error":{"message":"no","code":%d}}\n\n' % code))
        await writer.drain()

    async with scripted(script) as (url, _), gateway_to(url) as gateway:
        with pytest.raises(kind) as caught:
            await text_of(gateway.open(BODY, "api"))
        assert caught.value.status == code


async def test_failure_after_a_token_is_raised_and_never_retried():
    async with (
        scripted(break_after_token) as (a, one),
        scripted(break_after_token) as (b, two),
        gateway_to(a, b) as gateway,
    ):
        deltas = gateway.open(BODY, "audience").deltas()
        assert await anext(deltas) == "Hi"
        with pytest.raises(Failed):
            await anext(deltas)
        assert one.posts + two.posts == 1
        assert gateway.value("retries_total") == 0
        assert gateway.value("requests_total", source="audience", status="502") == 1


async def test_stream_that_ends_without_done_is_a_failure():
    async def script(reader, writer):
        writer.write(STREAM_HEAD + chunk(event(content="Hi")) + STREAM_END)
        await writer.drain()

    async with scripted(script) as (url, _), gateway_to(url) as gateway:
        with pytest.raises(Failed, match="too early"):
            await text_of(gateway.open(BODY, "api"))


async def test_events_cut_anywhere_give_the_same_text():
    async def script(reader, writer):
        writer.write(STREAM_HEAD)
        whole_stream = ROLE + event(content="Grüße") + event(content=" Welt") + b"data: [DONE]\n\n"
        for i in range(0, len(whole_stream), 7):
            writer.write(chunk(whole_stream[i : i + 7]))
            await writer.drain()
        writer.write(STREAM_END)
        await writer.drain()

    async with scripted(script) as (url, _), gateway_to(url) as gateway:
        assert await text_of(gateway.open(BODY, "api")) == "Grüße Welt"


async def test_without_a_replica_requests_wait_and_are_served_when_one_comes():
    server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    async with gateway_to(f"http://127.0.0.1:{port}") as gateway:
        tickets = [gateway.open({**BODY, "max_tokens": 1}, "audience") for _ in range(3)]
        reading = [asyncio.create_task(text_of(ticket)) for ticket in tickets]
        await until(lambda: gateway.value("waiting") == 3)
        assert [(t.state, t.position) for t in tickets] == [("warming", 1), ("warming", 2), ("warming", 3)]
        assert gateway.value("replicas_ready") == 0
        async with serving(engine(), port):
            assert await asyncio.wait_for(asyncio.gather(*reading), PATIENCE_S) == ["word0"] * 3
        assert gateway.value("waiting") == 0


async def test_too_long_a_wait_and_too_many_who_wait_get_503():
    async with gateway_to(UNREACHABLE, limits=Limits(max_waiting=1, max_wait_s=0.2)) as gateway:
        waiting = asyncio.create_task(text_of(gateway.open(BODY, "api")))
        await until(lambda: gateway.value("waiting") == 1)
        with pytest.raises(QueueFull) as full:
            await text_of(gateway.open(BODY, "api"))
        with pytest.raises(NoReplica) as late:
            await waiting
        assert full.value.status == late.value.status == 503
        assert full.value.retry_after_s
        assert late.value.retry_after_s
        assert gateway.value("requests_total", source="api", status="503") == 2


async def test_many_streams_over_two_replicas_all_arrive_whole():
    async with serving(engine()) as a, serving(engine()) as b, gateway_to(a, b) as gateway:
        texts = await asyncio.gather(*(text_of(gateway.open({**BODY, "max_tokens": 50}, "k6")) for _ in range(64)))
        assert set(texts) == {LONG_ANSWER[: len(texts[0])]}
        assert [r.in_flight for r in gateway.pool.replicas] == [0, 0]
        assert gateway.open(BODY, "nonsense").source == "api"
