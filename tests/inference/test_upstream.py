import asyncio

import pytest

from inference.exchange import BUFFER_BYTES, ConnectFailed, ConnectionLost, Overflow, Silent
from inference.upstream import Upstream
from tests.inference.servers import STREAM_END, STREAM_HEAD, chunk, scripted, serving, until, whole


async def wait_for_eof(reader, writer, gone):
    assert await reader.read() == b""
    gone.set()


@pytest.mark.parametrize("head", [b"", STREAM_HEAD, STREAM_HEAD + chunk(b"data: 1\n\n")])
async def test_cancelling_aborts_the_connection_in_every_phase(head):
    gone = asyncio.Event()

    async def script(reader, writer):
        writer.write(head)
        await wait_for_eof(reader, writer, gone)

    async def ask(upstream):
        exchange = await upstream.post("/", b"{}")
        try:
            await exchange.read()
        finally:
            exchange.close()

    async with scripted(script) as (url, replica):
        task = asyncio.create_task(ask(Upstream(url)))
        await until(lambda: replica.posts == 1)
        task.cancel()
        await asyncio.wait_for(gone.wait(), 5)


async def test_closing_from_elsewhere_wakes_the_reader():
    async def script(reader, writer):
        writer.write(STREAM_HEAD)
        await reader.read()

    async with scripted(script) as (url, _):
        exchange = await Upstream(url).post("/", b"{}")
        reading = asyncio.create_task(exchange.chunk())
        await asyncio.sleep(0)
        exchange.close()
        with pytest.raises(ConnectionLost):
            await reading


async def test_body_that_breaks_off_is_an_error_after_what_did_arrive():
    async def script(reader, writer):
        writer.write(STREAM_HEAD + chunk(b"half"))

    async with scripted(script) as (url, _):
        exchange = await Upstream(url).post("/", b"{}")
        assert await exchange.chunk() == b"half"
        with pytest.raises(ConnectionLost):
            await exchange.chunk()


async def test_body_without_a_length_ends_with_its_connection():
    async def script(reader, writer):
        writer.write(b"HTTP/1.0 200 OK\r\n\r\nall of it")

    async with scripted(script) as (url, _):
        assert await (await Upstream(url).post("/", b"{}")).read() == b"all of it"


@pytest.mark.parametrize("answer", [b"", b"nonsense\r\n\r\n"])
async def test_no_answer_or_a_broken_one_is_a_lost_connection(answer):
    async def script(reader, writer):
        writer.write(answer)

    async with scripted(script) as (url, _):
        with pytest.raises(ConnectionLost):
            await Upstream(url).post("/", b"{}")


async def test_nobody_listening_is_told_apart():
    async with scripted(None) as (url, _):
        pass
    with pytest.raises(ConnectFailed):
        await Upstream(url).get("/health")


async def test_silence_ends_an_exchange():
    async def script(reader, writer):
        writer.write(STREAM_HEAD)
        await reader.read()

    async with scripted(script) as (url, _):
        exchange = await Upstream(url, silence_s=0.05).post("/", b"{}")
        with pytest.raises(Silent):
            await exchange.read()
        exchange.close()


async def tell_port(scope, receive, send):
    """Answers with the client's port; under `/endless` it does not end."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"%d" % scope["client"][1], "more_body": True})
    while scope["path"] == "/endless" and (await receive())["type"] != "http.disconnect":
        pass
    await send({"type": "http.response.body", "body": b""})


async def port_seen(upstream: Upstream, path: str = "/") -> int:
    exchange = await upstream.get(path)
    try:
        return int(await (exchange.chunk() if path == "/endless" else exchange.read()))
    finally:
        exchange.close()


async def test_finished_connection_is_used_again_and_an_unfinished_one_never():
    async with serving(tell_port) as url:
        upstream = Upstream(url)
        first = await port_seen(upstream)
        assert await port_seen(upstream) == first
        assert await port_seen(upstream, "/endless") == first
        assert await port_seen(upstream) != first


async def test_connection_idle_for_too_long_is_not_used_again():
    async with serving(tell_port) as url:
        upstream = Upstream(url, idle_s=0.02)
        first = await port_seen(upstream)
        await until(lambda: not upstream._idle)
        assert await port_seen(upstream) != first


async def test_slow_reader_holds_the_sender_back_and_loses_nothing():
    sent = 0
    total = 400

    async def script(reader, writer):
        nonlocal sent
        writer.write(STREAM_HEAD)
        for _ in range(total):
            writer.write(chunk(b"x" * 65536))
            await writer.drain()
            sent += 1
        writer.write(STREAM_END)

    async with scripted(script) as (url, _):
        exchange = await Upstream(url).post("/", b"{}")
        await until(lambda: exchange._paused)
        assert sent < total
        assert len(await exchange.read()) == total * 65536


async def test_reader_that_is_to_keep_up_and_does_not_is_dropped_with_its_replica():
    gone = asyncio.Event()

    async def script(reader, writer):
        writer.write(STREAM_HEAD)
        try:
            while True:
                writer.write(chunk(b"x" * 65536))
                await writer.drain()
        except ConnectionError:
            gone.set()

    told = asyncio.Event()
    async with scripted(script) as (url, _):
        upstream = Upstream(url)
        exchange = await upstream.post("/", b"{}")
        exchange.drop_slow_reader(told.set)
        await exchange.chunk()
        await asyncio.wait_for(told.wait(), 10)
        await asyncio.wait_for(gone.wait(), 10)
        with pytest.raises(Overflow):
            await exchange.chunk()
        assert upstream.in_use == 0


async def test_burst_over_the_bound_that_is_read_in_time_loses_nothing():
    async def script(reader, writer):
        writer.write(STREAM_HEAD + chunk(b"x" * (3 * BUFFER_BYTES)) + STREAM_END)
        await writer.drain()

    async with scripted(script) as (url, _):
        exchange = await Upstream(url).post("/", b"{}")
        exchange.drop_slow_reader(lambda: None)
        await until(lambda: exchange._paused)
        assert len(await exchange.read()) == 3 * BUFFER_BYTES


async def test_silence_is_counted_anew_from_each_sign_of_life_and_can_be_set_anew():
    go_on = asyncio.Event()

    async def script(reader, writer):
        writer.write(STREAM_HEAD)
        for _ in range(12):
            await asyncio.sleep(0.1)
            writer.write(chunk(b"x"))
        await go_on.wait()

    async with scripted(script) as (url, _):
        exchange = await Upstream(url, silence_s=3600).post("/", b"{}", silence_s=1.0)
        received = b""
        while len(received) < 12:
            received += await exchange.chunk()
        exchange.expect(0.05)
        with pytest.raises(Silent, match=r"0\.05 s"):
            await exchange.chunk()
        exchange.close()
        go_on.set()


async def test_request_carries_path_prefix_body_and_headers():
    async def script(reader, writer):
        writer.write(whole(200, b"{}"))

    async with scripted(script) as (url, replica):
        exchange = await Upstream(f"{url}/prefix/").post("/v1/x", b'{"a":1}', {"x-request-id": "r1"})
        assert await exchange.read() == b"{}"
    assert replica.bodies == [b'{"a":1}']
    assert replica.heads[0].startswith(b"POST /prefix/v1/x HTTP/1.1\r\n")
    assert b"x-request-id: r1\r\n" in replica.heads[0]


def test_url_that_is_none_is_refused():
    for url in ("localhost:8100", "ftp://x", "http://"):
        with pytest.raises(ValueError, match="not an http"):
            Upstream(url)
