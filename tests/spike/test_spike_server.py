"""What a server says of itself: read from real pages, and left out where they do not come."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest

from inference.cluster.scraping import Malformed
from loadgen.spike.server import Sampler, ServerSample, cost_usd, counted, parse, relative, seconds
from tests.gateway.gateways import BODY, front_of
from tests.inference.servers import engine, serving, until
from tests.scripted_cluster import ScriptedCluster, node, snapshot
from tests.web.callers import listening, web_on

RECORDED = Path(__file__).parent.parent / "inference" / "recorded"
CHAIN = [{"step": "edge", "label": "Load rises", "short": "edge", "t_s": 0.0, "why_not": ""}]
TWO_ENGINES = """\
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 4.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="0.1",model_name="m"} 5.0
vllm:time_to_first_token_seconds_sum{engine="0",model_name="m"} 1.5
vllm:time_to_first_token_seconds_sum{engine="1",model_name="m"} 2.0
vllm:time_to_first_token_seconds_count{engine="0",model_name="m"} 5.0
vllm:time_to_first_token_seconds_count{engine="1",model_name="m"} 7.0
"""


def page(at_s: float, count: float, sum_s: float = 0.0) -> ServerSample:
    return ServerSample(
        at_s=at_s, source="vllm", ttft_count=count, ttft_sum_s=sum_s, e2e_count=count, e2e_sum_s=5 * sum_s
    )


async def ask(url: str, source: str, times: int) -> None:
    async with httpx.AsyncClient(base_url=url, headers={"x-load-source": source}) as http:
        for _ in range(times):
            answer = await http.post("/v1/chat/completions", json={**BODY, "max_tokens": 5, "stream": True})
            assert answer.status_code == 200, answer.text


@asynccontextmanager
async def answering(answer: bytes, then_hang: bool = False) -> AsyncIterator[str]:
    """The URL of a server with the same bytes for everyone."""
    over = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        if then_hang:
            await over.wait()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        over.set()
        server.close()
        await server.wait_closed()


@asynccontextmanager
async def sampler_of(url: str, **given: Any) -> AsyncIterator[Sampler]:
    sampler = Sampler(url, "k6", **given)
    try:
        yield sampler
    finally:
        await sampler.close()


def test_a_recorded_page_of_vllm_is_read() -> None:
    found = parse((RECORDED / "metrics-idle.txt").read_bytes(), "k6", 7.0)
    assert found == ServerSample(
        at_s=7.0,
        source="vllm",
        **dict.fromkeys(("running", "waiting", "ttft_sum_s", "ttft_count", "e2e_sum_s", "e2e_count"), 0.0),
        **dict.fromkeys(("prompt_tokens", "generation_tokens"), 0.0),
    )


def test_the_engines_of_one_server_are_added_up() -> None:
    found = parse(TWO_ENGINES, "k6", 0.0)
    assert (found.running, found.ttft_count, found.ttft_sum_s, found.waiting) == (7, 12, 3.5, None)


def test_a_page_of_something_else_says_nothing_and_a_broken_one_is_an_error() -> None:
    assert parse("process_open_fds 3\n", "k6", 0.0) is None
    with pytest.raises(Malformed):
        parse('vllm:num_requests_running{engine="0} three\n', "k6", 0.0)


async def test_a_gateways_counters_are_those_of_the_runs_own_source() -> None:
    async with serving(engine()) as replica, front_of(replica) as (url, gateway):
        await ask(url, "k6", 3)
        await ask(url, "audience", 2)
        mine = parse(generate_latest(gateway.registry), "k6", 0.0)
        nobodys = parse(generate_latest(gateway.registry), "locust", 0.0)
    assert (mine.source, mine.running, mine.waiting) == ("gateway", 0, 0)
    assert (mine.ttft_count, mine.e2e_count, mine.generation_tokens) == (3, 3, 15)
    assert mine.ttft_sum_s > 0
    assert (nobodys.ttft_count, nobodys.generation_tokens) == (0, 0)


async def test_a_replica_is_read_before_and_after_and_the_difference_is_the_runs() -> None:
    async with serving(engine()) as url, sampler_of(url) as sampler:
        await ask(url, "api", 2)
        await sampler.begin()
        began_s = sampler.samples[-1].at_s
        await ask(url, "k6", 4)
        await sampler.finish()
        samples = relative(sampler.samples, began_s)
    found = counted(samples)
    assert samples[0].at_s == 0
    assert (found.source, found.ttft_count) == ("vllm", 4)
    assert 0 < found.ttft_mean_s <= found.e2e_mean_s


async def test_watching_reads_again_until_it_is_cancelled() -> None:
    async with serving(engine()) as url, sampler_of(url) as sampler:
        task = asyncio.create_task(sampler.watch())
        await until(lambda: len(sampler.samples) >= 2)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        first, second = sampler.samples[:2]
    assert first.at_s < second.at_s and first.source == "vllm"


OK = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "then_hang"),
    [
        (b"", True),
        (OK + b"vllm:num_requests_running 1\n", True),
        (b"", False),
        (b"not HTTP at all\r\n\r\n", False),
        (b"HTTP/1.1 404 Not Found\r\nconnection: close\r\n\r\nvllm:num_requests_running 1\n", False),
        (OK + b"vllm:num_requests_running one\n", False),
        (OK + b"<html>", False),
        (OK + b"#" * 9_000_000, False),
    ],
    ids=["hangs", "hangs half-way", "leaves", "no HTTP", "404", "no number", "no metrics", "too long"],
)
async def test_a_page_that_does_not_come_is_left_out(answer: bytes, then_hang: bool) -> None:
    async with answering(answer, then_hang) as url, sampler_of(url, room="KWXM") as sampler:
        await sampler.begin()
        await sampler.finish()
        assert (sampler.samples, sampler.chain) == ([], None)


async def test_a_server_that_is_not_there_is_left_out() -> None:
    async with sampler_of("http://127.0.0.1:9", room="KWXM") as sampler:
        await sampler.begin()
        await sampler.finish()
        assert sampler.samples == []


async def test_a_rooms_cluster_is_read_from_its_stage(tmp_path: Path) -> None:
    cluster = ScriptedCluster(snapshot(2, nodes=(node(0), node(1), node(2, phase="ordered"))))
    async with web_on(tmp_path / "store", cluster=cluster) as web, listening(web) as url:
        code = await web.room()
        async with sampler_of(url, room=code) as sampler:
            await sampler.begin()
            web.front.parts.fleet.tick()
            await sampler.finish()
            told = [one for one in sampler.samples if one.pods is not None][-1]
            pages = [one for one in sampler.samples if one.source == "gateway"]
    assert (told.pods, told.ready, told.nodes, told.desired, told.usd_per_hour) == (2, 2, 2, 2, 1.11)
    assert len(pages) == 2 and sampler.chain is None


@pytest.mark.parametrize(
    ("before", "after", "ours"),
    [
        ({"chain": None}, {"chain": CHAIN, "since_edge_s": 0.0}, True),
        ({"chain": None}, {"chain": CHAIN, "since_edge_s": 900.0}, False),
        ({"chain": CHAIN, "since_edge_s": 0.0}, {"chain": CHAIN, "since_edge_s": 0.0}, False),
        ({"chain": None}, {"chain": None, "since_edge_s": None}, False),
        ({"chain": None}, {"chain": "<script>", "since_edge_s": 0.0}, False),
    ],
    ids=["new", "began before the run", "the same as before", "none", "nonsense"],
)
async def test_the_delay_chain_is_the_runs_own_or_none(before: dict, after: dict, ours: bool) -> None:
    told = iter([before, after])

    async def stage(scope, receive, send) -> None:
        stream = scope["path"].endswith("/events")
        await send({"type": "http.response.start", "status": 200 if stream else 404, "headers": []})
        event = f"retry: 1000\n\nevent: snapshot\ndata: {json.dumps({'cluster': next(told)})}\n\n" if stream else ""
        await send({"type": "http.response.body", "body": event.encode(), "more_body": stream})
        while stream and (await receive())["type"] != "http.disconnect":
            pass

    async with serving(stage) as url, sampler_of(url, room="KWXM") as sampler:
        await sampler.begin()
        await sampler.finish()
        assert sampler.chain == (CHAIN if ours else None)


def test_the_counters_before_the_run_are_the_last_ones_then() -> None:
    found = counted([page(-60, 0), page(-1, 10, 4.0), page(5, 20, 6.0), page(30, 30, 9.0)])
    assert (found.ttft_count, found.ttft_mean_s, found.e2e_mean_s) == (20, 0.25, 1.25)


def test_a_server_that_began_anew_has_counted_nothing() -> None:
    assert counted([page(-1, 10), page(5, 2), page(10, 40)]) is None
    assert counted([page(-1, 10)]) is None and counted([]) is None
    idle = counted([page(-1, 10), page(5, 10)])
    assert (idle.ttft_count, idle.ttft_mean_s, idle.e2e_mean_s) == (0, None, None)


def test_a_clusters_cost_is_each_price_for_as_long_as_it_held() -> None:
    prices = [(-30.0, 3.6), (10.0, 7.2), (20.0, 3.6), (90.0, 99.0)]
    samples = [ServerSample(at_s=at_s, usd_per_hour=usd) for at_s, usd in prices]
    assert cost_usd(samples, 40.0) == pytest.approx(0.010 + 0.020 + 0.020)
    assert cost_usd([ServerSample(at_s=0.0)], 40.0) is None


def test_a_history_without_a_column_does_not_know_it() -> None:
    first, second = seconds({"t": [100, 101], "pods": [2, 3], "ready": [1, 1], "metric": [0.5, None]})
    assert (first.at_s, first.pods, second.pods, first.nodes, first.usd_per_hour) == (100.0, 2, 3, None, None)
    assert seconds({}) == []


@given(
    st.builds(
        ServerSample,
        at_s=st.floats(-10, 1e5),
        source=st.sampled_from(["vllm", "gateway", ""]),
        running=st.none() | st.floats(0, 1e6),
        ttft_count=st.none() | st.floats(0, 1e6),
        pods=st.none() | st.integers(0, 100),
    )
)
def test_a_sample_is_read_back_as_it_was_written(sample: ServerSample) -> None:
    line = sample.to_json()
    assert ServerSample.from_json(line) == sample
    assert "null" not in line and "\n" not in line


def test_times_count_from_the_runs_start_in_order() -> None:
    found = relative([page(1003.0, 1), page(1001.0, 0)], 1002.0)
    assert [one.at_s for one in found] == [-1.0, 1.0]
    assert found[1] == replace(page(1003.0, 1), at_s=1.0)
