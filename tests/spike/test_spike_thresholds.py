"""The thresholds: what they may say, what they ask for by default, and that nothing is never enough."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.spike.plan import Cell, Plan, Stage
from loadgen.spike.thresholds import FIGURES, BadThreshold, default_thresholds, evaluate, parse, thresholds_of

OPEN = Plan("spike", "open", 10.0, (Stage(10.0, 10.0),), "k6")
CLOSED = Plan("matrix", "closed", 4.0, (Stage(4.0, 10.0),), "k6", cells=(Cell("m", 4, 1, 0.0, 10.0),))


@pytest.mark.parametrize(
    ("text", "value", "ok"),
    [
        ("ttft_p95_ms<1000", 999.9, True),
        ("ttft_p95_ms<1000", 1000.0, False),
        ("failed_share<=0.01", 0.01, True),
        (" served >= 500 ", 500, True),
        ("goodput_share>=0.95", 0.9, False),
        ("dropped==0", 0, True),
        ("answer_e2e_p95_ms<500", 501.0, False),
    ],
)
def test_a_threshold_holds_or_not(text: str, value: float, ok: bool) -> None:
    [held] = evaluate([text], {parse(text).figure: value})
    assert (held.value, held.ok) == (value, ok)


@given(st.sampled_from(sorted(FIGURES)), st.sampled_from(["<", "<=", ">", ">=", "=="]), st.floats(0, 1))
def test_a_figure_without_data_is_never_reached(figure: str, op: str, number: float) -> None:
    assert [held.ok for held in evaluate([f"{figure}{op}{number}"], {figure: None})] == [False]
    assert [held.ok for held in evaluate([f"{figure}{op}{number}"], {})] == [False]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "FIGURE OP NUMBER"),
        ("ttft_p95_ms", "FIGURE OP NUMBER"),
        ("ttft_p95_ms=<1000", "FIGURE OP NUMBER"),
        ("ttft_p95<1000", "goodput_share"),
        ("latency_p95_ms<1000", "No figure is called 'latency_p95_ms'"),
        ("ttft_p95_ms<1s", "the unit is in the figure's name"),
        ("ttft_p95_ms<nan", "finite"),
        ("failed_share<=1%", "Not a number: '1%'"),
        ("failed_share<=5", "from 0 to 1"),
    ],
)
def test_a_threshold_that_says_nothing_is_refused_with_what_would_be_right(text: str, says: str) -> None:
    with pytest.raises(BadThreshold, match=says.replace("(", r"\(")):
        parse(text)


def test_every_plan_has_a_floor_on_what_was_served() -> None:
    assert default_thresholds(OPEN) == ("failed_share<=0.01", "served>=50")
    assert default_thresholds(CLOSED) == ("failed_share<=0.01", "served>=1")


def test_a_plans_own_threshold_takes_the_place_of_the_default_of_its_figure_only() -> None:
    plan = Plan("spike", "open", 10.0, (Stage(10.0, 10.0),), "k6", thresholds=("failed_share<0.2", "e2e_p99_ms<9e3"))
    assert thresholds_of(plan) == ("failed_share<0.2", "e2e_p99_ms<9e3", "served>=50")
