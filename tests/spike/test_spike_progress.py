"""What the live figures promise: the last seconds as they are, whatever came before."""

from __future__ import annotations

import json

import pytest

from loadgen.spike.plan import Plan, Stage
from loadgen.spike.point import Began, Dropped, Point, Sent, Trouble
from loadgen.spike.progress import Live, Progress

PLAN = Plan("spike", "open", 2, (Stage(2, 10), Stage(20, 0), Stage(20, 20)), "k6")


def ended(n: int, at_s: float, first_s: float | None = None, by: str = "", **more) -> Point:
    values = {"status": 200, "sent_s": at_s - 1, "ended_s": at_s, "first_s": first_s, "first_by": by, **more}
    return Point(n=n, by="k6", **values)


def begun() -> Live:
    live = Live(PLAN)
    live.hear(Began(100.0), 100.0)
    return live


def test_before_its_beginning_a_run_is_at_0() -> None:
    progress = Live(PLAN).at(100.0, "armed")
    assert (progress.t_s, progress.of_s, progress.level, progress.sent) == (0.0, 30.0, 0.0, 0)
    assert (progress.state, progress.unit) == ("armed", "requests/s")


def test_the_level_is_the_plans_and_nothing_once_it_drains() -> None:
    live = begun()
    assert live.at(105.0, "running").level == 2
    assert live.at(115.0, "running").level == 20
    assert live.at(115.0, "draining").level == 0


def test_rates_are_those_of_the_last_five_seconds() -> None:
    live = begun()
    for n in range(100):
        live.hear(Sent(n, 101.0), 101.0)
        live.hear(ended(n, 102.0), 102.0)
    assert live.at(103.0, "running").sent_per_s == pytest.approx(100 / 3)
    for n in range(100, 110):
        live.hear(Sent(n, 109.0), 109.0)
    calm = live.at(110.0, "running")
    assert (calm.sent_per_s, calm.served_per_s) == (2.0, 0.0)
    assert (calm.sent, calm.served, calm.in_flight) == (110, 100, 10)


def test_first_tokens_of_the_spike_do_not_stay_in_the_figures_after_it() -> None:
    live = begun()
    live.hear(ended(0, 102.0, first_s=101.9, by="token"), 102.0)
    assert live.at(103.0, "running").ttft_p95_s == pytest.approx(0.9)
    live.hear(ended(1, 109.0, first_s=108.1, by="token"), 109.0)
    now = live.at(110.0, "running")
    assert now.ttft_p50_s == now.ttft_p95_s == pytest.approx(0.1)
    later = live.at(120.0, "running")
    assert (later.ttft_p50_s, later.ttft_by) == (None, "")


def test_a_first_token_counts_from_when_it_was_due() -> None:
    live = begun()
    live.hear(ended(0, 102.0, first_s=101.5, by="token", due_s=100.5), 102.0)
    assert live.at(102.0, "running").ttft_p50_s == pytest.approx(1.0)


def test_who_saw_the_first_token_is_said_and_a_token_is_worth_more_than_the_probes() -> None:
    live = begun()
    live.hear(ended(0, 102.0), 102.0)
    assert live.at(102.0, "running").ttft_by == ""
    live.hear_probe(ended(0, 102.0, first_s=101.2, by="token"), 102.0)
    seen = live.at(102.0, "running")
    assert (seen.ttft_by, seen.ttft_p50_s, seen.served) == ("probe", pytest.approx(0.2), 1)
    live.hear(ended(1, 102.0, first_s=101.4, by="held headers"), 102.0)
    assert live.at(102.0, "running").ttft_by == "held headers"


def test_refused_failed_and_dropped_are_told_apart() -> None:
    live = begun()
    for n in range(4):
        live.hear(Sent(n, 101.0), 101.0)
    live.hear(ended(0, 102.0, status=503), 102.0)
    live.hear(ended(1, 102.0, error="connection reset"), 102.0)
    live.hear(Dropped(101.0, 3), 102.0)
    live.hear(Trouble("x" * 999), 102.0)
    now = live.at(102.0, "running")
    assert (now.refused, now.failed, now.dropped, now.served, now.in_flight) == (1, 1, 3, 0, 2)
    assert now.errors_per_s == 1.0
    assert now.trouble == "x" * 200


def test_a_line_of_it_can_be_read_again() -> None:
    progress = begun().at(103.5, "running")
    line = progress.to_json()
    assert "\n" not in line and json.loads(line)["state"] == "running"
    assert Progress.from_json(line[:-1] + ', "newer": 1}') == progress
