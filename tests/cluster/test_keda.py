"""What KEDA tells the HPA: values, missing series, fallback, activity. Failures count once for each question."""

from __future__ import annotations

from dataclasses import replace

import pytest

from inference.cluster import manifests
from inference.cluster.autoscaling.keda import Keda
from inference.cluster.autoscaling.promql import QueryError
from inference.cluster.spec import Fallback, ScalingSpec, Trigger

SPEC = manifests.load(manifests.defaults()).scaling
RUNNING, WAITING = (trigger.query for trigger in SPEC.triggers)
APART = replace(SPEC, formula="", triggers=(Trigger("running", "r", 25.0, 5.0, False), Trigger("waiting", "w", 5.0)))


def load(running: float | None, waiting: float | None):
    return {RUNNING: running, WAITING: waiting, "r": running, "w": waiting}.get


def fail(keda: Keda, times: int, current: int, ready: int = 1):
    """The answer to the last of `times` questions in a row for which there is no series."""
    for _ in range(times):
        answer = keda.answer(keda.ask(load(None, 0)), current, ready)
    return answer


def test_the_formulas_value_is_the_one_metric():
    keda = Keda(SPEC)
    (metric,) = keda.answer(keda.ask(load(32, 20)), 1, 1).metrics
    assert (metric.value, metric.target) == (232.0, 25.0)
    assert metric.text == "running 32 + 10 × waiting 20 = 232"


def test_without_a_formula_each_trigger_has_its_own_target():
    keda = Keda(APART)
    first, second = keda.answer(keda.ask(load(32, 20)), 1, 1).metrics
    assert (first.value, first.target, first.text) == (32.0, 25.0, "running 32")
    assert (second.value, second.target, second.text) == (20.0, 5.0, "waiting 20")


def test_values_are_cut_off_to_thousandths():
    keda = Keda(replace(SPEC, formula="running / 3"))
    assert keda.ask(load(1.23456, 0))["running"] == 1.234
    (metric,) = keda.answer(keda.ask(load(1, 0)), 1, 1).metrics
    assert metric.value == 0.333


@pytest.mark.parametrize("missing", [None, float("nan"), float("inf")])
def test_no_value_is_an_error_or_0_as_ignore_null_says(missing: float | None):
    assert Keda(SPEC).ask(load(missing, 1))["running"] is None
    lenient = replace(SPEC, triggers=tuple(replace(trigger, ignore_null=True) for trigger in SPEC.triggers))
    assert Keda(lenient).ask(load(missing, 1))["running"] == 0.0


def test_a_query_with_several_results_is_an_error_even_if_no_value_is_not():
    def query(text: str) -> float:
        raise QueryError("3 results")

    lenient = replace(SPEC, triggers=tuple(replace(trigger, ignore_null=True) for trigger in SPEC.triggers))
    assert Keda(lenient).ask(query) == {"running": None, "waiting": None}


def test_up_to_the_threshold_a_missing_series_leaves_no_metric_and_the_next_failure_falls_back():
    keda = Keda(SPEC)  # failureThreshold 3: NumberOfFailures > FailureThreshold, so the 4th
    for count in (1, 2, 3):
        answer = fail(keda, 1, current=4)
        assert answer.metrics[0].value is None
        assert (answer.fallback, answer.failures) == (None, count)
        assert answer.metrics[0].text == "no value for running"
    answer = fail(keda, 1, current=4)
    assert answer.fallback == 4
    assert answer.metrics[0].value == 100.0  # 4 pods × 25


def test_one_good_answer_ends_the_fallback_and_the_count():
    keda = Keda(SPEC)
    fail(keda, 9, current=4)
    assert keda.answer(keda.ask(load(1, 0)), 4, 4).fallback is None
    assert fail(keda, 3, current=4).fallback is None
    assert fail(keda, 1, current=4).fallback == 4


@pytest.mark.parametrize(
    ("behavior", "current", "pods"),
    [
        ("static", 2, 5),
        ("static", 8, 5),
        ("currentReplicas", 2, 2),
        ("currentReplicas", 8, 8),
        ("currentReplicasIfHigher", 2, 5),
        ("currentReplicasIfHigher", 8, 8),
        ("currentReplicasIfLower", 2, 2),
        ("currentReplicasIfLower", 8, 5),
    ],
)
def test_each_fallback_has_its_number_of_pods(behavior: str, current: int, pods: int):
    keda = Keda(replace(SPEC, fallback=Fallback(3, 5, behavior)))
    answer = fail(keda, 4, current)
    assert answer.fallback == pods
    assert answer.metrics[0].value == 25.0 * pods


@pytest.mark.parametrize("spec", [replace(SPEC, fallback=None), replace(SPEC, target=2.5)])
def test_without_one_or_beside_a_target_that_is_not_whole_there_is_no_fallback(spec: ScalingSpec):
    answer = fail(Keda(spec), 10, current=4)
    assert answer.fallback is None
    assert answer.metrics[0].value is None


def test_a_fallback_of_a_value_is_shared_among_the_ready_pods():
    keda = Keda(replace(SPEC, metric_type="Value", fallback=Fallback(3, 6, "static")))
    assert fail(keda, 4, current=4, ready=4).metrics[0].value == 37.5  # 25 × 6 / 4, which the HPA multiplies by 4
    assert fail(keda, 1, current=4, ready=0).fallback is None


def test_without_a_formula_only_the_failing_trigger_falls_back():
    keda = Keda(APART)
    answer = fail(keda, 4, current=3)
    assert [metric.value for metric in answer.metrics] == [75.0, 0.0]


def test_a_trigger_that_the_formula_does_not_name_may_fail_up_to_the_threshold():
    keda = Keda(replace(SPEC, formula="waiting * 10"))
    assert fail(keda, 3, current=3).metrics[0].value == 0.0
    assert fail(keda, 1, current=3).fallback == 3


def test_a_formula_without_a_finite_value_counts_as_missing():
    keda = Keda(replace(SPEC, formula="running / waiting"))
    (metric,) = keda.answer(keda.ask(load(5, 0)), 1, 1).metrics
    assert metric.value is None
    assert metric.text == "the formula gives inf"


def test_activity_is_the_formulas_or_any_triggers():
    def active(spec: ScalingSpec, running: float | None, waiting: float | None) -> bool:
        keda = Keda(spec)
        return keda.active(keda.ask(load(running, waiting)))

    assert not active(SPEC, 0, 0)  # more than 0 is wanted
    assert active(SPEC, 1, 0)
    assert not active(SPEC, None, 5)  # with a formula any error means inactive
    assert not active(replace(SPEC, activation_target=10.0), 10, 0)
    assert active(replace(SPEC, activation_target=10.0), 0, 2)
    assert not active(APART, 5, 0)  # its activationThreshold is 5
    assert active(APART, 6, 0)
    assert active(APART, None, 1)
