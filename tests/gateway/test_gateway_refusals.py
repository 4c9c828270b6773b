"""What the gateway refuses over HTTP before it asks a replica: each in OpenAI's shape, and each counted."""

import asyncio
import json

import httpx
import pytest
from fronts import BODY, CHAT, UNREACHABLE, ended, front_of, http, keyring_of, raw

from tests.inference.servers import engine, serving, until
from webapp.gateway.asgi import MAX_DEPTH
from webapp.gateway.caps import Caps
from webapp.gateway.errors import GatewayError
from webapp.gateway.record import Record

LIMIT = Caps().body_bytes


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "said"),
    [
        ("POST", CHAT, b"", 400, "not JSON"),
        ("POST", CHAT, b"{broken", 400, "not JSON"),
        ("POST", CHAT, b"[]", 400, "a JSON object"),
        ("POST", CHAT, b"\xff", 400, "UTF-8"),
        ("POST", CHAT, json.dumps(BODY).encode("utf-16"), 400, "UTF-8"),
        ("POST", CHAT, '{"messages": "grüße"}'.encode("latin-1"), 400, "UTF-8"),
        ("POST", CHAT, b'{"temperature": NaN}', 400, "NaN"),
        ("POST", CHAT, b"[" * 100_000, 400, "not JSON"),
        ("POST", CHAT, b'{"x":' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}", 400, "deeper"),
        ("POST", CHAT, b"x" * (LIMIT + 1), 413, str(LIMIT)),
        ("POST", CHAT, json.dumps({**BODY, "max_tokens": 1025}).encode(), 400, "at most 1024"),
        ("GET", CHAT, b"", 405, "POST"),
        ("PUT", CHAT, b"{}", 405, "POST"),
        ("OPTIONS", "/v1/completions", b"", 405, "POST"),
        ("POST", "/v1/models", b"{}", 405, "GET"),
        ("OPTIONS", "/v1/models", b"", 405, "GET"),
        ("DELETE", "/v1/models", b"", 405, "GET"),
        ("GET", "/v1/nothing", b"", 404, CHAT),
        ("POST", f"{CHAT}/", b"{}", 404, "without a slash"),
        ("GET", "/v1/models/mistral", b"", 404, "/v1/models"),
        ("GET", "/v1/" + "x" * 9000, b"", 404, CHAT),
        ("GET", "/v1", b"", 404, CHAT),
    ],
    ids=lambda value: value[:24].decode("latin-1") if isinstance(value, bytes) else str(value)[:24],
)
async def test_requests_that_cannot_be_meant_get_an_error_in_openais_shape_and_are_counted(
    method, path, body, status, said
):
    async with front_of(UNREACHABLE) as (url, gateway), http(url) as client:
        answer = await client.request(method, path, content=body, headers={"X-Load-Source": "k6"})
        assert answer.status_code == status
        error = answer.json()["error"]
        assert error.keys() == {"message", "type", "param", "code"}
        assert said in error["message"]
        assert answer.headers["x-request-id"]
        assert ("allow" in answer.headers) == (status == 405)
        assert ended(gateway, "k6", str(status)) == 1
        [record] = gateway.ends
        assert (record.request_id, record.error) == (answer.headers["x-request-id"], "invalid_request_error")
        assert len(record.path) < 200


async def test_head_is_refused_without_a_body():
    async with front_of(UNREACHABLE) as (url, gateway):
        for path in (CHAT, "/v1/models"):
            answer = await raw(url, f"HEAD {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
            assert answer.startswith(b"HTTP/1.1 405 ")
            assert answer.endswith(b"\r\n\r\n")
        assert ended(gateway, "api", "405") == 2


async def test_body_over_the_limit_is_refused_without_a_length_too():
    async def parts(size: int):
        for start in range(0, size, 65536):
            yield b" " * min(65536, size - start)

    async with front_of(UNREACHABLE) as (url, gateway), http(url) as client:
        assert (await client.post(CHAT, content=parts(LIMIT + 1))).status_code == 413
        assert (await client.post(CHAT, content=parts(LIMIT))).status_code == 400  # read, and no JSON
        assert (ended(gateway, "api", "413"), ended(gateway, "api", "400")) == (1, 1)


async def test_body_that_would_be_too_large_is_not_asked_for():
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\nconnection: close\r\ncontent-length: "
    async with front_of(UNREACHABLE) as (url, _):
        answer = await raw(url, f"{head}{LIMIT + 1}\r\n\r\n".encode())
        assert answer.startswith(b"HTTP/1.1 413 ")
        answer = await raw(url, f"{head}2\r\n\r\n[]".encode())
        assert answer.startswith(b"HTTP/1.1 100 ")
        assert b"HTTP/1.1 400 " in answer


async def test_client_that_leaves_while_it_sends_its_body_is_counted():
    async with front_of(UNREACHABLE) as (url, gateway):
        parts = httpx.URL(url)
        _, writer = await asyncio.open_connection(parts.host, parts.port)
        writer.write(f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{{".encode())
        await writer.drain()
        writer.close()
        await until(lambda: ended(gateway, "api", "499") == 1)


async def test_header_that_comes_twice_has_no_one_value():
    async with keyring_of() as (ring, known), front_of(UNREACHABLE, keyring=ring) as (url, _), http(url) as client:
        twice = [("authorization", known["authorization"])] * 2
        assert (await client.get("/v1/models", headers=twice)).status_code == 401
        twice = [*known.items(), ("x-request-id", "one"), ("x-request-id", "two")]
        answer = await client.get("/v1/models", headers=twice)
        assert answer.status_code == 200
        assert answer.headers["x-request-id"] not in ("one", "two", "one,two")


async def test_without_a_good_key_nothing_is_answered():
    async with (
        keyring_of() as (ring, known),
        front_of(UNREACHABLE, keyring=ring) as (url, gateway),
        http(url) as client,
    ):
        for wrong in ({}, {"authorization": "Bearer csk_wrong"}, {"authorization": "Basic eDp5"}):
            for method, path in (("GET", "/v1/models"), ("POST", CHAT), ("POST", "/v1/completions")):
                answer = await client.request(method, path, headers=wrong, content=b"{broken")
                assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
                assert answer.json()["error"]["code"] == "invalid_api_key"
        assert ended(gateway, "api", "401") == len(gateway.ends) == 9
        assert (await client.get("/v1/models", headers=known)).status_code == 200
        assert (await client.post(CHAT, headers=known, content=b"{broken")).status_code == 400
        assert gateway.ends[-1].key == "analyst"


async def test_key_over_its_requests_is_told_when_to_come_back():
    async with (
        keyring_of(requests_per_minute=2) as (ring, known),
        front_of(UNREACHABLE, keyring=ring) as (url, gateway),
        http(url) as client,
    ):
        left = [(await client.get("/v1/models", headers=known)).headers for _ in range(2)]
        assert [marks["x-ratelimit-remaining-requests"] for marks in left] == ["1", "0"]
        answer = await client.post(CHAT, headers=known, json=BODY)
        assert answer.status_code == 429
        assert answer.json()["error"]["type"] == "rate_limit_error"
        assert 0 < int(answer.headers["retry-after"]) <= 60
        assert answer.headers["x-ratelimit-limit-requests"] == "2"
        assert answer.headers["x-ratelimit-reset-requests"] == f"{answer.headers['retry-after']}s"
        assert (gateway.ends[-1].status, gateway.ends[-1].key) == (429, "analyst")


@pytest.mark.parametrize("stream", [False, True])
async def test_key_pays_for_the_tokens_of_its_answers(stream):
    async with (
        keyring_of(tokens_per_minute=20) as (ring, known),
        serving(engine()) as replica,
        front_of(replica, keyring=ring) as (url, gateway),
        http(url) as client,
    ):
        body = {**BODY, "max_tokens": 20, "stream": stream}
        first = await client.post(CHAT, headers=known, json=body)
        assert (first.status_code, first.headers["x-ratelimit-remaining-tokens"]) == (200, "20")
        second = await client.post(CHAT, headers=known, json=body)
        assert (second.status_code, second.headers["x-ratelimit-remaining-tokens"]) == (429, "0")
        assert "tokens a minute" in second.json()["error"]["message"]
        paid: Record = gateway.ends[0]
        assert (paid.key, paid.completion_tokens) == ("analyst", 20)
        assert paid.prompt_tokens > 0


def test_every_error_has_a_status_and_openais_shape():
    def kinds(kind: type) -> list[type]:
        return [kind] + [below for child in kind.__subclasses__() for below in kinds(child)]

    plain = [kind("why") for kind in kinds(GatewayError) if "status" in vars(kind)]
    assert len(plain) >= 9
    for error in plain:
        shown = json.loads(error.body())["error"]
        assert shown.keys() == {"message", "type", "param", "code"}
        assert (shown["message"], shown["type"]) == ("why", error.type)
        assert shown["code"] in (error.status, "invalid_api_key", "rate_limit_exceeded")
        assert (error.retry_after_s is not None) == (error.status in (429, 503))
