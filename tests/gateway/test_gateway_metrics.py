"""What the gateway says of itself to Prometheus, and the record of each request that it comes from."""

import asyncio

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from tests.gateway.gateways import BODY, DONE, UNREACHABLE, answer, gateway_to, greet, hold, text_of
from tests.inference.servers import (
    ROLE,
    STEADY,
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
from webapp.gateway.errors import GatewayError
from webapp.gateway.gateway import Gateway
from webapp.gateway.line import Limits
from webapp.gateway.metrics import SOURCES
from webapp.gateway.record import Record
from webapp.gateway.ticket import CHAT

USAGE = b'data: {"id":"x","choices":[],"usage":{"prompt_tokens":7,"total_tokens":10,"completion_tokens":3}}\n\n'


def stream(*events: bytes):
    async def script(reader, writer):
        writer.write(STREAM_HEAD + b"".join(chunk(e) for e in events) + STREAM_END)
        await writer.drain()

    return script


async def bytes_of(ticket) -> bytes:
    await ticket.begin()
    parts = []
    while events := await ticket.read():
        parts.append(events)
    return b"".join(parts)


async def test_stream_is_counted_with_the_replicas_own_tokens_and_the_client_does_not_see_that():
    sent = (ROLE, event(content="one two"), event(content=" three"), USAGE, DONE)
    async with scripted(stream(*sent)) as (url, _), gateway_to(url) as gateway:
        assert await bytes_of(gateway.open(dict(BODY, stream=True, model="mistral"), "k6")) == b"".join(
            (ROLE, event(content="one two"), event(content=" three"), DONE)
        )
        labels = {"model": "mistral", "source": "k6"}
        assert gateway.value("requests_total", **labels, status="200") == 1
        assert gateway.value("prompt_tokens_total", **labels) == 7
        assert gateway.value("completion_tokens_total", **labels) == 3
        for name in ("ttft_seconds", "e2e_seconds"):
            assert gateway.value(f"{name}_count", source="k6") == 1
        assert gateway.value("wait_seconds_count") == 1


@pytest.mark.parametrize("options", [{"include_usage": True}, {"include_usage": False}, {}])
async def test_client_that_has_a_wish_about_the_usage_has_it(options):
    async with scripted(stream(ROLE, event(content="Hi"), USAGE, DONE)) as (url, replica), gateway_to(url) as gateway:
        body = dict(BODY, stream=True, model="mistral", stream_options=options)
        assert await bytes_of(gateway.open(body, "api", raw=b"as it came")) == ROLE + event(content="Hi") + USAGE + DONE
        assert replica.bodies == [b"as it came"]
        assert gateway.records[0].completion_tokens == 3


async def test_usage_cut_anywhere_is_taken_out_and_nothing_else_is():
    odd = event(content='say "choices":[] and {"error": "x"} \n\n data: [DONE]')
    whole_stream = ROLE + odd + USAGE + DONE

    async def script(reader, writer):
        writer.write(STREAM_HEAD)
        for i in range(0, len(whole_stream), 5):
            writer.write(chunk(whole_stream[i : i + 5]))
            await writer.drain()
        writer.write(STREAM_END)
        await writer.drain()

    async with scripted(script) as (url, _), gateway_to(url) as gateway:
        assert await bytes_of(gateway.open(dict(BODY, stream=True), "api")) == ROLE + odd + DONE
        assert (gateway.records[0].prompt_tokens, gateway.records[0].completion_tokens) == (7, 3)
        assert gateway.records[0].status == 200


async def test_without_usage_the_events_count():
    events = [event(content=str(i)) for i in range(5)]
    async with scripted(stream(ROLE, *events, DONE)) as (url, _), gateway_to(url) as gateway:
        assert await text_of(gateway.open(BODY, "audience")) == "01234"
        assert gateway.records[0].completion_tokens == 5
        assert gateway.value("completion_tokens_total", source="audience") == 5


async def test_whole_answer_is_counted_from_its_body():
    async def script(reader, writer):
        writer.write(whole(200, b'{"choices":[],"usage":{"prompt_tokens":4,"completion_tokens":9,"total_tokens":13}}'))
        await writer.drain()

    async with scripted(script) as (url, _), gateway_to(url) as gateway:
        await gateway.open(BODY, "batch").begin()
        record = gateway.records[0]
        assert (record.prompt_tokens, record.completion_tokens, record.ttft_s) == (4, 9, None)


async def test_gaps_between_tokens_are_counted_for_each_token_after_the_first():
    async with serving(engine(STEADY)) as url, gateway_to(url) as gateway:
        await text_of(gateway.open({**BODY, "max_tokens": 20}, "locust"))
        assert gateway.records[0].completion_tokens == 20
        assert 1 <= gateway.value("itl_seconds_count", source="locust") <= 19
        assert gateway.value("itl_seconds_sum", source="locust") > 0
        assert gateway.value("itl_seconds_count", source="audience") == 0


async def test_models_that_no_replica_serves_share_one_label():
    async with scripted(answer(404)) as (url, _), gateway_to(url) as gateway:
        for name in ("nope", "x" * 100, {"odd": 1}, None):
            with pytest.raises(GatewayError):
                await gateway.open({**BODY, "model": name}, "api").begin()
        assert gateway.value("requests_total", model="other", status="404") == 3
        assert gateway.value("requests_total", model="mistral", status="404") == 1  # it named none: the replica's


async def test_who_leaves_is_499_and_the_tokens_so_far_count():
    async def script(reader, writer):
        writer.write(STREAM_HEAD + chunk(ROLE) + chunk(event(content="Hi")))
        await reader.read()

    async with scripted(script) as (url, _), gateway_to(url) as gateway:
        ticket = gateway.open(BODY, "audience", "my-id", key="analyst")
        deltas = ticket.deltas()
        assert await anext(deltas) == "Hi"
        assert gateway.value("in_flight", source="audience") == 1
        await deltas.aclose()
        (record,) = gateway.records
        assert (record.status, record.error, record.completion_tokens) == (499, "client_closed_request", 1)
        assert (record.request_id, record.key, record.path, record.model) == ("my-id", "analyst", CHAT, "mistral")
        assert record.replica == url
        assert record.ttft_s is not None
        assert gateway.value("e2e_seconds_count") == 0  # of what was not finished there is no duration
        assert gateway.is_idle()


async def test_waiting_and_replicas_by_state_are_read_when_asked():
    limits = Limits(max_in_flight_per_replica=1)
    async with scripted(hold) as (url, _), gateway_to(url, UNREACHABLE, limits=limits) as gateway:
        assert [gateway.value("replicas", state=s) for s in ("ready", "full", "unready")] == [1, 0, 1]
        tasks = [asyncio.create_task(text_of(gateway.open(BODY, "api"))) for _ in range(3)]
        await until(lambda: gateway.value("waiting") == 2)
        assert [gateway.value("replicas", state=s) for s in ("ready", "full", "unready")] == [0, 1, 1]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert gateway.is_idle()


async def test_what_is_exported_is_valid_and_complete_from_the_start():
    async with scripted(greet) as (url, _), gateway_to(url) as gateway:
        await text_of(gateway.open(BODY, "k6"))
        families = {f.name: f for f in text_string_to_metric_families(generate_latest(gateway.registry).decode())}
        ours = {name.removeprefix("crowdspike_gateway_") for name in families}
        assert ours == {
            *("requests", "prompt_tokens", "completion_tokens", "retries", "in_flight", "waiting"),
            *("replicas", "replicas_ready", "ttft_seconds", "itl_seconds", "e2e_seconds", "wait_seconds"),
        }
        for name in ("in_flight", "ttft_seconds", "itl_seconds", "e2e_seconds"):
            family = families[f"crowdspike_gateway_{name}"]
            assert {sample.labels["source"] for sample in family.samples} == set(SOURCES)


async def test_request_refused_before_it_had_a_ticket_is_counted_and_told():
    told = []
    async with gateway_to(UNREACHABLE) as behind:
        gateway = Gateway(behind.pool, on_end=[told.append])
        record = Record("r", CHAT, "k6", 400, 0.001, error="invalid_request_error")
        gateway.ended(record)
        assert told == [record]
        assert gateway.metrics.requests == {("other", "k6", "400"): 1}
        assert gateway.metrics.wait.count == 0
