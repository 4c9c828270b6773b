"""The watch of the generator, over real processes: who counts, what they used, and what can't be known."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen import machine
from loadgen.spike.generator import UNKNOWN, Watch, sustained, watching
from tests.inference.servers import until

BURN_S = 0.3
BURNS = f"""
import sys, time
began = time.monotonic()
while time.process_time() < {BURN_S} or time.monotonic() < began + 0.6:
    pass
print("burnt", flush=True)
sys.stdin.read()
"""
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {BURNS!r}])"


@contextmanager
def running(code: str) -> Iterator[subprocess.Popen]:
    """Ends when its input does."""
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield process


def test_a_process_and_what_it_has_started_count() -> None:
    pids: list[int] = []
    began_s = time.monotonic()
    watch = Watch(lambda: pids)
    with running(PARENT) as process:
        pids.append(process.pid)
        assert process.stdout.readline() == b"burnt\n"
        family = machine.family([process.pid])
        watch.look()
        took_s = time.monotonic() - began_s
    usage = watch.usage()
    assert len(family) == 2 and process.pid in family
    assert usage.cpu_cores == machine.cores() > 0
    assert usage.cpu_share * usage.cpu_cores * took_s >= BURN_S * 0.9
    assert usage.rss_mb > machine.peak_rss_mb(os.getpid())
    assert usage.others_share >= 0


def test_a_tool_that_can_use_one_core_only_is_measured_by_that_core() -> None:
    with running(BURNS) as process:
        watches = [Watch(lambda: [process.pid], one_core_each) for one_core_each in (False, True)]
        assert process.stdout.readline() == b"burnt\n"
        for watch in watches:
            watch.look()
    whole, single = (watch.usage().cpu_share for watch in watches)
    assert single >= whole > 0
    if machine.cores() >= 2:
        assert single > whole * 1.2


def test_what_a_process_used_before_the_watch_is_not_the_runs() -> None:
    with running(BURNS) as process:
        assert process.stdout.readline() == b"burnt\n"
        began_s, own_s = time.monotonic(), machine.cpu_s(os.getpid())
        watch = Watch(lambda: [process.pid])
        while time.monotonic() < began_s + 0.6:
            time.sleep(0.05)
        watch.look()
        took_s, own_s = time.monotonic() - began_s, machine.cpu_s(os.getpid()) - own_s
    usage = watch.usage()
    assert max(0.0, usage.cpu_share * usage.cpu_cores * took_s - own_s * usage.cpu_cores) < BURN_S


def test_a_process_that_has_ended_is_no_error() -> None:
    with running("import sys; sys.stdin.read()") as process:
        watch = Watch(lambda: [process.pid])
    began_s = time.monotonic()
    while time.monotonic() < began_s + 0.6:
        time.sleep(0.05)
    watch.look()
    assert watch.usage().rss_mb > 0


async def test_a_loop_that_is_held_up_is_late() -> None:
    async with watching(lambda: []) as watch:
        for _ in range(3):
            await asyncio.sleep(0)
        time.sleep(0.3)  # noqa: ASYNC251 - this is what is measured
        await until(lambda: watch.lag_ms)
    assert watch.usage().loop_lag_p99_s >= 0.2


def test_before_the_first_look_nothing_is_known() -> None:
    usage = Watch(lambda: []).usage()
    assert (usage.cpu_share, usage.others_share, usage.loop_lag_p99_s, usage.rss_mb) == (None,) * 4
    assert UNKNOWN.cpu_share is None


@pytest.mark.parametrize(
    ("shares", "found"),
    [
        ([0.4], 0.4),
        ([0.4, 0.8], 0.6),
        ([1.0, 0, 0, 0, 0, 0], 0.2),
        ([0.1, 0.1, 0.9, 0.9, 0.9, 0.9, 0.9, 0.1], 0.9),
    ],
)
def test_a_share_is_of_the_busiest_five_seconds(shares: list[float], found: float) -> None:
    assert sustained(shares) == pytest.approx(found)


@given(st.lists(st.floats(0, 4), min_size=1, max_size=50))
def test_what_was_sustained_lies_between_the_mean_of_all_and_the_greatest(shares: list[float]) -> None:
    found = sustained(shares)
    assert min(shares) - 1e-9 <= found <= max(shares) + 1e-9
    assert len(shares) % 5 or found >= sum(shares) / len(shares) - 1e-9
