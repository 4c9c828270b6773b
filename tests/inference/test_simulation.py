import random
from statistics import fmean

import pytest

from inference.engine.core import Core
from inference.engine.profile import load
from inference.engine.scheduler import Batch, Capacity
from inference.engine.simulation import Arrival, run

PROFILE = load("a10g-mistral-7b-awq")
STEADY = PROFILE.with_values({"step_jitter": 0}, "a test", "2026-11-21")


def core(profile=PROFILE, seed: int = 0, **capacity: int) -> Core:
    return Core(
        Capacity(**capacity) if capacity else profile.capacity,
        profile.step_s,
        async_scheduling=profile.async_scheduling,
        seed=seed,
    )


def poisson(rate: float, seconds: float, seed: int = 7) -> list[Arrival]:
    rng = random.Random(seed)
    at_s, trace = 0.0, []
    while (at_s := at_s + rng.expovariate(rate)) < seconds:
        trace.append(Arrival(at_s, rng.randint(20, 200), rng.randint(10, 90)))
    return trace


def test_one_request_takes_its_prompt_and_then_a_step_a_token():
    (served,) = run(core(STEADY), [Arrival(1.0, 100, 5)], overhead_s=0.5)
    prefill_s = STEADY.mean_step_s(Batch(prefill_tokens=100))
    decodes_s = [STEADY.mean_step_s(Batch(decode_seqs=1, context_tokens=100 + i)) for i in range(4)]
    assert served.ttft_s == pytest.approx(0.5 + prefill_s)
    assert served.e2e_s == pytest.approx(0.5 + prefill_s + sum(decodes_s))
    assert len(served.token_s) == 5


def test_the_33rd_request_begins_when_a_seat_is_free():
    served = run(core(STEADY), [Arrival(0.0, 10, 50) for _ in range(33)])
    assert served[32].token_s[0] > min(s.token_s[-1] for s in served[:32])
    assert all(s.token_s[0] < 0.2 for s in served[:32])


def test_an_hour_at_high_load_is_served_whole():
    """72,000 requests and 3.6 million tokens, in seconds."""
    trace = poisson(rate=20, seconds=3600)
    served = run(core(), trace)
    assert [len(s.token_s) for s in served] == [a.output_tokens for a in trace]
    assert served[-1].token_s[-1] > 3599


def test_the_same_seed_gives_the_same_trace():
    trace = poisson(rate=15, seconds=20)
    once, again, other = (run(core(seed=seed), trace) for seed in (3, 3, 4))
    assert once == again
    assert once != other


def test_waiting_grows_with_the_load():
    ttft_s = [fmean(s.ttft_s for s in run(core(), poisson(rate, 60))) for rate in (5, 25, 60)]
    assert ttft_s[0] < ttft_s[1] < ttft_s[2]
    assert ttft_s[2] > 5  # more than it can serve: the queue grows for a minute
