"""What is asked: the same for the same seed, in the lengths that were ordered."""

from __future__ import annotations

import hashlib
from statistics import median

import pytest

from loadgen.spike.corpus import WORDS_PER_TOKEN, words, work


def test_the_same_seed_asks_the_same_on_every_machine_and_day() -> None:
    asked = "\n".join(f"{one.max_tokens} {one.text}" for one in work(7))
    assert (
        hashlib.sha256(asked.encode()).hexdigest() == "ee642e3411ee96bbb4671303c6057395ecddcc683c3cdd3d4d88f365e15bf982"
    )
    assert work(7) == work(7)
    assert work(8) != work(7)


def test_fewer_are_the_beginning_of_more() -> None:
    assert work(3, count=20) == work(3, count=100)[:20]


def test_lengths_are_between_the_bounds_and_short_ones_as_frequent_as_long_ones_on_a_logarithmic_scale() -> None:
    asked = work(1, prompt_tokens=(50, 800), max_tokens=(8, 128), count=1000)
    prompts = [words(one.text) / WORDS_PER_TOKEN for one in asked]
    assert 50 - 1 <= min(prompts) <= 55
    assert 700 <= max(prompts) <= 800 + 1
    assert median(prompts) == pytest.approx(200, rel=0.15)
    answers = [one.max_tokens for one in asked]
    assert (min(answers), max(answers)) == (8, 128)
    assert median(answers) == pytest.approx(32, rel=0.15)


@pytest.mark.parametrize("tokens", [40, 64, 1000, 8000])
def test_one_length_for_all_is_that_length(tokens: int) -> None:
    asked = work(1, prompt_tokens=(tokens, tokens), max_tokens=(75, 75), count=20)
    assert {words(one.text) for one in asked} == {round(tokens * WORDS_PER_TOKEN)}
    assert {one.max_tokens for one in asked} == {75}
    assert len({one.text for one in asked}) == 20


def test_a_short_prompt_is_a_question_as_a_person_types_it() -> None:
    for one in work(1, prompt_tokens=(1, 36), count=200):
        assert one.text.endswith((".", "?"))
        assert "\n" not in one.text
        assert words(one.text) <= 27


def test_what_is_asked_is_varied() -> None:
    asked = [one.text for one in work(1)]
    assert len(set(asked)) > 0.8 * len(asked)
    assert len({text.rpartition("\n\n")[2] for text in asked}) > 130
