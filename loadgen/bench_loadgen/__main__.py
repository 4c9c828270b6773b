"""`make bench-loadgen`: the highest rate that k6 and Locust hold with our scripts on one core, beside what each can do
by itself; then a thousand users of our gateway before four simulated A10G."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from loadgen import machine
from loadgen.bench_loadgen import report, senders, users
from loadgen.bench_loadgen.report import Run, Sender
from loadgen.bench_loadgen.senders import FIRST_SHARE, TOOLS, WORKS, Broken, Times
from loadgen.bench_loadgen.users import SHAPES, USERS, Crowd
from loadgen.gateway.report import plain, write_docs
from loadgen.http import Lost
from loadgen.processes import NotReady, on_core
from loadgen.spike.folder import BadFolder
from loadgen.spike.preflight import BadTarget
from loadgen.spike.tools import k6
from loadgen.spike.tools.tool import ToolFailed

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/benchmarks.md"
RESULTS = ROOT / "bench-results"
USERS_S, QUICK_USERS_S = 60.0, 6.0
QUICK = Times(step_s=2.0, bare_s=2.0, warm_s=1.5, search_s=6.0, stream_users=200)
PARTS = ("senders", "users")


async def all_senders(tools: Sequence[str], times: Times, folder: Path) -> list[Sender]:
    """Raises NotReady, ToolFailed, Lost, TimeoutError, Broken."""
    cores = machine.two_cores()
    core, ours = cores or (None, None)
    found = []
    with on_core(ours), senders.server(folder) as at:
        for tool in tools:
            for work in WORKS:
                bare = [await senders.bare(tool, work, times, at, core, folder)]
                if tool == "k6":  # what it prints of every request is its own doing, and we read it
                    bare.append(await senders.bare(tool, work, times, at, core, folder, told=True))
                first = max(1.0, FIRST_SHARE * bare[0].rate)
                steps = await senders.search(tool, work, first, times, at, core, folder / f"{tool}-{work}")
                found.append(Sender(tool, await _version(tool), work, tuple(bare), tuple(steps)))
    return found


async def all_crowds(tools: Sequence[str], count: int, for_s: float, folder: Path) -> list[Crowd]:
    """Raises NotReady, BadTarget, BadFolder."""
    with users.servers(folder) as at:
        return [
            await users.crowd(tool, shape, count, for_s, at, folder / f"{tool}-{loop}")
            for shape, loop in SHAPES.items()
            for tool in tools
        ]


async def _version(tool: str) -> str:
    return str(await k6.find()) if tool == "k6" else version(tool)


async def bench(parts: Sequence[str], tools: Sequence[str], quick: bool, folder: Path) -> Run:
    """Raises what its parts raise."""
    now, where = datetime.now(UTC), machine.description()
    print(f"On {where}\n", flush=True)
    found, crowds = [], []
    if "senders" in parts:
        found = await all_senders(tools, QUICK if quick else Times(), folder)
    if "users" in parts:
        crowds = await all_crowds(tools[:1] if quick else tools, USERS, QUICK_USERS_S if quick else USERS_S, folder)
    work = users.plan("k6", "as fast as answered", USERS, USERS_S).work
    return Run(f"{now:%Y-%m-%d}", where, tuple(found), tuple(crowds), users.capacity_per_s(users.profile(), work))


def _args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadgen.bench_loadgen", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="shows that all works, not what it costs")
    parser.add_argument("--only", choices=PARTS, help="one part (both)")
    parser.add_argument("--tool", choices=TOOLS, help="one tool (both)")
    parser.add_argument("--write-docs", action="store_true", help=f"put the tables into {PAGE.relative_to(ROOT)}")
    return parser.parse_args()


def main() -> int:
    args = _args()
    if sys.platform != "linux":
        print("This bench reads CPU time and memory from /proc: it needs Linux.", file=sys.stderr)
        return 2
    machine.allow_connections(4 * USERS)
    parts = (args.only,) if args.only else PARTS
    tools = (args.tool,) if args.tool else TOOLS
    try:
        with tempfile.TemporaryDirectory(prefix="crowdspike-bench-") as name:
            run = asyncio.run(bench(parts, tools, args.quick, Path(name)))
    except (NotReady, ToolFailed, Lost, Broken, BadTarget, BadFolder, TimeoutError) as error:
        print(f"The run did not end: {type(error).__name__} {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    tables = {
        "senders": (report.senders_table(run), report.BEGIN, report.END),
        "users": (report.users_table(run), report.USERS_BEGIN, report.USERS_END),
    }
    for part in parts:
        print("\n" + plain(tables[part][0]))
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"loadgen-{datetime.now(UTC):%Y%m%dT%H%M%S}.json"
    path.write_text(json.dumps(report.to_json(run), indent=1))
    print(f"\nAll runs: {path.relative_to(ROOT)}")
    if args.write_docs:
        for part in parts:
            write_docs(PAGE, *tables[part])
    return 0


if __name__ == "__main__":
    sys.exit(main())
