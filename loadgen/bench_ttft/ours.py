"""Our own tools at that work: k6 with its probe and Locust as `crowdspike spike` runs them, and the reader alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import fmean

from loadgen.bench_ttft.work import TIMEOUT_S, Work
from loadgen.spike import folder as folders
from loadgen.spike.order import BAD_INPUT, INTERRUPTED, NOT_WRITTEN, SCRIPT, Order
from loadgen.spike.plan import DRAIN_S
from loadgen.spike.point import Point, Report
from loadgen.spike.preflight import Target
from loadgen.spike.probe import Probe
from loadgen.spike.run import run
from loadgen.spike.tools import k6

TOOLS = {"reader": "our reader alone", "locust": "Locust, our users", "k6": "k6 with our probe"}


class Broken(Exception):
    """A tool did not do its work to the end; the text says why."""


@dataclass(frozen=True, slots=True)
class Client:
    """What a tool measured from the sending: means in seconds, over how many requests; `lost` were planned and not
    answered in full."""

    ttft_mean_s: float
    ttft_count: int
    e2e_mean_s: float
    e2e_count: int
    lost: int


async def measured(tool: str, target: Target, work: Work, salt: str, folder: Path) -> Client:
    """`folder` is there and empty. Raises Broken, KeyboardInterrupt."""
    points = await (_reader(target, work, salt) if tool == "reader" else _harness(tool, target, work, salt, folder))
    return seen(points)


async def tool_version(tool: str) -> str:
    return "" if tool == "reader" else str(await k6.find()) if tool == "k6" else version(tool)


def seen(points: Iterable[Point]) -> Client:
    """k6 sees no tokens come, so with it the TTFT is the probe's requests' and E2E is of all. Raises Broken."""
    points = list(points)
    served = [point for point in points if point.outcome == "served"]
    ttfts = [point.first_s - point.sent_s for point in served if point.first_s is not None]
    if not ttfts:
        raise Broken("it saw no first token")
    e2es = [point.ended_s - point.sent_s for point in served]
    return Client(fmean(ttfts), len(ttfts), fmean(e2es), len(e2es), len(points) - len(served))


async def _harness(tool: str, target: Target, work: Work, salt: str, folder: Path) -> list[Point]:
    order = Order(plan=work.plan(tool, salt), tool=tool, target=target, folder=folder)
    outcome = await run(order, _nothing(), lambda progress: None)
    if outcome.exit_code == INTERRUPTED:
        raise KeyboardInterrupt
    if outcome.exit_code in (BAD_INPUT, NOT_WRITTEN, SCRIPT):
        raise Broken(" ".join(outcome.problems))
    return list(folders.read_run(folder).points())


async def _reader(target: Target, work: Work, salt: str) -> list[Point]:
    heard: list[Point] = []
    all_heard = asyncio.Event()

    def hear(report: Report) -> None:
        if isinstance(report, Point):
            heard.append(report)
            if len(heard) == len(work.texts):
                all_heard.set()

    probe = Probe(work.plan("probe", salt), target.url, target.model, hear, every_s=1 / work.rate, evenly=True)
    probe.start(time.time())
    try:
        async with asyncio.timeout(work.for_s + TIMEOUT_S + DRAIN_S):
            await all_heard.wait()
    except TimeoutError:
        raise Broken(f"{len(heard)} of {len(work.texts)} requests ended") from None
    finally:
        await probe.stop()
    return heard


async def _nothing() -> AsyncIterator[str]:
    """Nobody commands the run."""
    for command in ():
        yield command
