"""The gateway used in the process: what a ticket says, how it ends. Retries and the waiting room: see their files."""

import asyncio
import json

import pytest

from tests.gateway.gateways import (
    BODY,
    UNREACHABLE,
    break_after_token,
    gateway_to,
    greet,
    hold,
    text_of,
)
from tests.inference.servers import (
    LONG_ANSWER,
    PATIENCE_S,
    ROLE,
    STEADY,
    STREAM_END,
    STREAM_HEAD,
    chunk,
    engine,
    event,
    free_port,
    scripted,
    serving,
    until,
)
from webapp.gateway.errors import Failed


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
    assert json.loads(replica.bodies[0]) == {
        **BODY,
        "stream": True,
        "stream_options": {"include_usage": True},
        "model": "mistral",
    }
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
        assert replica.running == 1
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
        await until(lambda: replica.running == 0)
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
    port = free_port()
    async with gateway_to(f"http://127.0.0.1:{port}") as gateway:
        tickets = [gateway.open({**BODY, "max_tokens": 1}, "audience") for _ in range(3)]
        reading = [asyncio.create_task(text_of(ticket)) for ticket in tickets]
        await until(lambda: gateway.value("waiting") == 3)
        assert [(t.state, t.position) for t in tickets] == [("warming", 1), ("warming", 2), ("warming", 3)]
        assert gateway.value("replicas_ready") == 0
        async with serving(engine(), port):
            assert await asyncio.wait_for(asyncio.gather(*reading), PATIENCE_S) == ["word0"] * 3
        assert gateway.value("waiting") == 0


async def test_many_streams_over_two_replicas_all_arrive_whole():
    async with serving(engine()) as a, serving(engine()) as b, gateway_to(a, b) as gateway:
        texts = await asyncio.gather(*(text_of(gateway.open({**BODY, "max_tokens": 50}, "k6")) for _ in range(64)))
        assert set(texts) == {LONG_ANSWER[: len(texts[0])]}
        assert [r.in_flight for r in gateway.pool.replicas] == [0, 0]
        assert gateway.open(BODY, "nonsense").source == "api"
