"""The triggers' queries, over scrapes of a small fleet."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.cluster.autoscaling.promql import QueryError, parse
from inference.cluster.scraping import Scrapes


@pytest.fixture
def fleet() -> Scrapes:
    """Two vLLM pods, one of another model, and a pod that is starting."""
    scrapes = Scrapes()
    for pod, model, running, waiting in (("a", "mistral", 32, 5), ("b", "mistral", 10, 0), ("c", "llama", 4, 1)):
        labels = {"pod": pod, "model_name": model}
        scrapes.put_values(f"{pod}:8000", 100.0, {"running": running, "waiting": waiting}, labels)
    scrapes.put("d:8000", 100.0, None, {"pod": "d"})
    return scrapes


@pytest.mark.parametrize(
    ("query", "value"),
    [
        ("sum(running)", 46),
        ('sum(running{model_name="mistral"})', 42),
        ('sum(running{model_name!="mistral"})', 4),
        ('sum(running{pod=~"a|c"})', 36),
        ('sum(running{pod=~"a|",model_name="mistral"})', 32),
        ('sum(running{pod!~"a.*"})', 14),
        ('sum(running{nothing=""})', 46),  # a label that is absent is empty
        ("avg(running)", 46 / 3),
        ("max(running)", 32),
        ("min(running)", 4),
        ("count(running)", 3),
        ("count(up)", 4),
        ("sum(up)", 3),
        ("sum(running) + sum(waiting) * 10", 106),
        ("sum(running + waiting * 10)", 106),  # one to one, on the same labels
        ("(sum(running) + 4) / 2", 25),
        ("2 ^ 3 ^ 2 + vector(0)", 512),
        ("-2 ^ 2 + vector(0)", -4),
        ("vector(7) % 4", 3),
        ("sum(running) / count(running)", 46 / 3),
        ("sum(nothing) or vector(0)", 0),
        ("sum(running) or vector(0)", 46),
        ("clamp_max(sum(running), 40)", 40),
        ("clamp_min(sum(running) * 0, 1)", 1),
        ("max(sum by (model_name) (running))", 42),
        ("max(sum(running) by (model_name))", 42),
        ("max(sum without (pod, instance) (running))", 42),
        ('running{pod="a"}', 32),
        ('running{pod="a",} - 30', 2),
        ("- sum(running)", -46),
    ],
)
def test_a_query_has_prometheus_answer(fleet: Scrapes, query: str, value: float):
    assert parse(query).value(fleet, 101.0) == pytest.approx(value)


def test_a_query_without_a_result_has_none(fleet: Scrapes):
    assert parse("sum(nothing)").value(fleet, 101.0) is None
    assert parse("sum(running) + sum(nothing)").value(fleet, 101.0) is None
    assert parse("sum(running)").value(fleet, 100.0 + 300.0) is None


def test_several_results_are_an_error_as_in_keda(fleet: Scrapes):
    with pytest.raises(QueryError, match="3 results"):
        parse("running").value(fleet, 101.0)


def test_series_of_the_same_labels_on_one_side_are_an_error(fleet: Scrapes):
    fleet.put_values("one", 101.0, {"x": 1.0}, {"instance": "same"})
    fleet.put_values("another", 101.0, {"x": 2.0}, {"instance": "same"})
    with pytest.raises(QueryError, match="same labels"):
        parse("x + x").vector(fleet, 101.0)


def test_division_by_zero_is_infinite_and_nan_is_no_extreme(fleet: Scrapes):
    assert parse("sum(running) / 0").value(fleet, 101.0) == math.inf
    fleet.put_values("e:8000", 101.0, {"running": math.nan})
    assert parse("max(running)").value(fleet, 101.0) == 32
    assert math.isnan(parse("sum(running)").value(fleet, 101.0) or 0.0)


def test_a_query_says_which_metrics_it_looks_at():
    assert parse("sum(vllm:a) + max(b) or vector(0)").names == {"vllm:a", "b"}


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("", "wanted"),
        ("1 + 1", "vector"),
        ("sum(rate(x[5m]))", "rate() is not known"),
        ("sum(x[5m])", "no range"),
        ("sum(x offset 5m)", "no offset"),
        ("sum(x", "')' is missing"),
        ("sum(1)", "takes a vector"),
        ("x or 1", "between vectors"),
        ("vector(x)", "takes a number"),
        ("clamp_max(1, x)", "takes a vector"),
        ("clamp_max(x, x)", "a vector and a number"),
        ('x{pod="a"', "'}' is missing"),
        ("x{pod=a}", "quoted"),
        ("x{pod}", "one of"),
        ('x{="a"}', "label"),
        ('x{pod=~"("}', "regular expression"),
        ("x > 5", "not known"),
        ("x y", "not expected"),
        ("(" * 40 + "x" + ")" * 40, "too deep"),
        ("x" + "+x" * 400, "too long"),
    ],
)
def test_what_is_not_known_is_refused_when_it_is_parsed(query: str, words: str):
    with pytest.raises(QueryError) as refused:
        parse(query)
    assert words in str(refused.value)


@given(text=st.text(alphabet="abc sum(by)max{}=~!\"'/+-*^%,1.5[m]", max_size=60))
def test_any_text_is_read_or_refused(text: str):
    scrapes = Scrapes()
    scrapes.put_values("t", 0.0, {"a": 1.0, "b": 2.0})
    try:
        parse(text).value(scrapes, 1.0)
    except QueryError as error:
        assert str(error)
