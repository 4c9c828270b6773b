"""The figures of the moment, against what a list of all requests gives."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webapp.gateway.metrics import SOURCES
from webapp.gateway.record import Record
from webapp.live.vitals import COST_WINDOW_S, WHO, Vitals, Window, percentile


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def vitals(clock: Clock, waiting: int = 0, **in_flight: int) -> Vitals:
    return Vitals(dict.fromkeys(SOURCES, 0) | in_flight, lambda: waiting, clock)


def record(status: int = 200, ttft_s: float | None = 0.2, e2e_s: float = 1.0, tokens: int = 100) -> Record:
    return Record("r1", "/v1/chat/completions", "audience", status, e2e_s, ttft_s=ttft_s, completion_tokens=tokens)


def test_every_source_of_the_gateway_belongs_to_somebody() -> None:
    assert WHO.keys() == set(SOURCES)


def test_scripted_load_is_told_apart_from_the_room(clock: Clock) -> None:
    reading = vitals(clock, 3, audience=4, amplified=5, k6=6, locust=7, batch=8, api=9).read()
    assert reading.in_flight == {"audience": 4, "amplified": 5, "scripted": 21, "api": 9}
    assert (reading.waiting, reading.at_replicas) == (3, 36)


def test_nothing_has_happened_yet(clock: Clock) -> None:
    reading = vitals(clock).read()
    assert (reading.ttft_p50_s, reading.ttft_p95_s) == (None, None)
    assert (reading.tokens_per_s, reading.requests_per_s, reading.tokens_per_min) == (0, 0, 0)


def test_ttft_is_that_of_streams_whose_first_token_came_in_the_last_half_minute(clock: Clock) -> None:
    seen = vitals(clock)
    for ttft_s in (0.1, 0.2, 0.3, 4.0):
        seen.first_token(ttft_s)
    assert seen.read().ttft_p50_s == 0.2
    assert seen.read().ttft_p95_s == 4.0
    clock.now_s += 29.9
    seen.ended(record(ttft_s=1.0, e2e_s=40.0))  # its first token came 39 s ago
    assert seen.read().ttft_p95_s == 4.0
    clock.now_s += 0.2
    assert seen.read().ttft_p95_s is None


def test_tokens_of_a_stream_count_as_they_come_and_not_again_at_its_end(clock: Clock) -> None:
    streamed = 500
    seen = Vitals(dict.fromkeys(SOURCES, 0), lambda: 0, clock, lambda: streamed)
    clock.now_s += 10
    seen.first_token(0.2)
    streamed += 99
    assert seen.read().tokens_per_s == 10
    seen.ended(record(tokens=100))
    assert seen.read().tokens_per_s == 10


def test_rates_are_means_over_the_time_that_has_passed(clock: Clock) -> None:
    seen = vitals(clock)
    clock.now_s += 4
    for _ in range(8):
        seen.ended(record(tokens=50, ttft_s=None))
    assert seen.read().tokens_per_s == 100  # 400 in the 4 s that there were
    clock.now_s += 4
    assert seen.read().tokens_per_s == 50
    clock.now_s += 5
    assert (seen.read().tokens_per_s, seen.read().requests_per_s) == (40, 0.8)  # 400 in 10 s
    clock.now_s += 3
    assert seen.read().tokens_per_s == 0
    assert seen.read().tokens_per_min == pytest.approx(400 * 60 / 16)
    clock.now_s += 60
    assert seen.read().tokens_per_min == 0


def test_a_client_that_leaves_is_no_failure_of_ours(clock: Clock) -> None:
    seen = vitals(clock)
    clock.now_s += 60
    for status in (200, 499, 502, 503, 400):
        seen.ended(record(status, ttft_s=None, tokens=0))
    assert seen.read().failed_per_min == 3


@given(st.lists(st.floats(0, 100), min_size=1), st.integers(0, 100))
def test_a_percentile_is_a_value_that_so_many_do_not_exceed(values: list[float], share: int) -> None:
    found = percentile(sorted(values), share)
    assert found in values
    assert sum(v <= found for v in values) * 100 >= share * len(values)
    assert sum(v < found for v in values) * 100 < max(1, share) * len(values)


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(0, 100))), st.integers(1, int(COST_WINDOW_S)))
def test_a_window_forgets_nothing_that_is_in_it(steps: list[tuple[float, int]], span_s: int) -> None:
    now_s, start_s = 500.0, 500.0
    window, told = Window(COST_WINDOW_S, start_s), []
    for wait_s, amount in steps:
        now_s += wait_s
        window.add(now_s, amount)
        told.append((now_s, amount))
    total = sum(amount for at_s, amount in told if math.floor(at_s) > math.floor(now_s) - span_s)
    assert window.per_s(now_s, span_s) == pytest.approx(total / max(1.0, min(span_s, now_s - start_s)))
