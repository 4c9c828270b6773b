"""The gateway bench counts right: every answer and token once, every fault as an error, waiting as waiting."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import pytest

from loadgen.gateway import profile, report, wire
from loadgen.gateway.__main__ import Bench, rounds
from loadgen.gateway.clients import Load
from loadgen.gateway.measure import Plan, Round, Streams
from loadgen.gateway.peers import Crowdspike, Peer
from loadgen.gateway.stub import Stub

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
EVENTS = [*wire.events(), wire.DONE]


def chunked(pieces: list[bytes]) -> bytes:
    return HEAD + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[i : i + size] for i in range(0, len(data), size)]


STREAM = chunked(EVENTS)


@asynccontextmanager
async def server(make: Callable[[], asyncio.Protocol]) -> AsyncIterator[int]:
    """Its port."""
    serving = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0)
    yield serving.sockets[0].getsockname()[1]
    serving.close()


class Scripted(asyncio.Protocol):
    """Answers each request with these pieces, and then closes if it is to."""

    def __init__(self, pieces: list[bytes], close: bool = False) -> None:
        self._pieces = pieces
        self._close = close

    def connection_made(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        asyncio.get_running_loop().create_task(self._send())

    async def _send(self) -> None:
        for piece in self._pieces:
            self._transport.write(piece)
            await asyncio.sleep(0)  # the pieces reach the other side one by one
        if self._close:
            self._transport.close()


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110 (counters have no event to wait for)
            await asyncio.sleep(0.01)


async def test_every_token_of_a_stub_is_counted_once():
    loop = asyncio.get_running_loop()
    async with server(lambda: Stub(loop)) as port:
        load = Load("127.0.0.1", port)
        async with load.streams(3) as tally:
            await until(lambda: tally.answers >= 3)
    assert tally.errors == Counter()
    assert tally.tokens == tally.answers * wire.TOKENS
    assert len(tally.times_s) == tally.answers


async def test_every_whole_answer_of_a_stub_is_counted_once():
    served = 0

    class Counting(Stub):
        def data_received(self, data: bytes) -> None:
            nonlocal served
            served += 1
            super().data_received(data)

    loop = asyncio.get_running_loop()
    async with server(lambda: Counting(loop)) as port:
        load = Load("127.0.0.1", port)
        async with load.calls(4) as tally:
            await until(lambda: tally.answers >= 200)
    assert tally.errors == Counter()
    assert tally.answers == served


@pytest.mark.parametrize("size", [1, 7, 223, 100_000])
async def test_tokens_are_counted_however_the_bytes_are_cut(size):
    async with server(lambda: Scripted(cut(STREAM, size))) as port:
        load = Load("127.0.0.1", port)
        async with load.streams(1) as tally:
            await until(lambda: tally.answers)
    assert tally.errors == Counter()
    assert tally.tokens == tally.answers * wire.TOKENS


@pytest.mark.parametrize("size", [5, 64, 1000])
async def test_tokens_are_counted_wherever_a_gateway_begins_its_chunks(size):
    stream = chunked(cut(b"".join(EVENTS), size))
    async with server(lambda: Scripted(cut(stream, 500))) as port:
        load = Load("127.0.0.1", port)
        async with load.streams(1) as tally:
            await until(lambda: tally.answers)
    assert tally.errors == Counter()
    assert tally.tokens == tally.answers * wire.TOKENS


@pytest.mark.parametrize(
    ("pieces", "close", "error"),
    [
        ([STREAM[:3000]], True, "the connection broke"),
        ([HEAD + b"0\r\n\r\n"], False, "ended without [DONE] after 0 tokens"),
        ([STREAM.replace(b" token07", b" nothing")], False, "73 tokens instead of 74"),
        ([b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"], False, "status 503"),
    ],
)
async def test_a_stream_that_is_no_good_is_an_error_and_no_answer(pieces, close, error):
    async with server(lambda: Scripted(pieces, close)) as port:
        load = Load("127.0.0.1", port)
        async with load.streams(1) as tally:
            await until(lambda: tally.errors)
    assert set(tally.errors) == {error}
    assert tally.answers == 0


async def test_a_paced_request_waits_from_when_it_was_due():
    held_s = 0.3
    loop = asyncio.get_running_loop()

    class SlowAtFirst(Stub):
        asked = 0

        def data_received(self, data: bytes) -> None:
            self.asked += 1
            loop.call_later(held_s if self.asked == 1 else 0, super().data_received, data)

    async with server(lambda: SlowAtFirst(loop)) as port:
        load = Load("127.0.0.1", port)
        async with load.paced(1, per_s=50) as tally:
            await until(lambda: tally.answers >= 2)
    assert (
        tally.times_s[1][1] > held_s - 0.1
    )  # it was due 20 ms after the first, and could not be sent before that ended


def test_a_whole_run_measures_ours_with_everything_on_and_names_who_failed(tmp_path):
    plan = Plan(connections=4, streams=(6,), calls_s=0.5, paced_s=0.5, streams_s=1.0, warm_s=1.0)
    with ExitStack() as stack:
        bench = Bench(tmp_path, stack, None)
        bench.start(Crowdspike())
        bench.start(Peer("absent", "/health", lambda *_: [], "absent", python="no-such-python"))
        bench.start(Peer("broken", "/health", lambda *_: [sys.executable, "-c", "raise OSError('no luck')"]))
        seen = rounds(bench, plan, 1)
        (log,) = tmp_path.glob("crowdspike/*.log")
        logged = [line for line in log.read_text().splitlines() if line.startswith("{")]
    (ours,) = seen[report.OURS]
    assert ours.errors == {}
    assert ours.calls_per_s > 0 and ours.cpu_ms > 0
    assert ours.streams[6].tokens_per_s > 0 and ours.streams[6].cpu_us > 0
    assert logged and json.loads(logged[-1])["key"] == "bench"
    assert "no-such-python" in bench.failed["absent"]
    assert "no luck" in bench.failed["broken"]
    run = report.Run("today", "here", seen, bench.idle_mb, {}, bench.failed)
    table = report.markdown(run)
    assert "**crowdspike**" in table and "absent: did not install" in table
    json.dumps(report.to_json(run))


def a_round(
    cpu_ms: float | None, ttft_ms: float, errors: dict[str, int] | None = None, tokens_per_s: float = 20_000
) -> Round:
    streams = {200: Streams(tokens_per_s, cpu_ms and cpu_ms * 100, ttft_ms, ttft_ms * 2)}
    return Round(1000, cpu_ms, ttft_ms, ttft_ms, streams, cpu_ms, errors or {}, 0.0, 0.5)


def test_the_table_has_medians_what_is_added_and_every_error():
    run = report.Run(
        "today",
        "here",
        {
            "direct": [a_round(None, 10), a_round(None, 20), a_round(None, 30)],
            "nginx": [a_round(0.1, 11), a_round(0.9, 22), a_round(0.2, 33)],
            "crowdspike": [a_round(0.4, 15), a_round(0.4, 25), a_round(0.4, 35, {"status 503": 2})],
        },
        {"nginx": 12, "crowdspike": 40},
        {},
    )
    _, nginx, ours = report.rows(run)
    assert nginx.cpu_ms == 0.2
    assert nginx.added_p50_ms == 2  # the median of 1, 2 and 3: each round against its own direct way
    assert ours.errors == {"status 503": 2}
    table = report.markdown(run)
    assert "0.200 (× 0.5)" in table
    assert "2 × status 503" in table


def test_a_gateway_that_falls_behind_is_named():
    run = report.Run("today", "here", {"direct": [a_round(None, 10)], "nginx": [a_round(0.1, 11)]}, {"nginx": 12}, {})
    assert "fell behind" not in report.markdown(run)
    slow = a_round(0.4, 15, tokens_per_s=13_000)
    run = report.Run("today", "here", {"direct": [a_round(None, 10)], "nginx": [slow]}, {"nginx": 12}, {})
    assert "nginx (200 streams) fell behind" in report.markdown(run)


def test_only_what_stands_between_the_marks_is_replaced(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    report.write_docs(page, "new", report.BEGIN, report.END)
    assert page.read_text() == f"before\n{report.BEGIN}\nnew\n{report.END}\nafter\n"
    page.write_text("no marks")
    with pytest.raises(ValueError, match=r"page\.md"):
        report.write_docs(page, "new", report.BEGIN, report.END)


def test_the_docs_have_a_place_for_the_tables():
    text = (Path(__file__).parents[2] / "docs/benchmarks.md").read_text()
    for mark in (report.BEGIN, report.END, profile.BEGIN, profile.END):
        assert text.count(mark) == 1


def test_a_sample_belongs_to_its_innermost_python_function():
    lines = [
        "main (webapp/cli.py);Runner.run (asyncio/runners.py:118) 5",
        "main (webapp/cli.py);_send (webapp/gateway/stream.py:9);send (uvicorn/protocols/http/httptools_impl.py:1) 3",
        "main (webapp/cli.py);_send (webapp/gateway/stream.py:9);write (libc.so.6) 2",
        "Thread.run (threading.py:982);_worker (concurrent/futures/thread.py:81) 90",
    ]
    shares = profile.shares(profile.parse(lines))
    assert shares["event loop and its system calls (uvloop)"] == 0.5
    assert shares["HTTP towards the client (uvicorn)"] == 0.3
    assert shares["ticket, line, stream, writes to the client (rest of `webapp/gateway`)"] == 0.2
