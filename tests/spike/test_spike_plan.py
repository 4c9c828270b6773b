"""What a plan says of itself: levels, arrivals, and the file that every tool reads."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.spike.plan import BadPlan, Cell, Plan, Prompt, Slo, Stage

LEVELS = st.floats(0, 50).map(lambda level: round(level, 2))
STAGES = st.lists(st.builds(Stage, LEVELS, st.floats(0, 20).map(lambda s: round(s, 2))), min_size=1, max_size=6)


def planned(start: float, stages: list[Stage], **more) -> Plan:
    return Plan(scenario="spike", loop="open", start=start, stages=tuple(stages), source="k6", **more)


def test_a_step_has_its_new_level_at_once_and_a_ramp_on_the_way() -> None:
    plan = planned(2, [Stage(2, 10), Stage(20, 0), Stage(20, 5), Stage(0, 10)])
    assert [plan.level(at_s) for at_s in (0, 9.99, 10, 14.99, 20, 25, 99)] == [2, 2, 20, 20, 10, 0, 0]
    assert (plan.duration_s, plan.peak, plan.planned) == (25, 20, 220)


@given(LEVELS, STAGES)
def test_as_many_requests_are_due_as_the_rates_integral_says_each_when_it_reaches_its_number(start, stages) -> None:
    plan = planned(start, stages)
    due = list(plan.arrivals())

    def integral(to_s: float) -> float:
        area = 0.0
        for (from_s, before), (end_s, after) in pairwise(plan.corners()):
            part_s = max(0.0, min(to_s, end_s) - from_s)
            slope = (after - before) / (end_s - from_s) if end_s > from_s else 0.0
            area += part_s * before + slope * part_s**2 / 2
        return area

    assert len(due) == int(integral(plan.duration_s) + 1e-6)
    assert due == sorted(due)
    assert all(abs(integral(at_s) - n) < 1e-3 for n, at_s in enumerate(due, 1))


def test_a_plan_is_the_same_after_it_was_a_file() -> None:
    plan = planned(
        1,
        [Stage(2, 3, "before")],
        model="mistral",
        work=(Prompt("Wie spät ist es? ☕", 8),),
        cells=(Cell("a", 1, 4, 0, 30),),
        slo=Slo(2, 0.1),
        thresholds=("ttft_p95_ms<1000",),
        room="KWXM",
    )
    assert Plan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{}", "version None"),
        ('{"version": 2}', "version 2"),
        ('{"version": 1}', "Not a plan"),
        ("[1]", "Not a plan"),
        ("no JSON", "Not a plan"),
        (json.dumps(json.loads(planned(1, []).to_json()) | {"speed": 9}), "speed"),
    ],
)
def test_what_is_no_plan_is_refused_in_words(text: str, said: str) -> None:
    with pytest.raises(BadPlan, match=said):
        Plan.from_json(text)


def test_against_prefix_caches_no_two_prompts_begin_alike() -> None:
    plan = planned(1, [Stage(1, 9)], work=(Prompt("Why?", 8), Prompt("How?", 9)), cache_busting=True)
    asked = [plan.prompt(n) for n in range(4)]
    assert len({one.text.split()[0] for one in asked}) == 4
    assert [one.max_tokens for one in asked] == [8, 9, 8, 9]
    assert all(one.text.endswith(("Why?", "How?")) for one in asked)
