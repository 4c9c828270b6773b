"""The open-loop client against servers that follow a script, byte by byte."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from inference.engine.simulation import Arrival, Served
from inference.openloop.client import Run, Target, replay, saturate
from inference.openloop.gauges import Sample, cache_config, sample
from inference.openloop.summary import quantile, summarize, tokens_per_s
from inference.openloop.trace import Mix, poisson

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
METRICS = b"""\
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="mistral"} 3.0
vllm:num_requests_waiting{engine="0",model_name="mistral"} 5.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="mistral",reason="capacity"} 5.0
vllm:cache_config_info{block_size="16",num_gpu_blocks="2048",sliding_window="None"} 1.0
"""
Script = Callable[[dict, asyncio.StreamWriter], "AsyncIterator[bytes]"]


def event(count: int) -> bytes:
    usage = {"prompt_tokens": 5, "total_tokens": 5 + count, "completion_tokens": count}
    return (
        b"data: " + json.dumps({"choices": [{"text": "a"}], "usage": usage}, separators=(",", ":")).encode() + b"\n\n"
    )


@asynccontextmanager
async def serving(script: Script) -> AsyncIterator[Target]:
    """A server that answers each completion with the bytes that `script` yields for its JSON body."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"GET /metrics "):
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(METRICS) + METRICS)
            else:
                size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                async for part in script(json.loads(await reader.readexactly(size)), writer):
                    writer.write(part)
                    await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client left
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        host, port = server.sockets[0].getsockname()
        yield Target(f"http://{host}:{port}", "mistral")
    finally:
        server.close()


async def whole(body: dict, writer: asyncio.StreamWriter) -> AsyncIterator[bytes]:
    yield HEAD
    for i in range(body["max_tokens"]):
        yield event(i + 1)
    yield event(body["max_tokens"]) + b"data: [DONE]\n\n"


async def run(script: Script, trace: list[Arrival], drain_s: float = 10.0) -> Run:
    async with serving(script) as target:
        return await replay(target, trace, drain_s=drain_s)


async def test_every_request_is_answered_in_full_and_timed_from_its_arrival():
    trace = [Arrival(0.05 * i, 10 + i, 3 + i) for i in range(5)]
    found = await run(whole, trace)
    assert [served.arrival for served in found.served] == trace
    assert [len(served.token_s) for served in found.served] == [3, 4, 5, 6, 7]
    assert all(list(one.token_s) == sorted(one.token_s) and one.ttft_s > 0 for one in found.served)
    assert not found.failed and not found.unfinished and len(found.late_s) == 5
    assert found.samples and {(s.running, s.waiting) for s in found.samples} == {(3.0, 5.0)}


async def test_a_request_asks_for_exactly_its_tokens_and_no_two_runs_for_the_same_ones():
    bodies = []

    async def noted(body, writer):
        bodies.append(body)
        async for part in whole(body, writer):
            yield part

    async with serving(noted) as target:
        for _ in range(2):
            await replay(target, [Arrival(0.0, 64, 2)])
    assert [(len(body["prompt"]), body["max_tokens"], body["ignore_eos"]) for body in bodies] == [(64, 2, True)] * 2
    assert bodies[0]["prompt"] != bodies[1]["prompt"]


async def test_requests_are_sent_on_time_while_an_earlier_one_hangs():
    release = asyncio.Event()

    async def first_hangs(body, writer):
        if body["max_tokens"] == 99:
            await release.wait()
        elif body["max_tokens"] == 4:
            release.set()  # only comes if the client did not wait for the first
        async for part in whole(body, writer):
            yield part

    found = await run(first_hangs, [Arrival(0.0, 5, 99), Arrival(0.05, 5, 3), Arrival(0.1, 5, 4)])
    assert [len(served.token_s) for served in found.served] == [99, 3, 4]
    assert found.served[0].ttft_s > 0.1, "its wait counts from its own arrival"


async def test_tokens_that_come_in_one_event_count_each():
    async def together(body, writer):
        yield HEAD + event(1)
        yield event(4) + event(6)
        yield b"data: [DONE]\n\n"

    (served,) = (await run(together, [Arrival(0.0, 5, 6)])).served
    assert len(served.token_s) == 6
    assert served.token_s[1:4] == (served.token_s[1],) * 3


@pytest.mark.parametrize("size", [1, 7, 50])
async def test_events_that_are_cut_anywhere_count_once(size):
    async def cut(body, writer):
        data = HEAD + b"".join(event(i + 1) for i in range(12)) + b"data: [DONE]\n\n"
        for i in range(0, len(data), size):
            yield data[i : i + size]
            await asyncio.sleep(0)

    (served,) = (await run(cut, [Arrival(0.0, 5, 12)])).served
    assert len(served.token_s) == 12


async def refuses(body, writer):
    yield b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 2\r\n\r\n{}"


async def breaks(body, writer):
    yield HEAD + event(1)


async def fails(body, writer):
    yield HEAD + event(1) + b'data: {"error":{"message":"gone","code":500}}\n\ndata: [DONE]\n\n'


async def too_few(body, writer):
    yield HEAD + event(2) + b"data: [DONE]\n\n"


@pytest.mark.parametrize(
    "script, error",
    [
        (refuses, "status 503"),
        (breaks, "connection lost"),
        (fails, "error event"),
        (too_few, "2 tokens where 5 were asked for"),
    ],
)
async def test_what_is_no_whole_answer_is_counted_with_its_reason(script, error):
    found = await run(script, [Arrival(0.0, 5, 5)])
    assert dict(found.failed) == {error: 1} and not found.served


async def test_a_server_that_is_not_there_is_counted():
    async with serving(whole) as target:
        pass
    found = await replay(target, [Arrival(0.0, 5, 5)])
    (error,) = found.failed
    assert error.startswith("cannot connect") and not found.served


async def test_what_never_ends_is_given_up_after_the_drain():
    async def hangs(body, writer):
        yield HEAD + event(1)
        await asyncio.Event().wait()

    found = await run(hangs, [Arrival(0.0, 5, 5)], drain_s=0.3)
    assert dict(found.failed) == {"not answered in time": 1}
    assert [len(one.token_s) for one in found.unfinished] == [1]


async def test_a_closed_loop_keeps_its_number_of_requests_under_way():
    all_four, under_way, most = asyncio.Barrier(4), 0, 0

    async def counted(body, writer):
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        yield HEAD + event(body["max_tokens"])
        await all_four.wait()  # passes only when four are there
        under_way -= 1
        yield b"data: [DONE]\n\n"

    async with serving(counted) as target:
        found = await saturate(target, 4, 0.6, seed=1, mix=Mix(output_tokens=(5, 9)))
    assert most == 4
    assert len(found.served) >= 8
    assert set(found.failed) <= {"not answered in time"}


@pytest.mark.parametrize("url", ["ftp://127.0.0.1", "127.0.0.1:8100", "http://"])
async def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(ValueError, match="not an http"):
        await replay(Target(url, "mistral"), [])


def test_a_trace_is_the_same_for_the_same_seed_and_another_for_another():
    assert poisson(20, 10, 1) == poisson(20, 10, 1) != poisson(20, 10, 2)


def test_a_trace_keeps_to_its_rate_and_lengths():
    mix = Mix((16, 400), (8, 200))
    trace = poisson(50, 100, 3, mix)
    assert abs(len(trace) - 5000) < 5 * 5000**0.5  # five standard deviations
    assert all(0 < a.at_s < 100 and 16 <= a.prompt_tokens <= 400 and 8 <= a.output_tokens <= 200 for a in trace)
    assert sorted(trace, key=lambda a: a.at_s) == trace
    mean = sum(a.output_tokens for a in trace) / len(trace)
    assert mean == pytest.approx(mix.mean_output_tokens, rel=0.06)


def test_gauges_are_read_from_vllms_metrics():
    assert sample(METRICS, 1.5) == Sample(1.5, 3.0, 5.0)
    assert sample(b"other 1.0\n", 0.0) is None
    assert cache_config(METRICS) == {"block_size": "16", "num_gpu_blocks": "2048", "sliding_window": "None"}
    assert cache_config(b"") == {}


def test_gauges_of_several_engines_are_added():
    second = METRICS.replace(b'engine="0"', b'engine="1"')
    assert sample(METRICS + second, 0.0) == Sample(0.0, 6.0, 10.0)


def test_a_summary_counts_from_the_arrival_and_within_the_time():
    served = [
        Served(Arrival(0.0, 5, 3), (0.1, 0.2, 0.4)),
        Served(Arrival(1.0, 5, 2), (1.5, 2.5)),
    ]
    found = summarize([Run(served, samples=[Sample(0.5, 2, 0), Sample(1.5, 4, 1), Sample(9.0, 50, 50)])], 2.0)
    assert (found.ttft_p50_ms, found.e2e_p50_ms) == pytest.approx((300, 950))
    assert found.itl_p50_ms == pytest.approx(200)
    assert (found.running, found.waiting) == (3, 0.5)
    assert found.throughput == 4 / 2
    assert tokens_per_s(served, 1.0, 3.0) == 1


def test_tokens_that_came_together_are_one_delivery():
    found = summarize([Run([Served(Arrival(0.0, 5, 4), (1.0, 1.0, 1.0, 1.3))])], 2.0)
    assert found.itl_p50_ms == found.itl_p95_ms == pytest.approx(300)


def test_a_quantile_lies_between_its_neighbours():
    assert quantile([1, 2, 3, 4], 0.5) == 2.5
    assert (quantile([7], 0.95), quantile([], 0.5)) == (7, 0.0)
