"""The probe asks beside the tool, sees each token, and tells of every request, whatever became of it."""

from __future__ import annotations

import asyncio
import json
import time
from itertools import pairwise
from pathlib import Path

import pytest

from loadgen.gateway import wire
from loadgen.processes import free_port
from loadgen.spike.plan import Plan, Prompt, Stage
from loadgen.spike.point import Point, Report, Sent
from loadgen.spike.probe import Probe, rate_per_s
from tests.spike.spike_targets import Busy, Silent, listening, own_certificate


def plan(peak: float = 20, duration_s: float = 0.3, **more: object) -> Plan:
    stages = (Stage(peak, duration_s),)
    return Plan(
        **{"scenario": "spike", "loop": "open", "source": "k6", "work": (Prompt("a", 9),), **more},
        start=peak,
        stages=stages,
    )


async def asked(target: str, of: Plan | None = None, requests: int = 1, **more: object) -> list[Report]:
    """What a probe said until it had that many points."""
    heard: list[Report] = []
    enough = asyncio.Event()

    def hear(report: Report) -> None:
        heard.append(report)
        if sum(isinstance(one, Point) for one in heard) == requests:
            enough.set()

    probe = Probe(of or plan(), target, wire.MODEL, hear, every_s=0.1, **more)
    probe.start(time.time())
    async with asyncio.timeout(15):
        await enough.wait()
    await probe.stop()
    await probe.stop()
    return heard


def points(heard: list[Report]) -> list[Point]:
    return [one for one in heard if isinstance(one, Point)]


async def test_it_sees_every_token_of_each_request() -> None:
    began_s = time.time()
    async with listening() as target:
        heard = await asked(target, requests=3)
    assert {one.n for one in heard if isinstance(one, Sent)} == {0, 1, 2}
    for point in points(heard):
        assert (point.by, point.outcome, point.first_by, point.status) == ("probe", "served", "token", 200)
        assert point.completion_tokens == wire.TOKENS
        assert len(point.gaps_ms) == wire.TOKENS - 1
        assert began_s <= point.due_s <= point.sent_s < point.headers_s < point.first_s < point.ended_s <= time.time()


async def test_it_asks_at_its_times_though_nobody_answers() -> None:
    heard: list[Report] = []
    third = asyncio.Event()

    def hear(report: Report) -> None:
        heard.append(report)
        if len(heard) == 3:
            third.set()

    async with listening(Silent) as target:
        probe = Probe(plan(), target, wire.MODEL, hear, every_s=0.1)
        probe.start(time.time())
        async with asyncio.timeout(15):
            await third.wait()
        await probe.stop()
    assert [type(one) for one in heard] == [Sent] * 3


async def test_it_asks_once_in_each_turn_and_not_at_an_even_pace() -> None:
    began_s = time.time()
    heard = await asked(f"http://127.0.0.1:{free_port()}", plan(duration_s=0.5), requests=5)
    due_s = sorted(one.due_s - began_s for one in points(heard))
    turns = [n * 0.1 <= due <= n * 0.1 + 0.2 for n, due in enumerate(due_s)]  # it began a moment after us
    assert turns == [True] * 5
    assert len({round(later - one, 2) for one, later in pairwise(due_s)}) > 1


@pytest.mark.parametrize("cache_busting", [False, True])
async def test_it_asks_what_the_tool_has_not_sent_yet(cache_busting: bool) -> None:
    prompts: list[str] = []

    class Kept(Busy):
        def data_received(self, data: bytes) -> None:
            prompts.append(json.loads(data.partition(b"\r\n\r\n")[2])["messages"][0]["content"])
            super().data_received(data)

    given = plan(work=tuple(Prompt(word, 9) for word in "abcdef"), cache_busting=cache_busting)
    async with listening(Kept) as target:
        await asked(target, given, requests=3)
    assert [prompt[-1] for prompt in sorted(prompts, key=lambda prompt: prompt[-1])] == ["d", "e", "f"]
    assert not cache_busting or not {given.prompt(n).text for n in range(6)} & set(prompts)


async def test_no_answer_in_time_is_a_failure() -> None:
    async with listening(Silent) as target:
        (point,) = points(await asked(target, plan(duration_s=0.05, timeout_s=0.2)))
    assert (point.outcome, point.error) == ("failed", "no answer within 0.2 s")


async def test_a_refusal_is_a_refusal() -> None:
    async with listening(Busy) as target:
        (point,) = points(await asked(target, plan(duration_s=0.05)))
    assert (point.outcome, point.status, point.error) == ("refused", 503, "503 queue full")


async def test_no_connection_is_a_failure() -> None:
    (point,) = points(await asked(f"http://127.0.0.1:{free_port()}", plan(duration_s=0.05)))
    assert (point.outcome, point.error, point.first_s) == ("failed", "connection refused", None)


async def test_a_strange_certificate_is_taken_only_when_insecure(tmp_path: Path) -> None:
    async with listening(context=own_certificate(tmp_path)) as target:
        (refused,) = points(await asked(target, plan(duration_s=0.05)))
        (taken,) = points(await asked(target, plan(duration_s=0.05), insecure=True))
    assert refused.error == "certificate: self-signed certificate"
    assert (taken.outcome, taken.completion_tokens) == ("served", wire.TOKENS)


async def test_a_closed_loop_has_nothing_due() -> None:
    async with listening() as target:
        (point,) = points(await asked(target, plan(duration_s=0.05, loop="closed")))
    assert point.due_s is None


async def test_what_goes_wrong_in_hearing_it_is_raised() -> None:
    called = asyncio.Event()

    def hear(report: Report) -> None:
        called.set()
        raise KeyError("ours")

    async with listening() as target:
        probe = Probe(plan(), target, wire.MODEL, hear)
        probe.start(time.time())
        async with asyncio.timeout(15):
            await called.wait()
        with pytest.raises(ExceptionGroup):
            await probe.stop()


@pytest.mark.parametrize(("peak", "per_s"), [(1, 0.5), (14, 0.7), (500, 1.0)])
def test_it_asks_seldom_and_yet_at_least_each_two_seconds(peak: float, per_s: float) -> None:
    assert rate_per_s(plan(peak)) == pytest.approx(per_s)
