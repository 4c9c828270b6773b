"""`make bench-fidelity`: the same seeded open-loop traces to a real vLLM and to the simulated replica with the profile
that was calibrated on it, and the figures side by side.

Every request that arrives in the time counts, also when it ends after it: above the capacity the line grows as long as
requests arrive, and is waited for then. Averages and throughput are of the time in which they arrive.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import uvloop

from inference.engine import calibrate, calibration
from inference.engine import profile as profiles
from inference.engine.calibration_measure import Load, NotCalibrated, describe, find_capacity, measure
from inference.engine.profile import Profile, ProfileError
from inference.openloop.client import Target
from inference.openloop.summary import itls_ms, quantile, summarize, ttfts_ms
from inference.openloop.trace import Mix
from loadgen import machine
from loadgen.fidelity import compare, plot, servers
from loadgen.fidelity.compare import Comparison
from loadgen.processes import NotReady

SHARES = (0.5, 0.9, 1.3)
PAGE = servers.ROOT / "docs/fidelity.md"
PICTURE = servers.ROOT / "docs/pictures/fidelity.svg"
RESULTS = Path("bench-results")
NAME = "cpu-tiny-mistral"
SEED = 20  # the traces that the profile is fitted to have other seeds
FIT_SEED = 1
LATE_BOUND_MS = 20.0

Pids = Callable[[], Sequence[int]]


@dataclass(frozen=True, slots=True)
class Side:
    """What one server did with the traces. `others` is the share of the machine that other programs took meanwhile, the
    largest of the loads."""

    loads: list[Load]
    others: float


def main() -> int:
    args = _parser().parse_args()
    print(f"A real vLLM and a simulated replica on {machine.description()}\n", flush=True)
    machine.allow_connections(4000)
    try:
        with (
            tempfile.TemporaryDirectory(prefix="crowdspike-fidelity-") as name,
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            comparisons, conditions, sides = _compare(args, Path(name), runner)
    except (NotReady, NotCalibrated, ProfileError, OSError) as error:
        print(f"The comparison did not end: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(f"{compare.text(comparisons)}\n\n{conditions}")
    if args.write_docs:
        _write_docs(comparisons, conditions, plot.svg(_panels(*sides), len(args.rates)))
        shutil.copy(args.out / f"{NAME}.yaml", profiles.FOLDER)
        print(f"\nWritten into {PAGE}, {PICTURE} and {profiles.FOLDER}")
    return 0


def _write_docs(comparisons: Sequence[Comparison], conditions: str, picture: str) -> None:
    shown = f"![Distributions of TTFT and ITL, real and simulated]({PICTURE.relative_to(PAGE.parent)})"
    text = "\n\n".join([shown, compare.markdown(comparisons), f"{compare.verdict(comparisons)}. {conditions}"])
    PAGE.write_text(compare.put_into(PAGE.read_text(encoding="utf-8"), text), "utf-8")
    PICTURE.write_text(picture, "utf-8")


def _compare(
    args: argparse.Namespace, folder: Path, runner: asyncio.Runner
) -> tuple[list[Comparison], str, tuple[Side, Side]]:
    """One server after the other: they would take each other's cores. Raises NotReady, NotCalibrated, ProfileError."""
    cores = machine.two_cores()
    with _real(args, folder) as (url, pids):
        if cores:
            os.sched_setaffinity(0, {cores[1]})  # vLLM has bound its worker to the first
        target, profile, capacity_per_s = runner.run(_calibrated(args, url))
        print(f"{url}: the real one, {capacity_per_s:.1f} requests/s at most", flush=True)
        real = runner.run(_side(target, capacity_per_s, args, pids))
    file = folder / f"{profile.name}.yaml"
    file.write_text(profiles.dump(profile), encoding="utf-8")
    with servers.simulated(file, folder, cores[0] if cores else None) as process:
        print(f"{process.url}: the simulated one", flush=True)
        target = Target(process.url, servers.MODEL)
        simulated = runner.run(_side(target, capacity_per_s, args, lambda: [process.pid]))
    comparisons = [_comparison(profile, one, other) for one, other in zip(real.loads, simulated.loads, strict=True)]
    conditions = _conditions(real, simulated, profile, capacity_per_s, args.seconds)
    args.out.mkdir(exist_ok=True)
    (args.out / file.name).write_text(profiles.dump(profile), encoding="utf-8")
    result = {"conditions": conditions, "comparisons": [asdict(comparison) for comparison in comparisons]}
    (args.out / "fidelity.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
    return comparisons, conditions, (real, simulated)


@contextmanager
def _real(args: argparse.Namespace, folder: Path) -> Iterator[tuple[str, Pids]]:
    """The URL of the real server, and its processes where it is ours."""
    if args.url:
        yield args.url, lambda: []
        return
    print("Starting vLLM: about a minute …", flush=True)
    with servers.real(args.vllm, folder) as process:
        yield process.url, lambda: servers.tree(process.pid)


async def _calibrated(args: argparse.Namespace, url: str) -> tuple[Target, Profile, float]:
    """The real server, the profile to compare with, and how many requests a second the server can complete. Raises
    NotCalibrated or ProfileError."""
    server = await describe(url)
    target = Target(url, server.model)
    capacity_per_s = args.capacity or await find_capacity(target, servers.MAX_NUM_SEQS, Mix(), FIT_SEED)
    if args.profile:
        return target, profiles.load(args.profile), capacity_per_s
    loads = await measure(target, capacity_per_s, calibrate.RATES, args.fit_seconds, Mix(), FIT_SEED)
    setting = calibration.Setting(NAME, calibrate.this_hardware(), servers.MAX_NUM_SEQS)
    found = calibration.fit(loads, setting, server)
    print(calibrate.report(found, loads) + "\n", flush=True)
    return target, found.profile, capacity_per_s


async def _side(target: Target, capacity_per_s: float, args: argparse.Namespace, pids: Pids) -> Side:
    loads, others = [], 0.0
    for share in args.rates:
        async with machine.watching(pids()) as watch:
            seed = SEED + round(share * 100)
            loads += await measure(target, capacity_per_s, [share], args.seconds, Mix(), seed)
        others = max(others, watch.others_share)
        print(f"  {share:.0%}: {len(loads[-1].trace)} requests answered", flush=True)
    return Side(loads, others)


def _comparison(profile: Profile, real: Load, simulated: Load) -> Comparison:
    assert real.trace == simulated.trace, "both got the same"
    runs = (real.run, simulated.run, calibration.simulate(profile, real.trace))
    figures = (summarize(run.served, run.samples, real.duration_s) for run in runs)
    return compare.compare(real.share, len(real.trace), *figures)


def _conditions(real: Side, simulated: Side, profile: Profile, capacity_per_s: float, seconds: float) -> str:
    late_ms = sorted(late_s * 1000 for side in (real, simulated) for load in side.loads for late_s in load.run.late_s)
    late, client = quantile(late_ms, 0.99), max(load.run.cpu_share for load in real.loads)
    lines = [
        f"{datetime.now(UTC).date()}, {calibrate.this_hardware()}, {seconds:g} s at each rate; capacity",
        f"{capacity_per_s:.1f} requests/s. Requests were sent at most {late:.1f} ms late (p99); the client took",
        f"{client:.0%} of a core, other programs {real.others:.0%} of the machine beside the real server and",
        f"{simulated.others:.0%} beside the simulated one.",
        f"Profile: {profile.step_base_ms.source}.",
    ]
    if late > LATE_BOUND_MS or max(real.others, simulated.others) > machine.OTHERS_BOUND:
        lines.append("The machine was not free: these figures say little.")
    return "\n".join(lines)


def _panels(real: Side, simulated: Side) -> list[plot.Panel]:
    return [
        plot.Panel(f"{name}, {one.share:.0%} of the capacity", values(one.run.served), values(other.run.served))
        for name, values in (("TTFT", ttfts_ms), ("ITL", itls_ms))
        for one, other in zip(real.loads, simulated.loads, strict=True)
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m loadgen.fidelity", description=__doc__.partition("\n\n")[0])
    add = parser.add_argument
    add("--seconds", type=float, default=60, help="for each rate (%(default)g)")
    add("--rates", type=float, nargs="+", default=SHARES, metavar="SHARE", help="of the capacity (0.5 0.9 1.3)")
    add("--fit-seconds", type=float, default=30, help="for each rate that the profile is fitted to (%(default)g)")
    add("--capacity", type=float, help="requests/s that the real server can complete (found by a closed loop)")
    add("--profile", help="compare with this profile and fit none")
    add("--url", help="a real vLLM that runs already")
    add("--vllm", type=Path, default=servers.FOLDER, help="where scripts/vllm-cpu has installed it (%(default)s)")
    add("--out", type=Path, default=RESULTS, help="folder for the figures and the profile (%(default)s)")
    add("--write-docs", action="store_true", help="put table and picture into docs/fidelity.md, the profile in place")
    return parser


if __name__ == "__main__":
    sys.exit(main())
