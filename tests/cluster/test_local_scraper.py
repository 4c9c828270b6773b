"""Scraping as Prometheus does it, with targets that answer, fail and hang."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from inference.cluster.local.scraper import Scraper, Target
from inference.cluster.scraping import Scrapes
from inference.exchange import ConnectionLost
from tests.inference.servers import until

INTERVAL_S = 0.05


@asynccontextmanager
async def scraping() -> AsyncIterator[tuple[Scraper, Scrapes]]:
    scrapes = Scrapes()
    scraper = Scraper(scrapes, INTERVAL_S, time.time)
    try:
        yield scraper, scrapes
    finally:
        await scraper.close()


def page(value: int):
    async def read() -> bytes:
        return b"waiting %d\n" % value

    return read


def seen(scrapes: Scrapes, name: str) -> dict[str, float]:
    return {sample.labels["instance"]: sample.value for sample in scrapes.instant(name, time.time())}


async def test_targets_are_read_again_and_again_and_carry_their_labels():
    pages: list[bytes] = []
    async with scraping() as (scraper, scrapes):
        scraper.add(Target("a", page(7), {"pod": "vllm-a"}, pages.append))
        await until(lambda: len(pages) >= 3)
        (sample,) = scrapes.instant("waiting", time.time())
        assert (sample.value, sample.labels["pod"], sample.labels["instance"]) == (7, "vllm-a", "a")


async def test_each_scrape_tells_how_late_it_began():
    late: list[float] = []
    scraper = Scraper(Scrapes(), INTERVAL_S, time.time, late.append)
    scraper.add(Target("a", page(7), {}))
    await until(lambda: len(late) >= 3)
    await scraper.close()
    assert min(late) >= 0


async def test_target_that_hangs_delays_no_other_and_counts_as_down():
    pages: list[bytes] = []
    never = asyncio.Event()

    async def hang() -> bytes:
        await never.wait()
        return b""

    async with scraping() as (scraper, scrapes):
        scraper.add(Target("hangs", hang, {}))
        scraper.add(Target("answers", page(1), {}, pages.append))
        await until(lambda: len(pages) >= 5 and "hangs" in seen(scrapes, "up"))
        assert seen(scrapes, "up") == {"hangs": 0, "answers": 1}


async def test_failed_scrape_ends_the_series_until_the_next_good_one():
    lost = False

    async def read() -> bytes:
        if lost:
            raise ConnectionLost("it went away")
        return b"waiting 3\n"

    async with scraping() as (scraper, scrapes):
        scraper.add(Target("a", read, {}))
        await until(lambda: seen(scrapes, "waiting") == {"a": 3})
        lost = True
        await until(lambda: seen(scrapes, "up") == {"a": 0})
        assert seen(scrapes, "waiting") == {}
        lost = False
        await until(lambda: seen(scrapes, "waiting") == {"a": 3})


async def test_target_that_raises_what_nobody_expects_counts_as_down_and_is_read_again():
    reads = 0

    async def read() -> bytes:
        nonlocal reads
        reads += 1
        raise KeyError("a mistake of ours")

    async with scraping() as (scraper, scrapes):
        scraper.add(Target("a", read, {}))
        await until(lambda: reads >= 2)
        assert seen(scrapes, "up") == {"a": 0}


async def test_refresh_reads_all_targets_now():
    async with scraping() as (scraper, scrapes):
        scraper.add(Target("a", page(1), {}))
        scraper.add(Target("b", page(2), {}))
        await scraper.refresh()
        assert seen(scrapes, "waiting") == {"a": 1, "b": 2}


async def test_what_is_no_target_any_more_is_forgotten_though_it_was_being_read():
    reading, answer = asyncio.Event(), asyncio.Event()
    closed: list[str] = []

    async def slow() -> bytes:
        reading.set()
        await answer.wait()
        return b"waiting 9\n"

    async with scraping() as (scraper, scrapes):
        scraper.add(Target("a", slow, {}, close=lambda: closed.append("a")))
        refresh = asyncio.create_task(scraper.refresh())
        await reading.wait()
        scraper.remove("a")
        answer.set()
        await refresh
        assert (seen(scrapes, "waiting"), seen(scrapes, "up"), closed) == ({}, {}, ["a"])
