"""Calibration: the fit on simulated traces, whose figures are known; the command on a real process, for its form."""

import random
import subprocess
import sys
from dataclasses import replace

import pytest

from inference.engine import profile as profiles
from inference.engine.calibrate import report
from inference.engine.calibration import Setting, fit, simulate
from inference.engine.calibration_fit import StepFit, TooFewSteps, fit_steps
from inference.engine.calibration_measure import Load, NotCalibrated, Server, describe
from inference.engine.calibration_steps import Step, reconstruct
from inference.engine.core import Core
from inference.engine.scheduler import Batch
from inference.engine.simulation import Arrival, Served, run
from inference.openloop.trace import poisson
from tests.inference.servers import profile_file
from tests.processes import replica

FIGURES = {
    "step_base_ms": 8.0,
    "step_per_decode_ms": 0.4,
    "step_per_prefill_token_ms": 0.2,
    "step_per_context_token_us": 0.5,
    "step_jitter": 0.0,
    "request_overhead_ms": 7.0,
    "max_num_seqs": 32,
    "max_num_batched_tokens": 2048,
    "max_model_len": 1024,
    "kv_block_size": 16,
    "num_kv_blocks": 4000,
}
KNOWN = replace(profiles.load("instant").with_values(FIGURES, "a test", "2026-11-21"), async_scheduling=False)
JITTERY = KNOWN.with_values({"step_jitter": 0.05}, "a test", "2026-11-21")
RATES = (4, 10, 16)


def served_by(profile: profiles.Profile, rate_per_s: float, seconds: float = 20, seed: int = 1) -> list[Served]:
    return simulate(profile, poisson(rate_per_s, seconds, seed), seed).served


def steps_of(profile: profiles.Profile) -> list[Step]:
    return [step for seed, rate in enumerate(RATES) for step in reconstruct(served_by(profile, rate, seed=seed))]


def figures(found: StepFit) -> list[float]:
    per_token = [found.per_decode_s * 1e3, found.per_prefill_token_s * 1e3, found.per_context_token_s * 1e6]
    return [found.base_s * 1e3, *per_token]


def known() -> list[float]:
    return [value for name, value in FIGURES.items() if name.startswith("step_") and name != "step_jitter"]


def test_the_steps_that_the_engine_made_are_found_again():
    made: list[tuple[int, int, int]] = []

    class Noting(Core):
        def advance(self, now_s: float):
            batch, got = super().advance(now_s)
            made.append((batch.decode_seqs, batch.prefill_tokens, batch.context_tokens))
            return batch, got

    served = run(Noting(KNOWN.capacity, KNOWN.step_s, async_scheduling=False), poisson(10, 20, 1), 0.007)
    found = [step.batch for step in reconstruct(served)]
    assert [(b.decode_seqs, b.prefill_tokens, b.context_tokens) for b in found] == made


def test_a_step_lasts_as_long_as_the_engine_took():
    for step in reconstruct(served_by(KNOWN, 16)):
        if step.duration_s is not None and step.batch.prefill_tokens == 0:
            assert step.duration_s == pytest.approx(KNOWN.mean_step_s(step.batch))


def test_tokens_that_a_client_read_together_make_no_steps_of_their_own():
    rng, late = random.Random(2), []
    for one in served_by(KNOWN, 10):
        token_s = list(one.token_s)
        for i in range(len(token_s) - 1):
            if rng.random() < 0.1:
                token_s[i] = token_s[i + 1]
        late.append(replace(one, token_s=tuple(token_s)))
    found = fit_steps(reconstruct(late))
    assert figures(found) == pytest.approx(known(), rel=0.02)


def test_without_jitter_the_figures_are_recovered_exactly():
    found = fit_steps(steps_of(KNOWN))
    assert figures(found) == pytest.approx(known(), rel=1e-6)
    assert found.r2 == pytest.approx(1) and found.jitter == pytest.approx(0, abs=1e-9)


def test_with_jitter_they_are_recovered_and_so_is_the_jitter():
    found = fit_steps(steps_of(JITTERY))
    assert figures(found)[:3] == pytest.approx(known()[:3], rel=0.05)
    assert found.per_context_token_s * 1e6 == pytest.approx(0.5, rel=0.3)
    assert found.jitter == pytest.approx(0.05, rel=0.1)


def test_steps_that_a_neighbour_on_the_machine_held_up_are_left_out():
    rng = random.Random(3)
    steps = steps_of(JITTERY)
    held_up = [replace(s, duration_s=s.duration_s and s.duration_s * 5) if rng.random() < 0.03 else s for s in steps]
    found = fit_steps(held_up)
    assert found.outliers >= 0.02 * len(steps)
    assert figures(found)[:3] == pytest.approx(known()[:3], rel=0.06)


def test_a_figure_is_never_negative():
    rng = random.Random(4)
    shrinking = [
        Step(Batch(decode_seqs=n, context_tokens=100 * n), (20 - 0.1 * n + rng.random()) / 1000)
        for n in range(1, 33)
        for _ in range(5)
    ]
    found = fit_steps(shrinking)
    assert min(figures(found)) >= 0
    assert found.step_s(Batch(decode_seqs=16)) == pytest.approx(0.0185, rel=0.1)


def test_the_fitted_steps_take_as_long_altogether_as_the_measured_ones():
    steps = [step for step in steps_of(JITTERY) if step.duration_s]
    found = fit_steps(steps)
    mean_factor = 2.718281828 ** (found.jitter**2 / 2)  # of a log-normal with median 1
    fitted_s = sum(found.step_s(step.batch) for step in steps) * mean_factor
    assert fitted_s == pytest.approx(sum(step.duration_s for step in steps), rel=0.01)


def test_too_few_steps_are_refused():
    with pytest.raises(TooFewSteps, match="49 steps"):
        fit_steps([Step(Batch(decode_seqs=1), 0.01)] * 49)


def loads(profile: profiles.Profile) -> list[Load]:
    found = []
    for seed, (share, rate) in enumerate(zip((0.3, 0.6, 0.9), RATES, strict=True)):
        trace = poisson(rate, 20.0, seed)
        found.append(Load(share, 20.0, trace, simulate(profile, trace, seed)))
    return found


SERVER = Server("mistral", "0.32.0", 1024, 16, 4000)


def test_a_profile_is_found_that_behaves_like_the_measured_server():
    measured = loads(JITTERY)
    found = fit(measured, Setting("lab-mistral", "a lab machine"), SERVER)
    assert found.profile.request_overhead_ms.value == pytest.approx(7, rel=0.15)
    assert found.profile.capacity == KNOWN.capacity
    for load in measured:
        again = simulate(found.profile, load.trace, 99).served
        real, fitted = (sum(one.e2e_s for one in served) for served in (load.run.served, again))
        assert fitted == pytest.approx(real, rel=0.05)


def test_a_simulation_is_sampled_as_a_server_is():
    trace = [Arrival(0.0, 100, 60), Arrival(0.0, 100, 60), Arrival(0.6, 100, 200)]
    found = simulate(KNOWN.with_values({"max_num_seqs": 1}, "a test", "2026-11-21"), trace)
    ends_s = [one.token_s[-1] for one in found.served]
    by_time = {sample.at_s: (sample.running, sample.waiting) for sample in found.samples}
    assert by_time[0.0] == (0, 0), "the first step has not ended"
    assert by_time[0.5] == (1, 1) and ends_s[0] > 0.5
    assert by_time[1.0] == (1, 1) and ends_s[0] < 1.0 < ends_s[1], "the second runs, the third waits"
    assert by_time[1.5] == (1, 0) and ends_s[1] < 1.5 < ends_s[2]


def test_every_figure_says_where_it_comes_from_and_the_file_reads_back():
    found = fit(loads(JITTERY), Setting("lab-mistral", "a lab machine"), SERVER).profile
    assert "crowdspike engine calibrate on a lab machine, vLLM 0.32.0" in found.step_base_ms.source
    assert found.startup_weights_s.source.startswith("not measured")
    assert profiles.parse(profiles.dump(found), "lab-mistral.yaml") == found


def test_the_report_puts_measured_and_simulated_side_by_side():
    measured = loads(JITTERY)
    text = report(fit(measured, Setting("lab-mistral", "a lab machine"), SERVER), measured)
    assert "step_base_ms" in text and "90% of the capacity" in text
    assert text.count("ttft_p95_ms") == len(measured)


async def test_what_is_no_vllm_is_refused():
    with pytest.raises(NotCalibrated, match="cannot connect"):
        await describe("http://127.0.0.1:9")


def test_the_command_writes_a_profile_of_a_running_server(tmp_path):
    out = tmp_path / "lab.yaml"
    values = {**FIGURES, "step_base_ms": 4.0, "step_per_prefill_token_ms": 0.01, "num_kv_blocks": 3000}
    with replica(tmp_path, "--profile", profile_file(tmp_path, **values)) as process:
        command = [sys.executable, "-m", "inference.engine", "calibrate", "--url", process.url, "--name", "lab-mistral"]
        command += ["--out", str(out), "--capacity", "20", "--rates", "0.3", "0.6", "--duration", "2"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "R²" in done.stdout and f"Written to {out}" in done.stdout
    found = profiles.load(str(out))
    assert found.name == "lab-mistral"
    assert found.step_base_ms.value > 0 and "vLLM 0.32.0" in found.step_base_ms.source
    assert (found.max_model_len.value, found.kv_block_size.value, found.num_kv_blocks.value) == (1024, 16, 3000)


def test_the_command_says_why_it_could_not():
    command = [sys.executable, "-m", "inference.engine", "calibrate", "--url", "http://127.0.0.1:9", "--name", "x"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("Not calibrated: ") and "Traceback" not in done.stderr


def test_one_request_alone_is_no_calibration():
    trace = [Arrival(0.0, 100, 20)]
    with pytest.raises(NotCalibrated, match="19 steps were seen"):
        fit([Load(0.5, 1.0, trace, simulate(KNOWN, trace))], Setting("x", "y"), SERVER)
