"""Where our gateway's time goes, by part of the program: sampled by py-spy while a work runs."""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from loadgen.gateway.clients import Load
from loadgen.gateway.measure import Target
from loadgen.gateway.peers import Peer

BEGIN, END = "<!-- bench-gateway-profile: begin -->", "<!-- bench-gateway-profile: end -->"
SPY = Peer("py-spy", "", lambda *_: [], "py-spy==0.4.3")
PER_S = 100
# The first that matches a sample's innermost Python function takes it; what that function calls in C counts with it.
PARTS = (
    ("event loop and its system calls (uvloop)", r"Runner\.run \(|\(asyncio/"),
    ("HTTP towards the client (uvicorn)", r"\(uvicorn/"),
    ("HTTP towards the replica, its writes (`inference/exchange.py`)", r"\(inference/(upstream|exchange)"),
    ("choice of the replica (`inference/pool.py`)", r"\(inference/"),
    ("keys, limits, caps, log", r"webapp/gateway/(keys|quota|caps|log)|\((limits|logging)/"),
    ("metrics", r"webapp/gateway/metrics|inference/histogram|\(prometheus_client/"),
    ("ticket, line, stream, writes to the client (rest of `webapp/gateway`)", r"\(webapp/"),
    ("JSON", r"\(json/"),
    ("everything else", ""),
)


@dataclass(frozen=True, slots=True)
class Profile:
    """`stacks`: how often each was seen, outermost function first."""

    work: str
    stacks: dict[tuple[str, ...], int]


async def profile(target: Target, work: str, connections: int, for_s: int, folder: Path) -> Profile:
    """`work` is `calls` or `streams`. Raises NotInstalled, or CalledProcessError where tracing is forbidden."""
    SPY.install()
    load = Load("127.0.0.1", target.port, target.headers)
    running = load.calls(connections) if work == "calls" else load.streams(connections)
    raw = folder / f"{work}.raw"
    # Without --native: to unwind C stops the gateway so long that tokens pile up and pass in one piece.
    options = ["--pid", str(target.pid), "--duration", str(for_s), "--rate", str(PER_S), "--format", "raw"]
    command = [str(SPY.home / "bin/py-spy"), "record", *options, "--output", str(raw)]
    async with running:
        await asyncio.sleep(1.5)
        await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)
    return Profile(work, parse(raw.read_text().splitlines()))


def parse(lines: Iterable[str]) -> dict[tuple[str, ...], int]:
    """py-spy's raw format: functions, outermost first, separated by semicolons, then a count.

    Threads that wait for work are left out: py-spy sometimes takes one for busy.
    """
    stacks: Counter[tuple[str, ...]] = Counter()
    for line in lines:
        functions, _, count = line.rpartition(" ")
        if "_worker (concurrent/futures/thread.py" not in functions.rpartition(";")[2]:
            stacks[tuple(functions.split(";"))] += int(count)
    return stacks


def shares(stacks: dict[tuple[str, ...], int]) -> dict[str, float]:
    """The share of the samples that each part has."""
    seen: Counter[str] = Counter()
    for functions, count in stacks.items():
        innermost = next((name for name in reversed(functions) if ".py" in name), "")
        seen[next(part for part, pattern in PARTS if re.search(pattern, innermost))] += count
    total = sum(seen.values()) or 1
    return {part: seen[part] / total for part, _ in PARTS}


def markdown(calls: Profile, streams: Profile, cpu_ms: float, cpu_us: float) -> str:
    """`cpu_ms` is what a request costs, `cpu_us` a token, as measured without py-spy."""
    lines = [f"| where | requests: {cpu_ms * 1000:.0f} µs each | streams: {cpu_us:.1f} µs a token |", "|---|---|---|"]
    of_calls, of_streams = shares(calls.stacks), shares(streams.stacks)
    for part in of_calls:
        call, event = of_calls[part], of_streams[part]
        cells = [part, f"{call * cpu_ms * 1000:.0f} µs ({call:.0%})", f"{event * cpu_us:.1f} µs ({event:.0%})"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
