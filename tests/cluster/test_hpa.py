"""The HPA's algorithm by hand: the working of each case stands beside it. KEDA's own part at 0 pods comes last."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.cluster import manifests
from inference.cluster.autoscaling.scaler import Decision, Scaler
from inference.cluster.spec import Fallback, Policy, Rules, ScalingSpec, Trigger

SPEC = manifests.load(manifests.defaults()).scaling
FREE = Rules((Policy("Percent", 100_000, 15.0),))
# Nothing but the metric, tolerance, min and max.
PLAIN = replace(SPEC, formula="running", up=FREE, down=Rules((Policy("Percent", 100, 15.0),)))


class Drive:
    """A Scaler on a clock, 15 s a step, whose decisions are carried out at once."""

    def __init__(self, spec: ScalingSpec, current: int, ready: int | None = None) -> None:
        self.scaler = Scaler(spec)
        self.spec, self.current, self.ready, self.now_s = spec, current, ready, 0.0

    def step(self, running: float | None, waiting: float | None = 0.0, after_s: float = 15.0) -> Decision:
        values = {trigger.query: running if trigger.name == "running" else waiting for trigger in self.spec.triggers}
        ready = self.current if self.ready is None else self.ready
        decision = self.scaler.sync(self.now_s, values.get, self.current, ready)
        self.current = decision.desired
        self.now_s += after_s
        return decision

    def steps(self, count: int, running: float) -> list[int]:
        return [self.step(running).desired for _ in range(count)]


@pytest.mark.parametrize(
    ("current", "metric", "desired", "limit"),
    [
        (1, 27.5, 1, "tolerance"),  # 27.5 / 25 = 1.1 is not more than 1 + 0.1
        (1, 27.501, 2, ""),  # 1.10004 is, and ceil(1.10004) = 2
        (1, 25.0, 1, ""),  # exactly one pod's worth
        (1, 0.0, 1, "min"),  # ceil(0) = 0
        (4, 90.0, 4, ""),  # 90 / 100 = 0.9 is not less than 1 - 0.1; ceil(3.6) = 4 anyway
        (4, 89.9, 4, ""),  # 0.899 is outside, and ceil(3.596) = 4
        (10, 225.0, 10, "tolerance"),  # 225 / 250 = 0.9, though ceil(9) = 9
        (10, 224.999, 9, ""),  # 0.899996, ceil(8.99996) = 9
        (4, 110.0, 4, "tolerance"),  # 1.1
        (4, 110.001, 5, ""),  # ceil(4.40004) = 5
        (1, 232.0, 10, ""),  # ceil(9.28)
        (1, 250.001, 10, "max"),  # ceil(10.00004) = 11
        (3, 30.0, 2, ""),  # 30 / 75 = 0.4, ceil(1.2) = 2
    ],
)
def test_an_average_value_divides_by_the_target_and_is_tolerated_around_the_pods_there_are(
    current: int, metric: float, desired: int, limit: str
):
    decision = Drive(PLAIN, current).step(metric)
    assert (decision.desired, decision.limited_by) == (desired, limit)


def test_readiness_does_not_matter_to_an_average_value():
    assert Drive(PLAIN, 10, ready=1).step(232.0).desired == 10


@pytest.mark.parametrize(
    ("current", "ready", "metric", "desired"),
    [
        (4, 4, 27.5, 4),  # 27.5 / 25 = 1.1: tolerated, whatever the number of pods
        (4, 4, 50.0, 8),  # 2 × 4 ready
        (4, 1, 50.0, 2),  # 2 × 1 ready: unready pods are not multiplied
        (4, 4, 12.5, 2),  # 0.5 × 4
    ],
)
def test_a_value_multiplies_the_ready_pods(current: int, ready: int, metric: float, desired: int):
    assert Drive(replace(PLAIN, metric_type="Value"), current, ready).step(metric).desired == desired


def test_a_spike_goes_from_1_to_10_in_one_step_and_says_why():
    decision = Drive(SPEC, 1).step(32, 20)
    assert decision.desired == 10
    assert decision.metric == 232.0
    assert decision.triggers == {"running": 32.0, "waiting": 20.0}
    assert decision.why == "running 32 + 10 × waiting 20 = 232 → 232/25 = 9.3 → 10, policy allows 10"
    assert decision.active and not decision.fallback


@pytest.mark.parametrize(
    ("rules", "allowed"),
    [
        (Rules((Policy("Pods", 2, 15.0),)), [3, 3, 5]),
        # 100 % of the pods at the period's beginning: 1 → 2; at 15 s the event at 0 is no longer within 15 s: 2 → 4
        (Rules((Policy("Percent", 100, 15.0),)), [2, 2, 4]),
        (Rules((Policy("Percent", 50, 15.0),)), [2, 2, 3]),  # ceil(1.5) = 2, ceil(3) = 3
        (Rules((Policy("Percent", 900, 15.0), Policy("Pods", 2, 15.0))), [10, 10, 10]),  # the more of the two
        (Rules((Policy("Percent", 900, 15.0), Policy("Pods", 2, 15.0)), "Min"), [3, 3, 5]),  # the less
        (Rules((Policy("Pods", 2, 60.0),)), [3, 3, 3]),  # the minute is not over at 15 s
        (Rules((Policy("Pods", 2, 60.0), Policy("Pods", 1, 5.0))), [3, 4, 5]),
        (Rules((Policy("Pods", 2, 15.0),), "Disabled"), [1, 1, 1]),
    ],
)
def test_policies_bound_the_way_up(rules: Rules, allowed: list[int]):
    drive = Drive(replace(PLAIN, up=rules), 1)
    seen = []
    for after_s in (7.5, 7.5, 15.0):  # at 0, 7.5 and 15 s
        decision = drive.step(250.0, after_s=after_s)
        seen.append(decision.desired)
        assert (decision.limited_by == "") == (decision.desired == 10)
    assert seen == allowed


@pytest.mark.parametrize(
    ("rules", "allowed"),
    [
        (Rules((Policy("Pods", 2, 60.0),)), [8, 8, 6]),
        (Rules((Policy("Percent", 50, 60.0),)), [5, 5, 2]),  # int(2.5) = 2
        (Rules((Policy("Percent", 50, 60.0), Policy("Pods", 2, 60.0))), [5, 5, 2]),
        (Rules((Policy("Percent", 50, 60.0), Policy("Pods", 2, 60.0)), "Min"), [8, 8, 6]),
        (Rules((Policy("Percent", 100, 15.0),)), [1, 1, 1]),
        (Rules((Policy("Pods", 2, 60.0),), "Disabled"), [10, 10, 10]),
    ],
)
def test_policies_bound_the_way_down(rules: Rules, allowed: list[int]):
    drive = Drive(replace(PLAIN, down=rules), 10)
    assert [drive.step(1.0, after_s=30.0).desired for _ in range(3)] == allowed  # at 0, 30 and 60 s


def test_the_way_down_waits_until_the_last_higher_wish_is_300_s_old():
    drive = Drive(SPEC, 10)
    assert drive.steps(2, 250.0) == [10, 10]  # at 0 and 15 s the load still asks for 10
    quiet = [drive.step(3.0) for _ in range(19)]  # at 30 to 300 s
    assert {decision.desired for decision in quiet} == {10}
    assert {decision.limited_by for decision in quiet} == {"stabilization"}
    wanted = "running 3 + 10 × waiting 0 = 3 → 3/25 = 0.12 → 1, held at 10 for 285 s more (300 s window)"
    assert quiet[0].why == wanted
    last = drive.step(3.0)  # at 315 s, 300 s after the wish at 15 s
    assert (last.desired, last.limited_by) == (5, "policy")  # 50 % in 60 s
    # 60 s later int(2.5) = 2, and again 60 s later int(1) = 1
    assert drive.steps(9, 3.0) == [5, 5, 5, 2, 2, 2, 2, 1, 1]


def test_the_number_at_the_first_sync_counts_as_a_wish():
    drive = Drive(SPEC, 7)
    assert drive.steps(20, 0.0) == [7] * 20
    assert drive.step(0.0).desired == 3  # at 300 s: int(7 × 0.5)


def test_a_window_upwards_takes_the_lowest_wish_within_it():
    drive = Drive(replace(PLAIN, up=replace(FREE, stabilization_s=60.0)), 2)
    assert drive.step(50.0).desired == 2
    held = [drive.step(250.0) for _ in range(3)]  # at 15 to 45 s the wish for 2, at 0 s, is within 60 s
    assert [decision.desired for decision in held] == [2, 2, 2]
    assert held[0].why == "running 250 → 250/25 = 10, held at 2 for 45 s more (60 s window)"
    assert drive.step(250.0).desired == 10


def test_a_missing_metric_changes_nothing_and_then_falls_back():
    drive = Drive(replace(SPEC, fallback=Fallback(3, 4, "static")), 2)
    for count in ("once", "2 times", "3 times"):
        decision = drive.step(None)
        assert (decision.desired, decision.limited_by, decision.metric) == (2, "missing", None)
        assert decision.why == f"no value for running ({count} in a row): stays at 2 pods"
    decision = drive.step(None)
    assert (decision.desired, decision.fallback) == (4, True)
    assert decision.why == "no value 4 times in a row: fallback to 4 pods (static), policy allows 10"


def test_a_fleet_that_is_blind_keeps_what_it_has():
    drive = Drive(SPEC, 6)
    assert [drive.step(None).desired for _ in range(40)] == [6] * 40


def test_of_several_metrics_the_highest_wish_counts_and_a_missing_one_forbids_going_down():
    triggers = (Trigger("running", "r", 25.0, ignore_null=False), Trigger("waiting", "w", 5.0, ignore_null=False))
    spec = replace(PLAIN, formula="", triggers=triggers, fallback=None)
    decision = Drive(spec, 3).step(30.0, 21.0)  # ceil(1.2) = 2 and ceil(4.2) = 5
    assert (decision.desired, decision.metric) == (5, 21.0)
    assert decision.why == "waiting 21 → 21/5 = 4.2 → 5, policy allows 10"
    assert Drive(spec, 3).step(None, 21.0).desired == 5
    assert Drive(spec, 3).step(30.0, None).desired == 3


@pytest.mark.parametrize(("current", "desired", "limit"), [(12, 10, "max"), (1, 2, "min"), (0, 0, "disabled")])
def test_what_is_outside_of_min_and_max_is_brought_back_whatever_the_metric(current: int, desired: int, limit: str):
    decision = Drive(replace(SPEC, min_replicas=2), current).step(None)
    assert (decision.desired, decision.limited_by) == (desired, limit)


def test_each_limit_says_itself():
    def why(spec: ScalingSpec, current: int, running: float) -> str:
        return Drive(spec, current).step(running).why

    assert why(PLAIN, 1, 27.0) == "running 27 → 27/25 = 1.08, within 10 % of 1 pod: stays"
    assert why(PLAIN, 1, 0.0) == "running 0 → 0/25 = 0, at least 1"
    assert why(PLAIN, 1, 400.0) == "running 400 → 400/25 = 16, at most 10"
    assert why(PLAIN, 2, 50.0) == "running 50 → 50/25 = 2, as it is"
    assert why(replace(PLAIN, up=Rules((Policy("Pods", 1, 15.0),))), 1, 250.0).endswith("= 10, policy allows 2 for now")
    assert why(replace(PLAIN, up=replace(FREE, select="Disabled")), 1, 250.0).endswith("disabled: stays at 1")
    assert why(PLAIN, 12, 1.0) == "12 pods, more than the maximum: set to 10"
    assert why(replace(PLAIN, metric_type="Value"), 4, 50.0).startswith("running 50 → 50/25 × 4 ready = 8")


def test_the_next_sync_is_due_15_s_after_the_last_however_late_that_was():
    drive = Drive(SPEC, 1)
    assert drive.scaler.due_s(0.0) == 0.0
    drive.step(0.0)
    assert drive.scaler.due_s(1.0) == 15.0
    assert drive.scaler.due_s(40.0) == 40.0


def test_after_a_reset_nothing_is_remembered():
    drive = Drive(SPEC, 10)
    drive.step(250.0)
    drive.scaler.reset()
    drive.current = 2
    assert drive.step(0.0).desired == 2  # held at the number of the new HPA's first sync, not at 10


def test_at_a_minimum_of_0_keda_starts_the_first_pod_and_takes_the_last_after_the_cooldown():
    drive = Drive(replace(SPEC, min_replicas=0, polling_interval_s=30.0, cooldown_s=60.0), 0)
    asleep = drive.step(0.0)
    assert (asleep.desired, asleep.active, asleep.limited_by) == (0, False, "inactive")
    assert drive.step(5.0).desired == 0  # 15 s: KEDA polls every 30
    woken = drive.step(5.0)
    assert (woken.desired, woken.active) == (1, True)
    assert woken.why == "running 5, waiting 0: there is work, so KEDA starts the first pod"
    # Active at 30 s. The polls at 60 and 90 s find the cooldown running (30 + 60 is not before 90), that at 120 s over.
    assert drive.steps(5, 0.0) == [1] * 5
    gone = drive.step(0.0)
    assert drive.now_s - 15.0 == 120.0
    assert (gone.desired, gone.why) == (0, "running 0, waiting 0: no work for 60 s, so no pods")


def test_at_0_pods_an_unknown_metric_wakes_the_fallback():
    drive = Drive(replace(SPEC, min_replicas=0, fallback=Fallback(3, 2, "static")), 0)
    assert (drive.step(None).desired, drive.current) == (2, 2)
    blind = Drive(replace(SPEC, min_replicas=0, fallback=None), 0).step(None)
    assert (blind.desired, blind.limited_by) == (0, "missing")


def test_only_the_first_pod_is_kedas_the_rest_is_the_hpas():
    drive = Drive(replace(SPEC, min_replicas=0), 0)
    assert drive.step(32.0, 20.0).desired == 1
    assert drive.step(32.0, 20.0).desired == 10


loads = st.lists(st.none() | st.floats(0.0, 2000.0), min_size=1, max_size=60)


@st.composite
def specs(draw: st.DrawFn) -> ScalingSpec:
    low = draw(st.integers(1, 5))
    policy = st.builds(
        Policy, st.sampled_from(("Pods", "Percent")), st.integers(1, 300), st.sampled_from((15.0, 60.0, 120.0))
    )
    rules = st.builds(
        Rules,
        st.lists(policy, min_size=1, max_size=3).map(tuple),
        st.sampled_from(("Max", "Min", "Disabled")),
        st.sampled_from((0.0, 30.0, 300.0)),
    )
    behavior = draw(st.sampled_from(("static", "currentReplicas", "currentReplicasIfHigher", "currentReplicasIfLower")))
    return replace(
        PLAIN,
        min_replicas=low,
        max_replicas=low + draw(st.integers(0, 20)),
        up=draw(rules),
        down=draw(rules),
        fallback=draw(st.none() | st.just(Fallback(2, draw(st.integers(0, 30)), behavior))),
        metric_type=draw(st.sampled_from(("AverageValue", "Value"))),
    )


@settings(max_examples=50)
@given(spec=specs(), load=loads, start=st.integers(1, 30))
def test_the_fleet_is_never_outside_of_min_and_max(spec: ScalingSpec, load: list[float | None], start: int):
    drive = Drive(spec, start)
    for running in load:
        assert spec.min_replicas <= drive.step(running).desired <= spec.max_replicas


@settings(max_examples=50)
@given(spec=specs(), load=loads)
def test_no_period_sees_more_pods_added_than_its_policy_allows(spec: ScalingSpec, load: list[float | None]):
    """A single policy upwards and a fleet that never shrinks: pods at any time against those one period before."""
    policy = replace(spec.up.policies[0])
    spec = replace(spec, up=replace(spec.up, policies=(policy,)), down=replace(spec.down, select="Disabled"))
    drive = Drive(spec, spec.min_replicas)
    history = [(-math.inf, drive.current)]
    for running in load:
        at_s = drive.now_s
        desired = drive.step(running).desired
        before = next(pods for then_s, pods in reversed(history) if then_s <= at_s - policy.period_s)
        allowed = before + policy.value if policy.type == "Pods" else math.ceil(before * (1 + policy.value / 100))
        assert desired <= max(allowed, history[-1][1])
        history.append((at_s, desired))


@settings(max_examples=50)
@given(spec=specs(), load=loads, start=st.integers(1, 25))
def test_an_idle_fleet_comes_down_to_the_minimum(spec: ScalingSpec, load: list[float | None], start: int):
    down = replace(spec.down, select="Max")
    drive = Drive(replace(spec, down=down), start)
    for running in load:
        drive.step(running)
    # At least one pod in each longest period, after the longest window.
    periods = spec.max_replicas * max(policy.period_s for policy in down.policies)
    for _ in range(math.ceil((periods + 300.0) / 15.0) + 2):
        drive.step(0.0)
    assert drive.current == spec.min_replicas


@settings(max_examples=50)
@given(spec=specs(), load=loads)
def test_a_decision_is_one_line_with_a_reason(spec: ScalingSpec, load: list[float | None]):
    drive = Drive(spec, spec.min_replicas)
    for running in load:
        decision = drive.step(running)
        assert decision.why and "\n" not in decision.why and len(decision.why) < 200


@settings(max_examples=50)
@given(spec=specs(), load=loads)
def test_the_same_load_has_the_same_history(spec: ScalingSpec, load: list[float | None]):
    first, second = Drive(spec, 2), Drive(spec, 2)
    assert [first.step(one) for one in load] == [second.step(one) for one in load]
