"""A short run of the engine's bench: it counts what its replica counts, and sees every token of every stream."""

import pytest

from inference.engine.profile import load
from loadgen.bench_engine import STREAMS, measure_smoothness, measure_speed
from tests.inference.servers import profile_file
from tests.processes import replica


async def test_speed_counts_the_tokens_that_the_replica_counts(tmp_path):
    with replica(tmp_path, "--profile", profile_file(tmp_path, step_base_ms=20)) as process:
        speed = await measure_speed([process], seconds=1.0, warm_up_s=0.5)
    assert speed.cpu_s > 0 and speed.peak_mb > 10
    assert speed.tokens > STREAMS
    # The two counts are read one after the other, and the machine may stall in between.
    assert speed.events == pytest.approx(speed.tokens, abs=20 * STREAMS)


async def test_smoothness_is_held_against_the_profile(tmp_path):
    path = profile_file(tmp_path, step_base_ms=5)
    with replica(tmp_path, "--profile", path) as process:
        smooth = await measure_smoothness(process, load(path), tokens=30)
    assert smooth.ideal_ms == pytest.approx({"p50": 5, "p95": 5, "p99": 5})
    assert set(smooth.seen_ms) == set(smooth.ideal_ms)
    assert 0 < smooth.seen_ms["p50"] <= smooth.seen_ms["p99"]
