"""The bench of the load tools: its search and its arithmetic, and tiny runs of the real tools whose counts add up."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.engine import profile as profiles
from loadgen.bench_loadgen import report, senders, users
from loadgen.bench_loadgen.report import Run, Sender
from loadgen.bench_loadgen.search import FINENESS, TRIES, highest, next_rate
from loadgen.bench_loadgen.senders import Bare, Server, Step, Times
from loadgen.bench_loadgen.users import Servers
from loadgen.gateway import wire
from loadgen.gateway.report import plain
from loadgen.spike.plan import Prompt
from loadgen.spike.reply import Reply, request

TINY = Times(step_s=2.0, bare_s=1.0, warm_s=0.2, search_s=0.0, stream_users=10)
PROMPT = Prompt("hi", 10)


@given(limit=st.floats(1, 5000), first=st.floats(1, 5000))
def test_the_search_ends_close_below_what_holds(limit: float, first: float) -> None:
    tried: list[tuple[float, bool]] = []
    while (rate := next_rate(tried, first)) is not None:
        tried.append((rate, rate <= limit))
        assert len(tried) < 60
    most = highest(tried)
    if most is None:
        assert limit < 1.5  # nothing below one a second is tried
    else:
        assert most <= limit <= FINENESS * most


def test_a_rate_that_failed_once_is_tried_again() -> None:
    assert next_rate([(100, True), (150, False)], 100) == 150
    assert next_rate([(100, True), (150, False), (150, True)], 100) == pytest.approx(225)
    assert next_rate([(100, True), *[(150, False)] * TRIES], 100) == pytest.approx(122.47, abs=0.01)


def test_no_rate_that_holds_is_no_rate() -> None:
    assert highest([(10, False)]) is None
    assert next_rate([(1.2, False)] * TRIES, 1.2) is None


@pytest.fixture(scope="module")
def stub(tmp_path_factory) -> Iterator[Server]:
    with senders.server(tmp_path_factory.mktemp("stub")) as at:
        yield at


async def ask(port: int) -> Reply:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    asked = request(f"127.0.0.1:{port}", wire.MODEL, PROMPT, source="test")
    try:
        for piece in (asked[:100], asked[100:250], asked[250:]):
            writer.write(piece)
            await writer.drain()
        reply = Reply()
        while not reply.done:
            reply.feed(await reader.read(65536), time.time())
        return reply
    finally:
        writer.close()


@pytest.mark.parametrize(("work", "deliveries"), [("plain", 1), ("stream", wire.TOKENS)])
async def test_the_stub_answers_in_full_and_counts(stub: Server, work: str, deliveries: int) -> None:
    before = await stub.asked(work)
    replies = [await ask(stub.ports[work]) for _ in range(2)]
    assert [reply.error for reply in replies] == ["", ""]
    assert {reply.completion_tokens for reply in replies} == {wire.TOKENS}
    assert all(len(reply.gaps_ms) == deliveries - 1 for reply in replies)
    assert await stub.asked(work) - before == 2


@pytest.mark.parametrize(("tool", "work"), [("k6", "plain"), ("k6", "stream"), ("locust", "plain")])
async def test_what_our_script_sent_is_what_the_server_was_asked(
    stub: Server, tool: str, work: str, tmp_path: Path
) -> None:
    one = await senders.step(tool, work, 10.0, TINY.step_s, stub, None, tmp_path / "step")
    assert one.planned == 20
    assert one.sent == one.served == one.asked
    assert abs(one.planned - one.sent - one.dropped) <= 1
    assert 0 < one.cpu_ms < 2000 * TINY.step_s and one.peak_mb > 10
    table = report.senders_table(a_run(senders=(Sender(tool, "1.2.3", work, (A_BARE,), (one,)),)))
    assert shape(table) == (3 + 1, 10)


@pytest.mark.parametrize(("tool", "told"), [("k6", False), ("k6", True), ("locust", False)])
async def test_the_bare_tool_is_heard_by_the_server(stub: Server, tool: str, told: bool, tmp_path: Path) -> None:
    one = await senders.bare(tool, "plain", TINY, stub, None, tmp_path, told)
    assert one.rate > 0 and one.cpu_ms > 0 and one.peak_mb > 10
    assert one.told is told


async def test_a_tool_that_sends_nothing_says_why(stub: Server, tmp_path: Path) -> None:
    gone = Server(stub.process, {**stub.ports, "stream": stub.ports["plain"]})
    with pytest.raises(senders.Broken, match="must be > 0"):
        await senders.bare("locust", "stream", Times(stream_users=-1), gone, None, tmp_path)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory) -> Iterator[Servers]:
    with users.servers(tmp_path_factory.mktemp("gateway"), profile="instant") as at:
        yield at


@pytest.mark.parametrize(("tool", "shape_name"), [("k6", "at 100/s"), ("locust", "as fast as answered")])
async def test_a_crowd_gets_its_answers_through_the_gateway(
    gateway: Servers, tool: str, shape_name: users.Shape, tmp_path: Path
) -> None:
    one = await users.crowd(tool, shape_name, 50, 2.0, gateway, tmp_path / "run")
    assert one.errors == {}
    assert 0 < one.served == one.sent and not one.lost
    assert 16 <= one.completion_tokens <= 100
    assert one.gateway_cores > 0 and one.replicas_cores > 0
    assert 0 < one.e2e_p50_s <= one.e2e_p95_s
    if shape_name == "at 100/s":
        assert abs(one.sent + one.dropped - 10) <= 1
    run = a_run(crowds=(one,))
    assert shape(report.users_table(run)) == (3 + 1, 9)
    json.dumps(report.to_json(run))


def test_what_replicas_hold_follows_from_their_profile() -> None:
    profile = profiles.load(users.PROFILE)
    work = (Prompt("word " * 30, 50),) * 400
    one, four = (users.capacity_per_s(profile, work, replicas) for replicas in (1, 4))
    assert four == pytest.approx(4 * one)
    step_s = (9.5 + 0.3 * 32) / 1000  # of the profile, with every seat taken
    assert 0.6 * 32 / (50 * step_s) < one < 32 / (50 * step_s)  # prefills and contexts take their part


A_BARE = Bare(False, 1000, 0.9, 0.95, 0.4, 0.0, 60)
A_STEP = Step(
    rate=400,
    planned=2400,
    sent=2400,
    served=2400,
    dropped=0,
    asked=2400,
    lag_p99_s=0.01,
    e2e_p50_s=0.002,
    e2e_p99_s=0.02,
    cpu_ms=1.8,
    cpu_share=0.8,
    beside_share=0.3,
    others_share=0.0,
    peak_mb=200,
)


def a_run(**parts) -> Run:
    return Run(**{"date": "today", "machine": "here", "senders": (), "crowds": (), "capacity_per_s": 112.0, **parts})


def shape(table: str) -> tuple[int, int]:
    """Lines with their head, and cells in each, which are equally many."""
    cells = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("|")]
    assert len({len(row) for row in cells}) == 1
    assert plain(table)
    return len(cells), len(cells[0])


def test_the_table_sets_the_highest_rate_that_held_beside_the_bare_tool() -> None:
    slow = Step(**{**fields(A_STEP), "rate": 600, "lag_p99_s": 0.2})
    lost = Step(**{**fields(A_STEP), "rate": 500, "dropped": 1, "sent": 2399, "served": 2399})
    table = report.senders_table(a_run(senders=(Sender("k6", "1.1.0", "plain", (A_BARE,), (A_STEP, slow, lost)),)))
    assert "| **400** | × 0.40 | 1.80 | × 2.0 | 200 | 10 | 2 / 20 | 2,400 / 2,400 |" in table
    assert "too much" not in table
    table = report.senders_table(a_run(senders=(Sender("k6", "1.1.0", "plain", (A_BARE,), (slow, lost)),)))
    assert "none held" in table


def test_other_programs_are_not_kept_silent() -> None:
    busy = Step(**{**fields(A_STEP), "others_share": 0.4, "beside_share": 0.95})
    table = report.senders_table(a_run(senders=(Sender("k6", "1.1.0", "plain", (A_BARE,), (busy,)),)))
    assert "40% of the machine during a run: too much" in table
    assert "may have been the limit" in table


def fields(step: Step) -> dict:
    return {name: getattr(step, name) for name in Step.__slots__}


def test_the_docs_have_a_place_for_the_tables() -> None:
    text = (Path(__file__).parents[2] / "docs/benchmarks.md").read_text()
    for mark in (report.BEGIN, report.END, report.USERS_BEGIN, report.USERS_END):
        assert text.count(mark) == 1
