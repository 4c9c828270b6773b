"""What a client sees when a replica is killed, hangs, talks nonsense or breaks off: really done, over real HTTP."""

import asyncio
import json
import signal
import socket
import struct

import httpx
import pytest

from inference.upstream import Upstream
from tests.gateway.gateways import (
    BODY,
    DONE,
    break_before_token,
    busy,
    front_of,
    greet,
    hold,
    say_nothing,
)
from tests.inference.servers import (
    STREAM_END,
    STREAM_HEAD,
    chunk,
    engine_process,
    event,
    free_port,
    profile_file,
    scripted,
    until,
)
from webapp.gateway.line import Limits
from webapp.gateway.ticket import CHAT

STREAM = {**BODY, "stream": True}
HTML = b"<html><body><h1>500 Internal Server Error</h1></body></html>"
ONE_TOKEN = STREAM_HEAD + chunk(event(content="Hi"))


async def ask(url: str, **fields) -> httpx.Response:
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=60) as client:
        return await client.post(CHAT, json={**STREAM, **fields})


def events(content: bytes) -> list[bytes]:
    return [line.removeprefix(b"data: ") for line in content.split(b"\n\n") if line]


def is_whole(answer: httpx.Response) -> bool:
    """A stream with all that belongs to one, and no error."""
    return answer.status_code == 200 and answer.content.endswith(DONE) and b'"error"' not in answer.content


def ends_with_an_error(content: bytes) -> bool:
    """A stream that says in OpenAI's shape that it broke off, and ends as one should."""
    *before, said, done = events(content)
    error = json.loads(said)["error"]
    assert not any("error" in json.loads(e) for e in before)
    return done == b"[DONE]" and error.keys() == {"message", "type", "param", "code"}


async def ask_slowly(url: str, seen: asyncio.Event, **fields) -> bytes:
    """The stream; `seen` is set when its first token is here."""
    exchange = await Upstream(url).post(CHAT, json.dumps({**STREAM, **fields}).encode())
    assert exchange.status == 200
    seen.set()
    content = await exchange.read()
    exchange.close()
    return content


async def reset(writer: asyncio.StreamWriter) -> None:
    """Let what was written arrive, then drop the connection with a reset rather than an end."""
    await writer.drain()
    await asyncio.sleep(0.05)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def test_killed_before_the_first_token_the_client_sees_nothing(tmp_path):
    slow_profile = profile_file(tmp_path, step_base_ms=60_000)
    async with (
        engine_process("--profile", slow_profile) as slow,
        engine_process("--profile", "instant") as good,
        front_of(slow.url, good.url) as (url, gateway),
    ):
        first, other = gateway.pool.replicas
        busy(other)
        asking = asyncio.create_task(ask(url, max_tokens=4))
        await until(lambda: first.upstream.in_use == 1)
        slow.send(signal.SIGKILL)
        assert is_whole(await asking)
        await until(lambda: not first.ready)
        assert gateway.records[0].retries >= 1


async def test_only_replica_killed_before_the_first_token_answers_when_it_is_back(tmp_path):
    port = str(free_port())
    slow_profile = profile_file(tmp_path, step_base_ms=60_000)
    async with (
        engine_process("--profile", slow_profile, "--port", port) as dying,
        front_of(dying.url) as (url, gateway),
    ):
        (replica,) = gateway.pool.replicas
        asking = asyncio.create_task(ask(url, max_tokens=4))
        await until(lambda: replica.upstream.in_use == 1)
        dying.send(signal.SIGKILL)
        await until(lambda: gateway.waiting == 1)
        async with engine_process("--profile", "instant", "--port", port):
            assert is_whole(await asking)


async def test_killed_after_the_first_token_ends_the_stream_with_an_error_event(tmp_path):
    async with (
        engine_process("--profile", profile_file(tmp_path, step_base_ms=20)) as dying,
        front_of(dying.url) as (url, gateway),
    ):
        seen = asyncio.Event()
        asking = asyncio.create_task(ask_slowly(url, seen, max_tokens=1000, ignore_eos=True))
        await seen.wait()
        dying.send(signal.SIGKILL)
        assert ends_with_an_error(await asking)
        assert gateway.value("requests_total", status="502") == 1
        assert gateway.value("retries_total") == 0
        assert gateway.is_idle()


async def html_500(reader, writer):
    writer.write(b"HTTP/1.1 500 X\r\ncontent-type: text/html\r\ncontent-length: %d\r\n\r\n" % len(HTML) + HTML)
    await writer.drain()


async def half_a_chunk_before_the_token(reader, writer):
    writer.write(STREAM_HEAD + b'ff\r\ndata: {"id"')
    await reset(writer)


async def half_a_head(reader, writer):
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-ty")
    await reset(writer)


async def nonsense(reader, writer):
    writer.write(b"\x00\xffSSH-2.0-OpenSSH_9.6\r\n\r\n")
    await writer.drain()


FAULTS_BEFORE = [html_500, half_a_chunk_before_the_token, half_a_head, nonsense, say_nothing, hold, break_before_token]


@pytest.mark.parametrize("fault", FAULTS_BEFORE)
async def test_fault_before_the_first_token_is_not_seen_where_there_is_another_replica(fault):
    limits = Limits(first_token_timeout_s=0.3)
    async with (
        scripted(fault) as (bad, replica),
        scripted(greet) as (good, _),
        front_of(bad, good, limits=limits) as (url, gateway),
    ):
        busy(gateway.pool.replicas[1])
        assert is_whole(await ask(url))
        assert replica.posts == 1


@pytest.mark.parametrize(
    ("fault", "status"),
    [(html_500, 500), (half_a_chunk_before_the_token, 502), (nonsense, 502), (say_nothing, 504), (hold, 504)],
)
async def test_fault_before_the_first_token_is_an_openai_error_where_there_is_no_other(fault, status):
    limits = Limits(first_token_timeout_s=0.3)
    async with scripted(fault) as (bad, _), front_of(bad, limits=limits) as (url, gateway):
        answer = await ask(url)
        assert answer.status_code == status
        assert answer.json()["error"].keys() == {"message", "type", "param", "code"}
        assert b"<html>" not in answer.content
        assert gateway.is_idle()


async def half_a_chunk(reader, writer):
    writer.write(b'ff\r\ndata: {"id"')
    await reset(writer)


async def silence(reader, writer):
    await reader.read()


async def early_end(reader, writer):
    writer.write(STREAM_END)
    await writer.drain()


async def half_an_event(reader, writer):
    writer.write(chunk(b"data: {half"))
    await writer.drain()


async def broken_chunk(reader, writer):
    writer.write(b"zz\r\nnonsense")
    await writer.drain()


async def own_error(reader, writer):
    """vLLM whose engine died: an error event, and here no [DONE]."""
    error = b'data: {"error":{"message":"EngineCore died","type":"InternalServerError","param":null,"code":500}}\n\n'
    writer.write(chunk(error) + STREAM_END)
    await writer.drain()


@pytest.mark.parametrize("fault", [half_a_chunk, silence, early_end, half_an_event, broken_chunk, own_error])
async def test_fault_after_the_first_token_ends_the_stream_with_an_error_event(fault):
    seen = asyncio.Event()

    async def script(reader, writer):
        writer.write(ONE_TOKEN)
        await seen.wait()
        await fault(reader, writer)

    async with (
        scripted(script) as (bad, replica),
        scripted(greet) as (good, other),
        front_of(bad, good, limits=Limits(stream_silence_s=0.3)) as (url, gateway),
    ):
        busy(gateway.pool.replicas[1])
        content = await ask_slowly(url, seen)
        assert ends_with_an_error(content)
        assert content.startswith(event(content="Hi"))
        assert (replica.posts, other.posts) == (1, 0)
        assert gateway.records[0].status >= 500
        assert gateway.value("itl_seconds_count") == 0
        await until(lambda: gateway.pool.replicas[0].upstream.in_use == 0)


async def test_end_of_the_body_that_never_comes_is_not_waited_for_after_done():
    async def script(reader, writer):
        writer.write(ONE_TOKEN + chunk(DONE))
        await reader.read()

    async with scripted(script) as (bad, _), front_of(bad) as (url, gateway):
        assert is_whole(await ask(url))
        assert gateway.records[0].status == 200


async def test_only_replica_that_says_503_for_a_while_answers_in_the_end():
    loop = asyncio.get_running_loop()
    well_at = loop.time() + 1.5

    async def script(reader, writer):
        if loop.time() >= well_at:
            return await greet(reader, writer)
        body = b'{"error":{"message":"starting","type":"ServiceUnavailable","param":null,"code":503}}'
        writer.write(b"HTTP/1.1 503 X\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()

    async with scripted(script) as (url_of_replica, replica), front_of(url_of_replica) as (url, gateway):
        answers = await asyncio.gather(*(ask(url) for _ in range(10)))
        assert all(is_whole(answer) for answer in answers)
        assert gateway.value("retries_total", reason="refused") > 0
        assert replica.posts <= 10 * 4  # each at most once a second
