"""The figures of a cold start: whole, sourced, and as much faster as asked."""

from __future__ import annotations

import random
from dataclasses import fields

import pytest

from inference.cluster.coldstart import FILE, ColdStart, ColdStartError, parse

TEXT = FILE.read_text(encoding="utf-8")


def test_figures_that_come_along_have_a_source_and_a_date() -> None:
    cold = ColdStart.load()
    for field in fields(ColdStart):
        figure = getattr(cold, field.name)
        assert figure.value > 0
        assert len(figure.source) > 5
        assert figure.date.startswith("20")


def test_node_ready_is_drawn_within_the_recorded_range_and_by_seed() -> None:
    cold = ColdStart.load()
    drawn = [cold.node_ready_s(random.Random(seed)) for seed in range(200)]
    assert 30 <= min(drawn) < 33
    assert 44 < max(drawn) <= 47
    assert drawn == [cold.node_ready_s(random.Random(seed)) for seed in range(200)]


def test_faster_divides_every_figure_and_says_so() -> None:
    cold, fast = ColdStart.load(), ColdStart.load().faster(10)
    assert fast.image_s.value == pytest.approx(4.4)
    for field in fields(ColdStart):
        assert getattr(fast, field.name).value == pytest.approx(getattr(cold, field.name).value / 10)
        assert "10× as fast" in getattr(fast, field.name).source
    assert cold.faster(1) == cold


@pytest.mark.parametrize("speed_up", [0, -1, float("nan"), float("inf")])
def test_faster_refuses_what_is_no_speed_up(speed_up: float) -> None:
    with pytest.raises(ValueError, match="speed_up"):
        ColdStart.load().faster(speed_up)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("image_s:", "picture_s:", "exactly these fields"),
        ("value: 44", "value: -1", "image_s: value must be a number of seconds"),
        ("value: 44", "value: true", "image_s: value must be a number of seconds"),
        ("value: 47", "value: 20", "must not be above"),
        ('source: "the same"', 'source: ""', "node_ready_most_s: source"),
        ('  source: "the same"\n', "", "node_ready_most_s: must be {value"),
    ],
)
def test_a_file_that_is_wrong_is_refused_by_field(old: str, new: str, says: str) -> None:
    assert old in TEXT
    with pytest.raises(ColdStartError, match=says):
        parse(TEXT.replace(old, new))
