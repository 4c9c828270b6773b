"""The gateway over HTTP: OpenAI's client, raw bytes, clients that leave, replicas that die."""

import asyncio
import json
import signal
from contextlib import asynccontextmanager

import httpx
import openai
import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from inference.pool import Pool
from inference.upstream import Upstream
from tests.inference.servers import (
    LONG_ANSWER,
    ROLE,
    STEADY,
    STORY,
    STREAM_HEAD,
    chunk,
    engine,
    engine_process,
    event,
    scripted,
    serving,
    until,
)
from webapp.gateway.asgi import BODY_LIMIT_BYTES, GatewayApp
from webapp.gateway.errors import GatewayError
from webapp.gateway.gateway import Gateway
from webapp.gateway.line import Limits
from webapp.gateway.metrics import Metrics

CHAT = "/v1/chat/completions"
BODY = {"model": "mistral", "messages": STORY}
STREAM = {**BODY, "stream": True}
UNREACHABLE = "http://127.0.0.1:9"


@asynccontextmanager
async def front_of(*urls: str, limits: Limits | None = None):
    """The gateway's URL, and the gateway."""
    pool = Pool(urls, check_every_s=0.02)
    await pool.start()
    gateway = Gateway(pool, Metrics(CollectorRegistry()), limits)
    try:
        async with serving(GatewayApp(gateway)) as url:
            yield url, gateway
    finally:
        await pool.close()


def http(url: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, trust_env=False, timeout=10)


def ended(gateway: Gateway, source: str, status: str) -> float:
    return gateway.metrics.requests.labels(source, status)._value.get()


async def test_official_client_works_through_the_gateway():
    async with (
        serving(engine()) as replica,
        front_of(replica) as (url, _),
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="-", max_retries=0) as client,
    ):
        assert [model.id for model in (await client.models.list()).data] == ["mistral"]
        whole = await client.chat.completions.create(**BODY)
        assert whole.choices[0].message.content == LONG_ANSWER
        stream = await client.chat.completions.create(**STREAM)
        assert "".join([c.choices[0].delta.content async for c in stream]) == LONG_ANSWER
        text = await client.completions.create(model="mistral", prompt="story", max_tokens=2, stream=True)
        assert "".join([c.choices[0].text async for c in text]) == "word0 word1"
        with pytest.raises(openai.NotFoundError, match="`nope` does not exist"):
            await client.chat.completions.create(model="nope", messages=STORY)
        with pytest.raises(openai.BadRequestError, match="max_tokens must be at least 1"):
            await client.chat.completions.create(**BODY, max_tokens=-1)


async def test_stream_passes_as_the_replica_sent_it_with_marks_on_it():
    sent = ROLE + event(content="Hi") + b"data: [DONE]\n\n"

    async def script(reader, writer):
        writer.write(STREAM_HEAD + b"".join(chunk(sent[i : i + 9]) for i in range(0, len(sent), 9)) + b"0\r\n\r\n")
        await writer.drain()

    async with scripted(script) as (replica_url, replica), front_of(replica_url) as (url, gateway), http(url) as client:
        headers = {"X-Load-Source": "k6", "X-Request-Id": "abc-1"}
        raw = json.dumps(STREAM, indent=3).encode()
        answer = await client.post(CHAT, content=raw, headers=headers)
        assert (answer.status_code, answer.content) == (200, sent)
        assert answer.headers["content-type"] == "text/event-stream"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-accel-buffering"] == "no"
        assert (answer.headers["x-load-source"], answer.headers["x-request-id"]) == ("k6", "abc-1")
        assert replica.bodies == [raw]
        assert ended(gateway, "k6", "200") == 1


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
        await until(lambda: replica.seats.running == 1)
        if body is STREAM:
            (await asking).close()
        asking.cancel()
        await until(lambda: replica.seats.running == 0)
        await until(lambda: ended(gateway, "api", "499") == 1)
        assert gateway.pool.replicas[0].in_flight == 0


async def test_client_that_leaves_while_no_replica_is_ready_leaves_the_line():
    async with front_of(UNREACHABLE) as (url, gateway):
        asking = asyncio.create_task(Upstream(url).post(CHAT, json.dumps(BODY).encode()))
        await until(lambda: gateway._line.waiting == 1)
        asking.cancel()
        await until(lambda: gateway._line.waiting == 0)


async def test_killed_replica_before_a_token_is_replaced_by_another():
    async with (
        engine_process("--ttft-ms", "60000") as slow,
        serving(engine()) as good,
        front_of(slow.url, good) as front,
    ):
        url, gateway = front
        gateway.pool.replicas[1].in_flight = 5  # so that the slow one comes first
        async with http(url) as client:
            asking = asyncio.create_task(client.post(CHAT, json={**STREAM, "max_tokens": 2}))
            await until(lambda: gateway.pool.replicas[0].running == 1)
            slow.send(signal.SIGKILL)
            answer = await asking
        assert answer.status_code == 200
        assert "word0" in answer.text
        assert answer.text.endswith("data: [DONE]\n\n")
        await until(lambda: not gateway.pool.replicas[0].ready)


async def test_killed_replica_after_a_token_ends_the_stream_with_an_error_event():
    async with engine_process("--ttft-ms", "0", "--itl-ms", "50") as dying, front_of(dying.url) as (url, gateway):
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


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", CHAT, b"{broken", 400),
        ("POST", CHAT, b"[]", 400),
        ("POST", CHAT, b"\xff", 400),
        ("POST", CHAT, b"[" * 100_000, 400),
        ("POST", CHAT, b"x" * (BODY_LIMIT_BYTES + 1), 413),
        ("GET", CHAT, b"", 405),
        ("POST", "/v1/models", b"{}", 405),
        ("GET", "/v1/nothing", b"", 404),
        ("GET", "/v1", b"", 404),
    ],
)
async def test_requests_that_cannot_be_meant_get_an_error_in_openais_shape(method, path, body, status):
    async with front_of(UNREACHABLE) as (url, _), http(url) as client:
        answer = await client.request(method, path, content=body)
        assert answer.status_code == status
        assert answer.json()["error"].keys() == {"message", "type", "param", "code"}
        assert answer.headers["x-request-id"]
        assert ("allow" in answer.headers) == (status == 405)


async def test_body_over_the_limit_is_refused_without_a_length_too():
    async def parts():
        for _ in range(3):
            yield b" " * (BODY_LIMIT_BYTES // 2)

    async with front_of(UNREACHABLE) as (url, _), http(url) as client:
        assert (await client.post(CHAT, content=parts())).status_code == 413


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


def test_every_error_has_a_status_and_openais_shape():
    def kinds(kind: type) -> list[type]:
        return [kind] + [below for child in kind.__subclasses__() for below in kinds(child)]

    plain = [kind("why") for kind in kinds(GatewayError) if "status" in vars(kind)]
    assert len(plain) >= 7
    for error in plain:
        assert json.loads(error.body())["error"] == {
            "message": "why",
            "type": error.type,
            "param": None,
            "code": error.status,
        }
        assert (error.retry_after_s is not None) == (error.status in (429, 503))
