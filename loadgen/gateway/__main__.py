"""`make bench-gateway`: every gateway on one core, replicas and clients on the other, round by round in turn."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import uvloop

from loadgen import machine
from loadgen.gateway import profile, report
from loadgen.gateway.clients import Load
from loadgen.gateway.measure import Plan, Round, Target, measure, resident_mb, tree
from loadgen.gateway.peers import ALL, PEERS, ROOT, Crowdspike, NotInstalled, Peer, Place
from loadgen.processes import NotReady, Process, free_port

REPLICAS = 4
ANSWERS_WITHIN_S = 120.0
BOUND_S = 600.0
"""No round begins when it could end later than this after the first."""
QUICK = Plan(calls_s=1.5, paced_s=2.0, streams_s=2.0, warm_s=1.2)
PROFILE_S = 10
PAGE = ROOT / "docs/benchmarks.md"
RESULTS = ROOT / "bench-results"


class Bench:
    """Everything that was started, to be ended with it."""

    def __init__(self, folder: Path, stack: ExitStack, core: int | None) -> None:
        self.failed: dict[str, str] = {}
        self.targets: list[Target] = []
        self.idle_mb: dict[str, float] = {}
        self.folder = folder
        self._stack = stack
        self._core = core
        self._ports = [free_port() for _ in range(REPLICAS)]
        command = [sys.executable, "-m", "loadgen.gateway.stub", *map(str, self._ports)]
        self._stub = Process(command, self._ports[0], "/health", folder / "stub.log")
        stack.callback(self._stub.end)
        self._stub.wait_ready()
        self.targets.append(Target(report.DIRECT, self._ports[0]))

    def start(self, peer: Peer | Crowdspike) -> None:
        """Installs and starts it; one that does not answer is noted in `failed`, and the run goes on without it."""
        folder = self.folder / peer.name
        folder.mkdir()
        try:
            print(f"{peer.name}: starting …", flush=True)
            peer.install()
            started = peer.start(Place(folder, free_port(), self._ports, self._core))
            self._stack.callback(started.process.end)
            started.process.wait_ready(within_s=ANSWERS_WITHIN_S)
            target = Target(peer.name, started.process.port, started.headers, started.process.pid, started.scrape)
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(_answers(target, started.process))
        except (NotInstalled, NotReady) as error:
            self.failed[peer.name] = _in_a_line(error)
            print(f"{peer.name}: {error}", file=sys.stderr, flush=True)
            return
        self.idle_mb[peer.name] = resident_mb(tree(started.process.pid))
        self.targets.append(target)

    def pids(self) -> list[int]:
        """Of all that runs now."""
        return [self._stub.pid, *(pid for target in self.targets if target.pid for pid in tree(target.pid))]


async def _answers(target: Target, process: Process) -> None:
    """Waits until both works go through. Raises NotReady."""
    give_up_at = time.monotonic() + ANSWERS_WITHIN_S
    while True:
        calls, streams = (Load("127.0.0.1", target.port, target.headers) for _ in range(2))
        try:
            async with calls.calls(1), streams.streams(1):
                await asyncio.sleep(1.5)
            if calls.tally.answers and streams.tally.answers:
                return
            reason = dict(calls.tally.errors + streams.tally.errors) or "no answer"
        except OSError as error:
            reason = str(error)
        if time.monotonic() > give_up_at or not process.running:
            raise NotReady(f"{target.name} does not answer: {reason}\n{process.log()[-1500:]}")


def _in_a_line(error: Exception) -> str:
    if isinstance(error, NotInstalled):
        return f"did not install: {str(error)[:300]}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if "does not answer" in lines[0]:
        return f"did not answer within {ANSWERS_WITHIN_S:g} s"
    reason = next((line for line in reversed(lines) if "error:" in line.lower()), lines[-1])
    return f"did not start: {reason[:300]}"


def rounds(bench: Bench, plan: Plan, count: int) -> dict[str, list[Round]]:
    """Each round takes every target in turn, so that a machine that grows busier is unfair to none."""
    seen: dict[str, list[Round]] = {target.name: [] for target in bench.targets}
    began = time.monotonic()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for i in range(count):
            took_s = (time.monotonic() - began) / i if i else 0.0
            if time.monotonic() - began + took_s > BOUND_S:
                print(f"Stopped after {i} rounds: another would take too long.", flush=True)
                break
            for target in list(bench.targets):
                try:
                    one = runner.run(measure(target, plan, bench.pids()))
                except (OSError, RuntimeError) as error:  # what /proc and sockets say of a process that is no more
                    if target.name == report.DIRECT:
                        raise
                    bench.failed[target.name] = f"ended in round {i + 1}: {error}"
                    bench.targets.remove(target)
                    print(f"round {i + 1}  {target.name} {bench.failed[target.name]}", file=sys.stderr, flush=True)
                    continue
                seen[target.name].append(one)
                print(f"round {i + 1}  {target.name:18} {_in_short(one)}", flush=True)
    return seen


def samples(bench: Bench, seen: dict[str, list[Round]]) -> str:
    """The table of where our time goes. Empty when it can't be had."""
    target = next((target for target in bench.targets if target.name == report.OURS), None)
    if target is None or not seen[report.OURS]:
        return ""
    cpu_ms = statistics.median(one.cpu_ms for one in seen[report.OURS])
    cpu_us = statistics.median(one.streams[200].cpu_us for one in seen[report.OURS])
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            profiles = [
                runner.run(profile.profile(target, work, count, PROFILE_S, bench.folder))
                for work, count in (("calls", 64), ("streams", 200))
            ]
    except NotInstalled as error:
        print(f"No profile: {error}", file=sys.stderr)
        return ""
    except subprocess.CalledProcessError as error:
        print(f"No profile: {error.stderr.decode(errors='replace')[-500:]}", file=sys.stderr)
        return ""
    return profile.markdown(*profiles, cpu_ms, cpu_us)


def _in_short(one: Round) -> str:
    cost = "" if one.cpu_ms is None else f"  {one.cpu_ms:.3f} ms CPU"
    text = f"{one.calls_per_s:8,.0f} requests/s{cost}  p99 {one.p99_ms:.2f} ms"
    for count, streams in one.streams.items():
        cost = "" if streams.cpu_us is None else f"  {streams.cpu_us:.1f} µs CPU"
        text += f" | {count} streams {streams.tokens_per_s:,.0f} tokens/s{cost}  TTFT p99 {streams.ttft_p99_ms:.1f} ms"
    text += f" | load's CPU {one.load_share:.0%}, others {one.others_share:.0%}"
    return text + (f" | ERRORS {dict(one.errors)}" if one.errors else "")


def _args() -> argparse.Namespace:
    names = [peer.name for peer in ALL]
    parser = argparse.ArgumentParser(prog="python -m loadgen.gateway", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="(%(default)s)")
    parser.add_argument("--only", default=",".join(names), metavar="NAMES", help="separated by commas (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="one short round: shows that all works, not what it costs")
    parser.add_argument("--profile", action="store_true", help="then sample where our time goes, with py-spy")
    parser.add_argument("--write-docs", action="store_true", help=f"put the tables into {PAGE.relative_to(ROOT)}")
    args = parser.parse_args()
    args.only = args.only.split(",")
    if unknown := set(args.only) - set(names):
        parser.error(f"no such gateway: {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    return args


def main() -> int:
    args = _args()
    where = machine.description()
    print(f"On {where}\nEvery gateway on one core; replicas and clients share another.\n", flush=True)
    machine.allow_connections(2000)
    PEERS.mkdir(exist_ok=True)
    chosen = [peer for peer in ALL if peer.name in args.only]
    cores = machine.two_cores()
    if cores:
        os.sched_setaffinity(0, {cores[1]})  # ours and, as they inherit it, the replicas'
    try:
        with tempfile.TemporaryDirectory(prefix="crowdspike-bench-") as name, ExitStack() as stack:
            bench = Bench(Path(name), stack, cores[0] if cores else None)
            for peer in chosen:
                bench.start(peer)
            seen = rounds(bench, QUICK if args.quick else Plan(), 1 if args.quick else args.rounds)
            sampled = samples(bench, seen) if args.profile else ""
    except NotReady as error:
        print(f"The run did not end: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    now = datetime.now(UTC)
    versions = {p.name: p.requirement.partition("==")[2] for p in chosen if isinstance(p, Peer)}
    run = report.Run(f"{now:%Y-%m-%d}", where, seen, bench.idle_mb, versions, bench.failed)
    table = report.markdown(run)
    print("\n" + report.plain(table))
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"gateway-{now:%Y%m%dT%H%M%S}.json"
    path.write_text(json.dumps(report.to_json(run), indent=1))
    print(f"\nAll rounds: {path.relative_to(ROOT)}")
    if sampled:
        print("\n" + report.plain(sampled))
    if args.write_docs:
        report.write_docs(PAGE, table, report.BEGIN, report.END)
    if args.write_docs and sampled:
        report.write_docs(PAGE, sampled, profile.BEGIN, profile.END)
    return 0


if __name__ == "__main__":
    sys.exit(main())
