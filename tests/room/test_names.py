"""Room codes, nicknames, and what is left of a person's text."""

from __future__ import annotations

import unicodedata
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webapp.room import names


@given(st.integers(0, 2**64))
def test_a_code_has_four_letters_that_cannot_be_mistaken(seed: int) -> None:
    code = names.room_code(Random(seed))
    assert len(code) == names.CODE_LENGTH
    assert not set(code) & set("AEIOUYLQS0123456789")
    assert names.normal_code(code) == code
    assert not any(word in code for word in names._UNWANTED)


@given(st.text("BCDFGHJKMNPRTVWXZ", min_size=4, max_size=4), st.sampled_from(["{}", " {} ", "{}\t"]))
def test_a_code_may_be_typed_in_any_case_with_spaces_and_hyphens(code: str, around: str) -> None:
    typed = around.format(f"{code[0].lower()}{code[1]}-{code[2].lower()} {code[3]}")
    assert names.normal_code(typed) == code


@pytest.mark.parametrize("typed", ["", "KWX", "KWXMM", "KWXA", "KW M", "../..", "ＫＷＸＭ", "ẞßẞß", "K\0WX"])
def test_what_is_no_code_is_none(typed: str) -> None:
    assert names.normal_code(typed) is None


@given(st.text())
def test_any_text_is_a_code_or_not_without_an_error(typed: str) -> None:
    code = names.normal_code(typed)
    assert code is None or names.normal_code(code) == code


@given(st.integers())
def test_a_nickname_is_two_words_that_fit(seed: int) -> None:
    name = names.nickname(Random(seed))
    assert len(name.split()) == 2
    assert len(name) <= names.NICKNAME_MAX
    assert names.clean_line(name) == name


def test_every_nickname_that_can_be_made_fits_with_a_number_behind_it() -> None:
    longest = f"{max(names._FIRST, key=len)} {max(names._SECOND, key=len)} 999"
    assert len(longest) <= names.NICKNAME_MAX


def test_a_taken_nickname_is_avoided() -> None:
    class Everything:
        def __contains__(self, name: object) -> bool:
            return True

    first = names.nickname(Random(1))
    assert names.nickname(Random(1), {first}) != first
    *_, number = names.nickname(Random(1), Everything()).split()
    assert 2 <= int(number) < 1000


@given(st.text(st.characters()))
def test_a_clean_line_has_no_control_format_or_bidi_characters_and_is_one_line(text: str) -> None:
    line = names.clean_line(text)
    assert len(line.splitlines()) <= 1
    assert {c for c in line if unicodedata.category(c)[0] == "C"} <= {"\u200d"}
    assert line == line.strip()
    assert "  " not in line
    assert names.clean_line(line) == line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("  Ada   L. ", "Ada L."),
        ("Ada\u202eevil\u202c", "Ada evil"),
        ("\u2066left\u2069", "left"),
        ("A\u200bd\u200ca", "A d a"),
        ("\ufeffAda\0\x07", "Ada"),
        ("two\nlines\r\n\u2028three", "two lines three"),
        ("e\u0301", "é"),
        ("👩\u200d💻", "👩\u200d💻"),
        ("\u200dA\u200dda\u200d", "A da"),
        ("\u200d", ""),
        ("half \ud83d", "half"),
        ("\u00ad\u200e\u200f", ""),
        ("日本語 العربية עברית", "日本語 العربية עברית"),
    ],
)
def test_a_clean_line_keeps_the_words_and_loses_the_tricks(text: str, line: str) -> None:
    assert names.clean_line(text) == line
