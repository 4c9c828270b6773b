"""Formulas: what KEDA's expr language takes, with its precedence and types, and nothing else."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.cluster.autoscaling.expression import MAX_DEPTH, MAX_LENGTH, ExpressionError, parse

VALUES = {"running": 32.0, "waiting": 20.0, "expected": 40.0}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("running + waiting * 10", 232),
        ("(running + waiting) * 10", 520),
        ("-2 ** 2", -4),  # ** binds tighter than a sign in front
        ("2 ** 3 ** 2", 512),  # from the right
        ("2 ^ 3", 8),
        ("2 ** -1", 0.5),
        ("10 - 4 - 3", 3),  # from the left
        ("7 / 2", 3.5),
        ("7 % 4", 3),
        ("-7 % 4", -3),  # Go's remainder has the sign of the dividend
        ("int(running) % 5", 2),
        ("max(running, waiting, 40)", 40),
        ("min(running, waiting)", 20),
        ("abs(waiting - running)", 12),
        ("ceil(running / 25) + floor(1.9)", 3),
        ("round(2.5)", 3),  # away from zero, not to even
        ("round(-2.5)", -3),
        ("running > 30 ? 1 : 2", 1),
        ("running > 30 and waiting > 30 ? 1 : 2", 2),
        ("not (running > 30) || waiting >= 20 ? 1 : 2", 1),
        ("!(running == 32) ? 1 : running != 32 ? 2 : 3", 3),
        ("(running > 1) == (waiting > 1) ? 1 : 2", 1),
        ("count([running, waiting, expected], {# > 25}) >= 2 ? expected : 0", 40),
        ("count([running, waiting], # > 25)", 1),
        (".5 + 1e1", 10.5),
        ("  running\n+ waiting ", 52),
    ],
)
def test_a_formula_has_the_value_that_it_has_in_keda(text: str, value: float):
    assert parse(text).value(VALUES) == value


@pytest.mark.parametrize(
    ("text", "column", "words"),
    [
        ("", 1, "ends here"),
        ("running +", 10, "ends here"),
        ("running waiting", 9, "not expected"),
        ("(running", 9, "')' is missing"),
        ("running $ 2", 9, "'$' is not known"),
        ("sqrt(running)", 1, "no function 'sqrt'"),
        ("abs(1, 2)", 1, "one number"),
        ("max()", 1, "takes numbers"),
        ("running > 1", 1, "true or false"),
        ("running and waiting ? 1 : 2", 9, "must be true or false"),
        ("1 < running < 3 ? 1 : 2", 13, "must be a number"),
        ("running ? 1 : 2", 9, "must be true or false"),
        ("running > 1 ? 1 : running > 2", 13, "both sides"),
        ("running % 2", 9, "whole numbers only"),
        ("running + # * 2", 11, "not expected"),
        ("not running", 1, "must be true or false"),
        ("__import__('os')", 12, "not known"),
        ("running.real", 8, "not known"),
    ],
)
def test_what_keda_would_refuse_is_refused_with_its_column(text: str, column: int, words: str):
    with pytest.raises(ExpressionError, match="column") as refused:
        parse(text)
    assert words in str(refused.value)
    assert refused.value.column == column


@pytest.mark.parametrize(
    "text",
    ["1+" * MAX_LENGTH + "1", "1+" * 200 + "1", "(" * (MAX_DEPTH + 1) + "1" + ")" * (MAX_DEPTH + 1), "-" * 100 + "1"],
)
def test_a_formula_is_bounded(text: str):
    with pytest.raises(ExpressionError, match="too"):
        parse(text)


def test_a_formula_says_which_triggers_it_needs():
    assert parse("running + count([waiting], {# > 1}) * 10").names == {"running", "waiting"}
    with pytest.raises(ExpressionError, match="waiting has no value"):
        parse("running + waiting").value({"running": 1.0})


def test_division_by_zero_is_infinite_as_in_go_and_a_remainder_of_it_an_error():
    assert parse("running / 0").value(VALUES) == math.inf
    assert parse("-running / 0").value(VALUES) == -math.inf
    assert math.isnan(parse("(running - running) / 0").value(VALUES))
    with pytest.raises(ExpressionError, match="division by 0"):
        parse("1 % 0").value({})


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("running + waiting * 10", "running 32 + 10 × waiting 20"),
        ("running + expected * 1", "running 32 + expected 40"),
        ("(running + waiting) / 2", "(running 32 + waiting 20) / 2"),
        ("running - (waiting - 1)", "running 32 − (waiting 20 − 1)"),
        ("max(running, waiting)", "max(running 32, waiting 20)"),
        ("waiting > 5 ? running : 0", "(running 32, as waiting 20 > 5 is true)"),
    ],
)
def test_a_formula_is_shown_with_its_numbers(text: str, shown: str):
    assert parse(text).explain(VALUES) == shown


def arithmetic() -> st.SearchStrategy[str]:
    leaf = st.sampled_from(("running", "waiting", "expected")) | st.integers(0, 1000).map(str)
    return st.recursive(
        leaf,
        lambda inner: (
            st.tuples(inner, st.sampled_from("+-*"), inner).map(" ".join)
            | inner.map("({})".format)
            | inner.map("-{}".format)
        ),
        max_leaves=25,
    )


@given(text=arithmetic(), numbers=st.tuples(*[st.integers(0, 10_000)] * 3))
def test_arithmetic_agrees_with_pythons(text: str, numbers: tuple[int, int, int]):
    values = dict(zip(VALUES, map(float, numbers), strict=True))
    wanted = eval(text, {"__builtins__": {}}, values)
    assert parse(text).value(values) == pytest.approx(wanted)


@given(text=st.text(alphabet="abc 12.+-*/%^<>=!?:(),[]{}#&|", max_size=60))
def test_any_text_is_read_or_refused(text: str):
    try:
        expression = parse(text)
        expression.value(dict.fromkeys(expression.names, 3.0))
    except ExpressionError as error:
        assert error.column <= len(text) + 1
