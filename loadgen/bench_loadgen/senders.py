"""One tool on one core against the stub: our script at a rate, and the tool's own bare minimum as fast as it can."""

from __future__ import annotations

import asyncio
import math
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from loadgen.bench_loadgen.meter import Meter, metering
from loadgen.bench_loadgen.search import next_rate
from loadgen.bench_loadgen.stub import ASKED
from loadgen.gateway import wire
from loadgen.http import Client
from loadgen.processes import Process, free_port, on_core
from loadgen.spike.collector import Collector
from loadgen.spike.folder import PLAN
from loadgen.spike.latency import Quantiles
from loadgen.spike.plan import Plan, Prompt, Stage
from loadgen.spike.tools import k6
from loadgen.spike.tools.tool import Job
from loadgen.spike.tools.toolbox import tool_for
from loadgen.spike.verdict import LOST

HERE = Path(__file__).parent
WORKS = ("plain", "stream")
TOOLS = ("k6", "locust")
LAG_S = 0.05
"""A rate holds when 99 of 100 requests go out no later than this after they were due."""
FIRST_SHARE = 0.2
"""Of the tool's own ceiling: where the search begins."""
LASTS_S = {"plain": 0.0, "stream": wire.TOKENS * wire.EVERY_S}
IN_FLIGHT = 500
"""As a run has it by default."""
PLAIN_USERS = 64
END_WITHIN_S = 90.0
_PROMPT = Prompt("What does a crowd of phones cost a server? A little for each poll.", 80)


class Broken(Exception):
    """A tool did not do its work to the end."""


@dataclass(frozen=True, slots=True)
class Times:
    """How long each step and the bare run last, and the warm-up of the latter; no step of a search begins later than
    `search_s` after its first. Seconds. `stream_users` ask at once in the bare run: a stream lasts 0.74 s, so it takes
    many to keep a core busy."""

    step_s: float = 6.0
    bare_s: float = 6.0
    warm_s: float = 3.0
    search_s: float = 75.0
    stream_users: int = 1000


@dataclass(frozen=True, slots=True)
class Step:
    """One run of our script at `rate` requests a second. `asked` is the server's own count. `cpu_ms` is the tool's CPU
    time per request, the shares are of one core, `others_share` of the machine; latencies in seconds."""

    rate: float
    planned: int
    sent: int
    served: int
    dropped: int
    asked: int
    lag_p99_s: float
    e2e_p50_s: float
    e2e_p99_s: float
    cpu_ms: float
    cpu_share: float
    beside_share: float
    others_share: float
    peak_mb: float

    @property
    def held(self) -> bool:
        """All served in full; a tool may round the last one away, as `verdict` allows."""
        whole = self.served == self.sent >= self.planned - LOST and not self.dropped
        return whole and self.lag_p99_s < LAG_S


@dataclass(frozen=True, slots=True)
class Bare:
    """What the tool does without us, in requests a second. `told`: it prints its own points meanwhile, as for us."""

    told: bool
    rate: float
    cpu_ms: float
    cpu_share: float
    beside_share: float
    others_share: float
    peak_mb: float


@dataclass(frozen=True, slots=True)
class Server:
    process: Process
    ports: dict[str, int]

    def url(self, work: str) -> str:
        return f"http://127.0.0.1:{self.ports[work]}"

    async def asked(self, work: str) -> int:
        """How many requests it has had for this work. Raises Lost."""
        client = Client([self.url(work)])
        try:
            return int((await client.request("GET", ASKED)).body)
        finally:
            client.close()


@contextmanager
def server(folder: Path) -> Iterator[Server]:
    """On whatever cores this process has. Raises NotReady."""
    ports = {work: free_port() for work in WORKS}
    command = [sys.executable, "-m", "loadgen.bench_loadgen.stub", *(str(ports[work]) for work in WORKS)]
    with ExitStack() as stack:
        process = Process(command, ports["plain"], "/health", folder / "stub.log")
        stack.callback(process.end)
        process.wait_ready()
        yield Server(process, ports)


def plan(tool: str, work: str, rate: float, for_s: float) -> Plan:
    """Of streams twice as many may be under way as there are on average, so that what limits is the tool."""
    return Plan(
        "soak",
        "open",
        rate,
        (Stage(rate, for_s),),
        tool,
        model=wire.MODEL,
        work=(_PROMPT,),
        timeout_s=30.0,
        max_in_flight=max(IN_FLIGHT, math.ceil(2 * LASTS_S[work] * rate)),
    )


def _job(planned: Plan, url: str, folder: Path) -> Job:
    folder.mkdir(parents=True)
    (folder / PLAN).write_text(planned.to_json())
    return Job(planned, url, folder)


async def step(
    tool_name: str, work: str, rate: float, for_s: float, at: Server, core: int | None, folder: Path
) -> Step:
    """Raises ToolFailed, Lost, TimeoutError, or Broken."""
    planned = plan(tool_name, work, rate, for_s)
    collector = Collector(planned, False, tool_name)
    before = await at.asked(work)
    tool = tool_for(tool_name, _job(planned, at.url(work), folder))
    try:
        with on_core(core):
            await tool.arm()
        async with metering(lambda: tool.pids, at.process.pid) as meter, asyncio.timeout(for_s + END_WITHIN_S):
            await tool.fire()
            async for report in tool.reports():
                collector.hear(report)
            ending, words = await tool.ending()
    finally:
        tool.kill()
    if ending != "done":
        raise Broken(f"{tool_name} at {rate:.0f}/s: {ending} {words}")
    points = collector.close()
    sent = [point for point in points if point.sent_s is not None]
    served = [point for point in sent if point.outcome == "served"]
    lag = Quantiles.of(max(0.0, point.sent_s - point.due_s) for point in sent)
    e2e = Quantiles.of(point.ended_s - point.due_s for point in served)
    return Step(
        rate=rate,
        planned=planned.planned,
        sent=len(sent),
        served=len(served),
        dropped=len(points) - len(sent),
        asked=await at.asked(work) - before,
        lag_p99_s=lag.p99 if lag else math.inf,
        e2e_p50_s=e2e.p50 if e2e else math.inf,
        e2e_p99_s=e2e.p99 if e2e else math.inf,
        **_used(meter, len(sent)),
    )


async def search(
    tool: str, work: str, first: float, times: Times, at: Server, core: int | None, folder: Path
) -> list[Step]:
    """All steps, in order. Raises as `step`."""
    steps: list[Step] = []
    end_s = time.monotonic() + times.search_s
    while rate := next_rate([(one.rate, one.held) for one in steps], first):
        if steps and time.monotonic() > end_s:
            break
        steps.append(await step(tool, work, rate, times.step_s, at, core, folder / f"{len(steps)}"))
        print(f"{tool:6} {work:6} {_in_short(steps[-1])}", flush=True)
    return steps


async def bare(
    tool: str, work: str, times: Times, at: Server, core: int | None, folder: Path, told: bool = False
) -> Bare:
    """Raises ToolFailed, Lost, TimeoutError, or Broken. `folder` is there."""
    for_s = times.warm_s + times.bare_s + 30.0  # we end it
    users = times.stream_users if work == "stream" else PLAIN_USERS
    command = await _command(tool, at.url(work), users, for_s, told)
    environment = {"BODY": wire.question(stream=work == "stream").decode()}
    before = await at.asked(work)
    process = Process(command, 0, "", folder / f"bare-{tool}-{work}.log", environment, core)
    try:
        async with asyncio.timeout(END_WITHIN_S):
            while await at.asked(work) == before and process.running:  # noqa: ASYNC110 (another process counts)
                await asyncio.sleep(0.05)
        if not process.running:
            raise Broken(f"{tool} sent nothing: {process.log()[-500:]}")
        await asyncio.sleep(times.warm_s)
        async with metering(lambda: [process.pid] if process.running else [], at.process.pid) as meter:
            before = await at.asked(work)
            await asyncio.sleep(times.bare_s)
        asked = await at.asked(work) - before
        if not asked or not process.running:
            raise Broken(f"{tool} did not go on: {process.log()[-500:]}")
    finally:
        process.kill()
    found = Bare(told, asked / meter.took_s, **_used(meter, asked))
    print(f"{tool:6} {work:6} {'bare, told' if told else 'bare':10} {_bare_in_short(found)}", flush=True)
    return found


async def _command(tool: str, url: str, users: int, for_s: float, told: bool) -> list[str]:
    if tool == "k6":
        command = [(await k6.find()).path, "run", "--address", f"127.0.0.1:{free_port()}", "--no-usage-report"]
        settings = {"TARGET": url, "USERS": users, "DURATION": f"{for_s:.0f}s"}
        command += [part for name, value in settings.items() for part in ("-e", f"{name}={value}")]
        command += ["--out", "json=/dev/null", "--system-tags="] if told else []
        return [*command, "--quiet", str(HERE / "bare.js")]
    command = [sys.executable, "-m", "locust", "--headless", "--only-summary", "-f", str(HERE / "bare.py")]
    return [*command, "--host", url, "-u", str(users), "-r", str(users), "-t", f"{for_s:.0f}s"]


def _used(meter: Meter, requests: int) -> dict[str, float]:
    return {
        "cpu_ms": meter.tool_s / requests * 1000 if requests else math.inf,
        "cpu_share": meter.tool_s / meter.took_s,
        "beside_share": meter.beside_s / meter.took_s,
        "others_share": meter.others_s / meter.took_s / (os.cpu_count() or 1),
        "peak_mb": meter.peak_mb,
    }


def _in_short(one: Step) -> str:
    text = f"{one.rate:7.1f}/s {'held' if one.held else 'NOT held'}  {one.served:,} of {one.planned:,} served"
    text += f", {one.dropped:,} dropped  lag p99 {one.lag_p99_s * 1000:.0f} ms"
    text += f"  E2E {one.e2e_p50_s * 1000:.0f} / {one.e2e_p99_s * 1000:.0f} ms  {one.cpu_ms:.2f} ms CPU"
    text += f"  core {one.cpu_share:.0%}, server and us {one.beside_share:.0%}, others {one.others_share:.0%}"
    return f"{text}  {one.peak_mb:.0f} MB"


def _bare_in_short(one: Bare) -> str:
    text = f"{one.rate:,.0f}/s  {one.cpu_ms:.2f} ms CPU  core {one.cpu_share:.0%}"
    return f"{text}, server and us {one.beside_share:.0%}, others {one.others_share:.0%}  {one.peak_mb:.0f} MB"
