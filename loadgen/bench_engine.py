"""`make bench-engine`: how many tokens simulated replicas stream on one core, at what cost, and how evenly they come.

Two works. *Speed*: ten replicas share a core, each with 32 streams and steps of 1 ms, more than the core can do.
*Smoothness*: one replica with the profile of an A10G and 32 streams; what their client sees between two tokens, beside
the same requests in simulated time, where every token comes when it is due. The client has the other core.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import urllib.request
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from time import perf_counter

import uvloop

from inference.engine import profile as profiles
from inference.engine.core import Core
from inference.engine.profile import Profile
from inference.engine.simulation import Arrival, run
from loadgen import machine, processes
from loadgen.processes import Process

REPLICAS = 10
STREAMS = 32
AIM_TOKENS_PER_S = 20_000
FAST_TOKENS = 400
SMOOTH_TOKENS = 300
SMOOTH_PROFILE = "a10g-mistral-7b-awq"
PROMPT_TOKENS = 20
WARM_UP_S = 2.0
RESULTS = Path("bench-results")


@dataclass(frozen=True, slots=True)
class Speed:
    """What all replicas did together while they were measured. `events` is what the client received of `tokens`."""

    seconds: float
    tokens: float
    events: float
    cpu_s: float
    peak_mb: float  # of the largest

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.seconds

    @property
    def cpu_us_per_token(self) -> float:
        return self.cpu_s / self.tokens * 1e6

    @property
    def tokens_per_busy_core(self) -> float:
        return self.tokens / self.cpu_s


@dataclass(frozen=True, slots=True)
class Smoothness:
    """Quantiles of the time between two tokens of a stream, in ms: as received, and as they were due."""

    seen_ms: dict[str, float]
    ideal_ms: dict[str, float]


@dataclass
class Stream(asyncio.Protocol):
    """One connection: asks, counts the tokens of the answer, and asks again while `again` says so."""

    request: bytes
    again: bool
    tokens: int = 0
    times_s: list[float] = field(default_factory=list)
    keep_times: bool = False
    _tail: bytes = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        transport.write(self.request)

    def close(self) -> None:
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        new = data.count(b'"text":"')
        self.tokens += new
        if self.keep_times:
            self.times_s += [perf_counter()] * new
        end = self._tail + data[-24:]
        self._tail = data[-24:]
        if b"[DONE]" in end:
            self._tail = b""
            if self.again:
                self._transport.write(self.request)
            else:
                self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self.ended.set_result(None)


def request(port: int, max_tokens: int) -> bytes:
    """A streamed completion of exactly so many tokens, with a prompt of PROMPT_TOKENS ids."""
    prompt = list(range(100, 100 + PROMPT_TOKENS))
    asked = {"prompt": prompt, "max_tokens": max_tokens, "ignore_eos": True, "stream": True}
    body = json.dumps(asked).encode()
    lines = (
        "POST /v1/completions HTTP/1.1\r\nhost: 127.0.0.1:{}\r\ncontent-type: application/json\r\ncontent-length: {}"
    )
    return lines.format(port, len(body)).encode() + b"\r\n\r\n" + body


async def measure_speed(replicas: list[Process], seconds: float, warm_up_s: float = WARM_UP_S) -> Speed:
    loop = asyncio.get_running_loop()
    streams = []
    for replica in replicas:
        for _ in range(STREAMS):
            stream = Stream(request(replica.port, FAST_TOKENS), again=True)
            streams.append(stream)
            await loop.create_connection(lambda s=stream: s, "127.0.0.1", replica.port)
    await asyncio.sleep(warm_up_s)
    begin = await _sample(replicas, streams)
    await asyncio.sleep(seconds)
    end = await _sample(replicas, streams)
    for stream in streams:
        stream.again = False
        stream.close()
    await asyncio.gather(*(stream.ended for stream in streams))
    took = (b - a for a, b in zip(begin, end, strict=True))
    return Speed(*took, peak_mb=max(machine.peak_rss_mb(r.pid) for r in replicas))


async def measure_smoothness(replica: Process, profile: Profile, tokens: int = SMOOTH_TOKENS) -> Smoothness:
    loop = asyncio.get_running_loop()
    streams = [Stream(request(replica.port, tokens), again=False, keep_times=True) for _ in range(STREAMS)]
    for stream in streams:
        await loop.create_connection(lambda s=stream: s, "127.0.0.1", replica.port)
    await asyncio.gather(*(stream.ended for stream in streams))
    short = [s for s in streams if s.tokens != tokens]
    if short:
        raise RuntimeError(f"{len(short)} streams have not all their tokens")
    core = Core(profile.capacity, profile.step_s, async_scheduling=profile.async_scheduling)
    served = run(core, [Arrival(0.0, PROMPT_TOKENS, tokens)] * STREAMS)
    return Smoothness(_gaps([s.times_s for s in streams]), _gaps([s.token_s for s in served]))


def _gaps(streams: list[list[float]] | list[tuple[float, ...]]) -> dict[str, float]:
    gaps = sorted((b - a) * 1000 for times in streams for a, b in pairwise(times))
    return {name: machine.at(gaps, share) for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))}


async def _sample(replicas: list[Process], streams: list[Stream]) -> tuple[float, float, float, float]:
    """Now: seconds, tokens, events, CPU seconds. Asking busy replicas takes a while; all is as of its middle."""
    before = perf_counter(), sum(s.tokens for s in streams), sum(machine.cpu_s(r.pid) for r in replicas)
    tokens = await asyncio.to_thread(_generated, replicas)
    after = perf_counter(), sum(s.tokens for s in streams), sum(machine.cpu_s(r.pid) for r in replicas)
    seconds, events, cpu_s = ((a + b) / 2 for a, b in zip(before, after, strict=True))
    return seconds, tokens, events, cpu_s


def _generated(replicas: list[Process]) -> int:
    """Tokens by the replicas' own count."""
    total = 0.0
    for replica in replicas:
        with urllib.request.urlopen(f"{replica.url}/metrics", timeout=10) as page:
            line = next(line for line in page if line.startswith(b"vllm:generation_tokens_total{"))
        total += float(line.rsplit(b" ", 1)[1])
    return int(total)


def report(speed: Speed, smooth: Smoothness) -> str:
    rows = [
        ("streamed tokens/s", f"{speed.tokens_per_s:,.0f}", f"{speed.tokens_per_s / AIM_TOKENS_PER_S:.2f} of the aim"),
        (
            "events received/s",
            f"{speed.events / speed.seconds:,.0f}",
            f"{speed.events / speed.tokens:.2f} of the tokens",
        ),
        ("CPU µs per token", f"{speed.cpu_us_per_token:.1f}", f"{speed.cpu_s / speed.seconds:.2f} cores busy"),
        ("tokens/s, core to itself", f"{speed.tokens_per_busy_core:,.0f}", "tokens per CPU second"),
        ("memory, largest replica", f"{speed.peak_mb:.0f} MB", ""),
    ]
    for name, seen in smooth.seen_ms.items():
        ideal = smooth.ideal_ms[name]
        rows.append((f"ITL {name}, a10g", f"{seen:.2f} ms", f"{seen / ideal:.2f} of the ideal {ideal:.2f} ms"))
    return "\n".join(f"{name:26}{value:>14}   {ratio}" for name, value, ratio in rows)


async def measure(
    seconds: float, replicas: int, folder: Path, core: int | None
) -> tuple[Speed, Smoothness, machine.Watch]:
    with ExitStack() as stack:
        options = ("--profile", str(_fast_profile(folder)))
        fast = [_started(stack, folder, core, f"fast-{i}", *options) for i in range(replicas)]
        for replica in fast:
            await asyncio.to_thread(replica.wait_ready)
        async with machine.watching([r.pid for r in fast]) as watch:
            speed = await measure_speed(fast, seconds)
    with ExitStack() as stack:
        smooth = _started(stack, folder, core, "smooth", "--profile", SMOOTH_PROFILE)
        await asyncio.to_thread(smooth.wait_ready)
        return speed, await measure_smoothness(smooth, profiles.load(SMOOTH_PROFILE)), watch


def _started(stack: ExitStack, folder: Path, core: int | None, name: str, *options: str) -> Process:
    port = processes.free_port()
    command = [sys.executable, "-m", "inference.engine", "--port", str(port), *options]
    process = Process(command, port, "/health", folder / f"{name}.log", core=core)
    stack.callback(process.end)
    return process


def _fast_profile(folder: Path) -> Path:
    """Steps of 1 ms, whatever is in them."""
    fast = profiles.load("instant").with_values({"step_base_ms": 1.0}, "chosen by the bench", "2026-11-21")
    path = folder / "fast.yaml"
    path.write_text(profiles.dump(fast), encoding="utf-8")
    return path


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m loadgen.bench_engine", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="how long speed is measured (%(default)g)")
    parser.add_argument("--replicas", type=int, default=REPLICAS, help="on the one core (%(default)s)")
    args = parser.parse_args()
    if sys.platform != "linux":
        print("This bench reads CPU time and memory from /proc: it needs Linux.", file=sys.stderr)
        return 2
    about = machine.description()
    cores = machine.two_cores()
    print(f"{args.replicas} replicas of {STREAMS} streams each on {about}", flush=True)
    print("The replicas on one core, their client on another." if cores else "All on one core.", flush=True)
    machine.allow_connections(args.replicas * STREAMS)
    if cores:
        os.sched_setaffinity(0, {cores[0]})
    with tempfile.TemporaryDirectory() as folder, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        core = cores[1] if cores else None
        speed, smooth, watch = runner.run(measure(args.seconds, args.replicas, Path(folder), core))
    print(f"\n{report(speed, smooth)}\n\n{watch.report()}")
    RESULTS.mkdir(exist_ok=True)
    found = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": about,
        "replicas": args.replicas,
        "streams": STREAMS,
        "speed": {**asdict(speed), "tokens_per_s": speed.tokens_per_s, "cpu_us_per_token": speed.cpu_us_per_token},
        "smoothness": asdict(smooth),
        "others_share": watch.others_share,
    }
    (RESULTS / "engine.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0 if speed.tokens_per_s >= AIM_TOKENS_PER_S else 1


if __name__ == "__main__":
    sys.exit(main())
