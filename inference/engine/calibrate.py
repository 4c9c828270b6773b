"""`crowdspike engine calibrate`: measures a running vLLM and writes the profile that behaves like it.

It finds the server's capacity with a closed loop, sends open-loop traces at several shares of it
(calibration_measure.py), fits a profile (calibration.py), and puts measured and simulated figures side by side.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import uvloop

from inference.engine import profile as profiles
from inference.engine.calibration import Calibration, Setting, fit, simulate
from inference.engine.calibration_measure import Load, NotCalibrated, describe, find_capacity, measure
from inference.openloop.client import Target
from inference.openloop.summary import FIGURES, Summary, quantile, summarize
from inference.openloop.trace import Mix

TEXT = "Measure a running vLLM and write its profile."
EXAMPLES = """examples:
  crowdspike engine calibrate --url http://127.0.0.1:8100 --name my-gpu-my-model
  crowdspike engine calibrate --url http://gpu-box:8000 --name l40s-mistral --hardware "NVIDIA L40S" --async-scheduling
"""
RATES = (0.3, 0.6, 0.9, 1.2)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    add = parser.add_argument
    add("--url", default="http://127.0.0.1:8100", help="the server, http(s)://host:port (%(default)s)")
    add("--name", required=True, help="the profile's name: hardware-model, in lower case")
    add("--out", type=Path, help="the file to write (NAME.yaml here)")
    add("--hardware", help="what the server runs on, for the sources (this machine's CPU)")
    add("--duration", type=float, default=20.0, help="seconds for each rate (%(default)g)")
    add("--rates", type=float, nargs="+", default=RATES, metavar="SHARE", help="of the capacity (0.3 0.6 0.9 1.2)")
    add("--capacity", type=float, help="requests/s that the server can complete (found by a closed loop)")
    add("--max-num-seqs", type=int, default=32, help="as the server was started with (%(default)s)")
    add("--max-num-batched-tokens", type=int, default=2048, help="the same (%(default)s)")
    add("--async-scheduling", action="store_true", help="the server schedules asynchronously, vLLM's default on GPUs")
    add("--seed", type=int, default=1, help="of the traces (%(default)s)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure, fit, compare, write. Returns the exit status."""
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            calibration = runner.run(_calibrate(args))
    except (NotCalibrated, OSError, ValueError) as error:
        print(f"Not calibrated: {error}", file=sys.stderr)
        return 1
    out = args.out or Path(f"{args.name}.yaml")
    out.write_text(profiles.dump(calibration.profile), encoding="utf-8")
    print(f"\nWritten to {out}")
    return 0


async def _calibrate(args: argparse.Namespace) -> Calibration:
    key, mix = os.environ.get("INFERENCE_API_KEY") or None, Mix()
    server = await describe(args.url, key)
    local = urlsplit(args.url).hostname in ("127.0.0.1", "localhost", "::1")
    hardware = args.hardware or (this_hardware() if local else "hardware that was not named")
    print(f"{args.url}: {server.model}, vLLM {server.version} on {hardware}", flush=True)
    target = Target(args.url, server.model, key)
    capacity_per_s = args.capacity or await find_capacity(target, args.max_num_seqs, mix, args.seed)
    tokens = capacity_per_s * mix.mean_output_tokens
    print(f"capacity: {capacity_per_s:.1f} requests/s, {tokens:.0f} tokens/s", flush=True)
    loads = await measure(target, capacity_per_s, args.rates, args.duration, mix, args.seed)
    setting = Setting(args.name, hardware, args.max_num_seqs, args.max_num_batched_tokens, args.async_scheduling)
    calibration = fit(loads, setting, server)
    print(report(calibration, loads))
    return calibration


def report(calibration: Calibration, loads: Sequence[Load]) -> str:
    """What was found, and how well the simulation of the same traces agrees."""
    profile, steps = calibration.profile, calibration.steps
    late_s = sorted(late_s for load in loads for late_s in load.run.late_s)
    lines = [
        f"steps: {steps.steps} used, {steps.outliers} left out, R² {steps.r2:.3f}, jitter {steps.jitter:.3f}",
        f"sent: p99 {quantile(late_s, 0.99) * 1000:.1f} ms after the planned time",
        "",
        *(f"{name:26} {getattr(profile, name).value:g}" for name in profiles.FIGURES if name.startswith("step_")),
        f"{'request_overhead_ms':26} {profile.request_overhead_ms.value:g}",
    ]
    for load in loads:
        real = summarize([load.run], load.duration_s)
        fitted = summarize([simulate(profile, load.trace)], load.duration_s)
        lines += ["", f"{load.share:.0%} of the capacity   measured   simulated", *_rows(real, fitted)]
    return "\n".join(lines)


def _rows(real: Summary, fitted: Summary) -> list[str]:
    pairs = [(name, getattr(real, name), getattr(fitted, name)) for name in FIGURES]
    return [f"  {name:20} {a:10.1f} {b:11.1f} {f'{b / a - 1:+.0%}' if a else '':>7}" for name, a, b in pairs]


def this_hardware() -> str:
    """This machine's CPU and how many of its cores may be used."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "a CPU")
    return f"{name}, {os.cpu_count()} cores"
