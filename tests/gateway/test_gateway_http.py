"""The gateway over HTTP: what passes, clients that leave, replicas that die."""

import asyncio
import json
import signal

import openai
import pytest
from fastapi import FastAPI
from fronts import BODY, CHAT, STREAM, UNREACHABLE, ended, front_of, http

from inference.pool import Pool
from inference.upstream import Upstream
from tests.inference.servers import (
    ROLE,
    STEADY,
    STREAM_HEAD,
    chunk,
    engine,
    engine_process,
    event,
    profile_file,
    scripted,
    serving,
    until,
)
from webapp.gateway.asgi import GatewayApp
from webapp.gateway.gateway import Gateway
from webapp.gateway.line import Limits

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def hi(reader, writer):
    sent = ROLE + event(content="Hi") + b"data: [DONE]\n\n"
    writer.write(STREAM_HEAD + b"".join(chunk(sent[i : i + 9]) for i in range(0, len(sent), 9)) + b"0\r\n\r\n")
    await writer.drain()


async def test_stream_passes_as_the_replica_sent_it_with_marks_on_it():
    async with scripted(hi) as (replica_url, _), front_of(replica_url) as (url, gateway), http(url) as client:
        body = {**STREAM, "stream_options": {"include_usage": True}}
        answer = await client.post(CHAT, json=body, headers={"X-Load-Source": "k6", "X-Request-Id": "abc-1"})
        assert (answer.status_code, answer.content) == (200, ROLE + event(content="Hi") + b"data: [DONE]\n\n")
        assert answer.headers["content-type"] == "text/event-stream"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-accel-buffering"] == "no"
        assert (answer.headers["x-load-source"], answer.headers["x-request-id"]) == ("k6", "abc-1")
        assert ended(gateway, "k6", "200") == 1


async def test_replica_gets_what_was_checked_and_who_asks():
    async with scripted(hi) as (replica_url, replica), front_of(replica_url) as (url, _), http(url) as client:
        twice = b'{"max_tokens": 9999999, "messages": [{"role": "user", "content": "gr\xc3\xbc\xc3\x9fe \\ud83d"}],'
        twice += b' "stream": true, "extra": [1.5, null], "max_tokens": 7}'
        headers = {"X-Request-Id": "abc-1", "X-Load-Source": "k6", "traceparent": TRACE, "tracestate": "a=1, b@c=2 3"}
        assert (await client.post(CHAT, content=twice, headers=headers)).status_code == 200
        [body], [head] = replica.bodies, replica.heads
        assert body.count(b"max_tokens") == 1
        sent = json.loads(body)
        assert (sent["max_tokens"], sent["extra"], sent["stream"]) == (7, [1.5, None], True)
        assert sent["messages"][0]["content"].startswith("grüße ")
        lines = head.decode().lower().split("\r\n")
        for line in ("x-request-id: abc-1", "x-load-source: k6", f"traceparent: {TRACE}", "tracestate: a=1, b@c=2 3"):
            assert line in lines
        assert not [line for line in lines if line.startswith(("authorization:", "cookie:"))]


@pytest.mark.parametrize(
    "trace",
    [
        [("traceparent", TRACE.upper())],
        [("traceparent", TRACE[:-1])],
        [("traceparent", "ff" + TRACE[2:])],
        [("traceparent", TRACE.replace("0af7651916cd43dd8448eb211c80319c", "0" * 32))],
        [("traceparent", TRACE.replace("b7ad6b7169203331", "0" * 16))],
        [("traceparent", TRACE), ("traceparent", TRACE)],
        [("tracestate", "a=1")],
    ],
)
async def test_trace_that_is_not_well_formed_is_not_passed_on(trace):
    async with scripted(hi) as (replica_url, replica), front_of(replica_url) as (url, _), http(url) as client:
        assert (await client.post(CHAT, json=STREAM, headers=trace)).status_code == 200
        assert b"trace" not in replica.heads[0].lower()


@pytest.mark.parametrize("state", ["a", "a=", "A=1", "a=1,,b=2", "a=b=c", "a=" + "x" * 511, ",".join(["a=1"] * 33), ""])
async def test_tracestate_that_is_not_well_formed_is_dropped_alone(state):
    async with scripted(hi) as (replica_url, replica), front_of(replica_url) as (url, _), http(url) as client:
        headers = {"traceparent": TRACE, "tracestate": state}
        assert (await client.post(CHAT, json=STREAM, headers=headers)).status_code == 200
        assert TRACE.encode() in replica.heads[0]
        assert b"tracestate" not in replica.heads[0].lower()


async def test_nobody_may_claim_to_be_the_audience():
    async with scripted(hi) as (replica_url, _), front_of(replica_url) as (url, gateway), http(url) as client:
        answer = await client.post(CHAT, json=STREAM, headers={"X-Load-Source": "audience"})
        assert answer.headers["x-load-source"] == "api"
        await client.post(CHAT, content=b"{", headers={"X-Load-Source": "audience"})
        assert {record.source for record in gateway.ends} == {"api"}
        for source in ("k6", "locust", "batch", "amplified", "api"):
            answer = await client.post(CHAT, json=STREAM, headers={"X-Load-Source": source})
            assert answer.headers["x-load-source"] == source


async def test_unknown_source_is_api_and_an_unfit_request_id_is_replaced():
    async with serving(engine()) as replica, front_of(replica) as (url, gateway), http(url) as client:
        headers = {"X-Load-Source": "hacker", "X-Request-Id": "a b\t<>"}
        answer = await client.post(CHAT, json={**BODY, "max_tokens": 1}, headers=headers)
        assert answer.headers["x-load-source"] == "api"
        assert answer.headers["x-request-id"].isalnum()
        assert ended(gateway, "api", "200") == 1


async def test_headers_are_held_until_the_first_token():
    go_on = asyncio.Event()

    async def script(reader, writer):
        writer.write(STREAM_HEAD + chunk(ROLE))
        await writer.drain()
        await go_on.wait()
        writer.write(chunk(event(content="Hi") + b"data: [DONE]\n\n") + b"0\r\n\r\n")
        await writer.drain()

    async with scripted(script) as (replica_url, replica), front_of(replica_url) as (url, gateway):
        asking = asyncio.create_task(Upstream(url).post(CHAT, json.dumps(STREAM).encode()))
        await until(lambda: replica.posts == 1 and gateway.pool.replicas[0].in_flight == 1)
        # A round trip through the same event loops later there is still no status.
        async with http(url) as client:
            assert (await client.get("/v1/models")).status_code == 200
        assert not asking.done()
        go_on.set()
        exchange = await asking
        assert (await exchange.read()).startswith(ROLE)


@pytest.mark.parametrize("body", [STREAM, BODY])
async def test_client_that_leaves_frees_the_replica(body):
    replica = engine(STEADY)
    async with serving(replica) as replica_url, front_of(replica_url) as (url, gateway):
        asking = asyncio.create_task(Upstream(url).post(CHAT, json.dumps(body).encode()))
        await until(lambda: replica.running == 1)
        if body is STREAM:
            (await asking).close()
        asking.cancel()
        await until(lambda: replica.running == 0)
        await until(lambda: ended(gateway, "api", "499") == 1)
        assert gateway.pool.replicas[0].in_flight == 0


async def test_client_that_leaves_while_no_replica_is_ready_leaves_the_line():
    async with front_of(UNREACHABLE) as (url, gateway):
        asking = asyncio.create_task(Upstream(url).post(CHAT, json.dumps(BODY).encode()))
        await until(lambda: gateway._line.waiting == 1)
        asking.cancel()
        await until(lambda: gateway._line.waiting == 0)


async def test_killed_replica_before_a_token_is_replaced_by_another(tmp_path):
    async with (
        engine_process("--profile", profile_file(tmp_path, step_base_ms=60_000)) as slow,
        serving(engine()) as good,
        front_of(slow.url, good) as front,
    ):
        url, gateway = front
        gateway.pool.replicas[1].in_flight = 5  # so that the slow one comes first
        async with http(url) as client:
            asking = asyncio.create_task(client.post(CHAT, json={**STREAM, "max_tokens": 2}))
            await until(lambda: gateway.pool.replicas[0].in_flight == 1)
            slow.send(signal.SIGKILL)
            answer = await asking
        assert answer.status_code == 200
        assert "word0" in answer.text
        assert answer.text.endswith("data: [DONE]\n\n")
        await until(lambda: not gateway.pool.replicas[0].ready)


async def test_killed_replica_after_a_token_ends_the_stream_with_an_error_event(tmp_path):
    pace = profile_file(tmp_path, step_base_ms=50)
    async with engine_process("--profile", pace) as dying, front_of(dying.url) as (url, gateway):
        async with http(url) as client, client.stream("POST", CHAT, json=STREAM) as answer:
            lines = answer.aiter_lines()
            assert (await anext(lines)).startswith("data: {")
            dying.send(signal.SIGKILL)
            events = [line.removeprefix("data: ") async for line in lines if line]
        assert events[-1] == "[DONE]"
        assert json.loads(events[-2])["error"]["code"] == 502
        assert all("error" not in json.loads(e) for e in events[:-2])
        assert ended(gateway, "api", "502") == 1


async def test_official_client_sees_a_broken_stream_as_an_error():
    async def script(reader, writer):
        writer.write(STREAM_HEAD + chunk(event(content="Hi") + b"data: {half"))
        await writer.drain()

    async with (
        scripted(script) as (replica, _),
        front_of(replica) as (url, _),
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="-", max_retries=0) as client,
    ):
        stream = await client.chat.completions.create(**STREAM)
        with pytest.raises(openai.APIError, match="before its answer ended"):
            [c async for c in stream]


async def test_no_replica_past_the_bound_is_503_with_retry_after():
    async with front_of(UNREACHABLE, limits=Limits(max_wait_s=0.05)) as (url, _), http(url) as client:
        answer = await client.post(CHAT, json=STREAM)
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
        assert answer.json()["error"]["type"] == "overloaded_error"
        models = await client.get("/v1/models")
        assert (models.status_code, models.json()) == (200, {"object": "list", "data": []})


@pytest.mark.parametrize("mount", ["/v1", ""])
async def test_mounted_in_a_fastapi_application_it_answers_under_v1(mount):
    async with serving(engine()) as replica:
        pool = Pool([replica])
        await pool.start()
        app = FastAPI()
        app.mount(mount, GatewayApp(Gateway(pool)))
        async with serving(app) as url, http(url) as client:
            answer = await client.post(CHAT, json={**BODY, "max_tokens": 1})
            assert answer.json()["choices"][0]["message"]["content"] == "word0"
            assert (await client.get("/v1/models")).json()["data"][0]["id"] == "mistral"
        await pool.close()
