"""From measured loads to a profile, and a profile's own loads in simulated time. Pure, apart from today's date.

The engine's steps are made out from when tokens came (calibration_steps.py) and the figures of a step are fitted to
them (calibration_fit.py). What a request takes outside of the engine is then what the median time to first token lacks
when the same traces run through the simulation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from statistics import fmean, median

from inference.engine import profile as profiles
from inference.engine import simulation
from inference.engine.calibration_fit import StepFit, TooFewSteps, fit_steps
from inference.engine.calibration_measure import Load, NotCalibrated, Server
from inference.engine.calibration_steps import reconstruct
from inference.engine.core import Core
from inference.engine.profile import Figure, Profile, ProfileError
from inference.engine.simulation import Arrival
from inference.openloop.client import SAMPLE_EVERY_S, Run
from inference.openloop.gauges import Sample
from inference.openloop.summary import ttfts_ms

# At and above this share of the capacity a time to first token is queueing: there a step that is wrong by 2 %
# moves it by a hundred milliseconds, which say nothing of the overhead.
_BUSY = 0.7
_OVERHEAD_ROUNDS = 3  # a request that is queued later also meets other steps
_NOT_MEASURED = "not measured: calibrate meets a server that has started"


@dataclass(frozen=True, slots=True)
class Setting:
    """What the server does not say: what it runs on, and how it was started."""

    name: str
    hardware: str
    max_num_seqs: int = 32
    max_num_batched_tokens: int = 2048
    async_scheduling: bool = False


@dataclass(frozen=True, slots=True)
class Calibration:
    profile: Profile
    steps: StepFit


def fit(loads: Sequence[Load], setting: Setting, server: Server) -> Calibration:
    """The profile that the loads tell. Raises NotCalibrated."""
    date = datetime.now(UTC).date().isoformat()
    try:
        steps = fit_steps([step for load in loads for step in reconstruct(load.run.served)])
    except TooFewSteps as error:
        raise NotCalibrated(str(error)) from error
    values = {
        "step_base_ms": steps.base_s * 1000,
        "step_per_decode_ms": steps.per_decode_s * 1000,
        "step_per_prefill_token_ms": steps.per_prefill_token_s * 1000,
        "step_per_context_token_us": steps.per_context_token_s * 1e6,
        "step_jitter": steps.jitter,
    }
    if steps.per_decode_over_knee_s:
        values["step_knee_seqs"] = steps.knee_seqs
        values["step_per_decode_over_knee_ms"] = steps.per_decode_over_knee_s * 1000
    on = f"{setting.hardware}, vLLM {server.version}"
    source = f"crowdspike engine calibrate on {on}, {steps.steps} steps, R² {steps.r2:.2f}"
    values = {name: _rounded(value) for name, value in values.items()}
    profile = _blank(setting, server, date).with_values(values, source, date)
    quiet = [load for load in loads if load.share < _BUSY] or loads
    for _ in range(_OVERHEAD_ROUNDS):
        missing_ms = fmean(_median_ttft_ms(load.run) - _median_ttft_ms(simulate(profile, load.trace)) for load in quiet)
        overhead_ms = _rounded(max(0.0, profile.request_overhead_ms.value + missing_ms))
        profile = profile.with_values({"request_overhead_ms": overhead_ms}, source, date)
    return Calibration(profile, steps)


def simulate(profile: Profile, trace: Sequence[Arrival], seed: int = 0) -> Run:
    """The trace through the profile, in simulated time: what a client would have seen, and its samples."""
    core = Core(profile.capacity, profile.step_s, async_scheduling=profile.async_scheduling, seed=seed)
    counts, run = core.scheduler.counts, Run()

    def sample(now_s: float) -> None:
        nonlocal counts
        while (at_s := len(run.samples) * SAMPLE_EVERY_S) < now_s:
            run.samples.append(Sample(at_s, counts.running, counts.waiting))
        counts = core.scheduler.counts

    run.served = simulation.run(core, trace, profile.request_overhead_ms.value / 1000, sample)
    return run


def _blank(setting: Setting, server: Server, date: str) -> Profile:
    """A profile with the server's sizes and nothing measured yet. Start-up times come from a profile of the same name,
    where there is one."""
    asked, told = f"vLLM {server.version}, as it says itself", "as given to calibrate"
    nothing = Figure(0.0, _NOT_MEASURED, date)
    try:
        before = profiles.load(setting.name)
        startup = {f.name: getattr(before, f.name) for f in fields(Profile) if f.name.startswith("startup_")}
    except ProfileError:
        startup = {f.name: nothing for f in fields(Profile) if f.name.startswith("startup_")}
    return Profile(
        name=setting.name,
        about=f"{server.model} on {setting.hardware}, vLLM {server.version}, calibrated from outside.",
        async_scheduling=setting.async_scheduling,
        step_base_ms=Figure(1.0, "not measured yet", date),
        step_per_decode_ms=nothing,
        step_per_prefill_token_ms=nothing,
        step_per_context_token_us=nothing,
        step_jitter=nothing,
        request_overhead_ms=nothing,
        max_num_seqs=Figure(setting.max_num_seqs, told, date),
        max_num_batched_tokens=Figure(setting.max_num_batched_tokens, told, date),
        max_model_len=Figure(server.max_model_len, asked, date),
        kv_block_size=Figure(server.kv_block_size, asked, date),
        num_kv_blocks=Figure(server.num_kv_blocks, asked, date),
        **startup,
    )


def _median_ttft_ms(run: Run) -> float:
    return median(ttfts_ms(run.served))


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
