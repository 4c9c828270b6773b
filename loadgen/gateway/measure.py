"""One round of both works on one gateway: what was delivered, how late, and what it cost the gateway's processes."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from loadgen import machine
from loadgen.gateway.clients import Load, Tally
from loadgen.http import Client, Lost

PACED_PER_S = 100.0
PACED_CONNECTIONS = 20


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of each work a round has. `streams`: how many at a time, one run for each number."""

    connections: int = 64
    streams: tuple[int, ...] = (200, 20)
    calls_s: float = 4.0
    paced_s: float = 5.0
    streams_s: float = 4.0
    warm_s: float = 1.5


@dataclass(frozen=True, slots=True)
class Target:
    """What is under load. `pid` is None for the replica itself; `scrape` is a path or empty."""

    name: str
    port: int
    headers: str = ""
    pid: int | None = None
    scrape: str = ""


@dataclass(frozen=True, slots=True)
class Streams:
    """`cpu_us` is CPU time for each token that the clients got."""

    tokens_per_s: float
    cpu_us: float | None
    ttft_p50_ms: float
    ttft_p99_ms: float


@dataclass(frozen=True, slots=True)
class Round:
    """`cpu_ms` is CPU time for each answer; the p50 and p99 are those at 100 requests a second."""

    calls_per_s: float
    cpu_ms: float | None
    p50_ms: float
    p99_ms: float
    streams: dict[int, Streams]
    peak_mb: float | None
    errors: dict[str, int]
    others_share: float
    load_share: float
    """Of a core, at most: what the client took. It shares its core with the replicas."""


async def measure(target: Target, plan: Plan, ours: Sequence[int]) -> Round:
    """`ours` are all processes of the run, which are not "other programs"."""
    errors: Counter[str] = Counter()
    async with machine.watching(ours) as watch, _scraping(target):
        load = _load(target)
        calls = await _run(load, load.calls(plan.connections), target, 0.5, plan.calls_s)
        errors += load.tally.errors
        load = _load(target)
        paced = await _run(load, load.paced(PACED_CONNECTIONS, PACED_PER_S), target, 0.5, plan.paced_s)
        errors += load.tally.errors
        streams = {}
        for count in plan.streams:
            load = _load(target)
            seen = await _run(load, load.streams(count), target, plan.warm_s, plan.streams_s)
            errors += load.tally.errors
            streams[count] = Streams(
                seen.tokens / seen.took_s, _each(seen.cpu_s, seen.tokens, 1e6), seen.at(0.5), seen.at(0.99)
            )
    return Round(
        calls_per_s=calls.answers / calls.took_s,
        cpu_ms=_each(calls.cpu_s, calls.answers, 1e3),
        p50_ms=paced.at(0.5),
        p99_ms=paced.at(0.99),
        streams=streams,
        peak_mb=None if target.pid is None else sum(machine.peak_rss_mb(pid) for pid in tree(target.pid)),
        errors=dict(errors),
        others_share=watch.others_share,
        load_share=watch.cpu_share,
    )


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a window saw. `times_s` are ascending."""

    answers: int
    tokens: int
    cpu_s: float | None
    took_s: float
    times_s: list[float]

    def at(self, share: float) -> float:
        """In ms; NaN when nothing came."""
        return machine.at(self.times_s, share) * 1000 if self.times_s else float("nan")


async def _run(
    load: Load, running: AbstractAsyncContextManager[Tally], target: Target, warm_s: float, for_s: float
) -> _Seen:
    pids = [] if target.pid is None else tree(target.pid)
    async with running as tally:
        await asyncio.sleep(warm_s)
        started, answers, tokens, cpu = time.perf_counter(), tally.answers, tally.tokens, cpu_s(pids)
        await asyncio.sleep(for_s)
        took_s = time.perf_counter() - started
        answers, tokens, cpu = tally.answers - answers, tally.tokens - tokens, cpu_s(pids) - cpu
    # What began in the window, however late it ended; where a gateway is so slow that nothing did, what there is.
    times_s = [took for at, took in tally.times_s if at >= started] or [took for _, took in tally.times_s]
    return _Seen(answers, tokens, cpu if pids else None, took_s, sorted(times_s))


def _load(target: Target) -> Load:
    return Load("127.0.0.1", target.port, target.headers)


def _each(cpu: float | None, count: int, unit: float) -> float | None:
    if cpu is None:
        return None
    return cpu / count * unit if count else float("nan")


@asynccontextmanager
async def _scraping(target: Target) -> AsyncIterator[None]:
    """Reads the metrics once a second, as Prometheus would."""
    if not target.scrape:
        yield
        return
    client = Client([f"http://127.0.0.1:{target.port}"])

    async def scrape() -> None:
        while True:
            with suppress(Lost):  # the load reports what is wrong
                await client.request("GET", target.scrape)
            await asyncio.sleep(1.0)

    task = asyncio.create_task(scrape())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        client.close()


def tree(pid: int) -> list[int]:
    """A process and all that it has started, and those have (proc(5))."""
    pids = [pid]
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in path.read_text().split():
            pids += tree(int(child))
    return pids


def cpu_s(pids: Sequence[int]) -> float:
    """CPU time of the processes so far, of all their threads, user and system.

    The same as in /proc/PID/stat, but in nanoseconds: its steps of 10 ms are coarse for the cheap ones. The number of
    a process's clock is made as clock_getcpuclockid(3) makes it.
    """
    return sum(time.clock_gettime(~pid << 3 | 2) for pid in pids)


def resident_mb(pids: Sequence[int]) -> float:
    """Memory that the processes hold now, in 10^6 bytes (proc(5): VmRSS); shared pages count for each."""
    total = 0
    for pid in pids:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        total += next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
    return total * 1024 / 1e6
