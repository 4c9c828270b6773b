"""Text on any accent can be read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webapp.talk.colour import BLACK, WHITE, contrast, ink

COLOURS = st.integers(0, 0xFFFFFF).map("#{:06x}".format)


# Figures of WCAG's own examples: black on white is 21:1, #777777 on white just misses 4.5:1.
@pytest.mark.parametrize(
    ("one", "other", "ratio"),
    [(BLACK, WHITE, 21.0), (WHITE, WHITE, 1.0), ("#777777", WHITE, 4.48), ("#767676", WHITE, 4.54)],
)
def test_contrast_is_as_wcag_defines_it(one: str, other: str, ratio: float) -> None:
    assert contrast(one, other) == contrast(other, one) == pytest.approx(ratio, abs=0.005)


@given(COLOURS)
def test_ink_reads_on_every_colour(colour: str) -> None:
    assert contrast(ink(colour), colour) >= 4.58


def test_ink_is_white_on_dark_and_black_on_light() -> None:
    assert (ink("#3f4fc4"), ink("#ffff00")) == (WHITE, BLACK)
