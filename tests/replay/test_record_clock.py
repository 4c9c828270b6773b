"""The record's time: the world's without its pauses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webapp.record_clock import RecordClock

# Recorded from 100 to 130 and from 1000 to 1010; what is longer than a minute is a pause.
CLOCK = RecordClock.of([100.0, 115.0, 130.0, 1000.0, 1010.0], pause_s=60)


@pytest.mark.parametrize(
    ("unix_s", "t_s"),
    [(100, 0), (130, 30), (1000, 31), (1010, 41), (90, 0), (130.5, 30.5), (700, 31), (2000, 1031)],
)
def test_a_pause_takes_a_second(unix_s: float, t_s: float) -> None:
    assert CLOCK.t_s(unix_s) == t_s


times = st.lists(st.integers(0, 5000), min_size=1, max_size=50).map(sorted)


@given(times)
def test_every_recorded_time_comes_back(at_s: list[int]) -> None:
    clock = RecordClock.of([float(t) for t in at_s], pause_s=60)
    assert [clock.unix_s(clock.t_s(t)) for t in at_s] == pytest.approx(at_s)


@given(times, st.lists(st.floats(-100, 6000), min_size=2).map(sorted))
def test_it_never_goes_back(at_s: list[int], asked: list[float]) -> None:
    clock = RecordClock.of([float(t) for t in at_s], pause_s=60)
    shown = [clock.t_s(t) for t in asked]
    assert shown == sorted(shown)
