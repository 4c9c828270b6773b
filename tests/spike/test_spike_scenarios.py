"""The plan that each scenario makes of what was asked for, and what it says to what can't be."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from loadgen.spike.plan import MAX_REQUESTS, BadPlan, Plan
from loadgen.spike.scenarios import SCENARIOS, Options, plan

ROOM = Options(room="KWXM")


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_works_without_a_choice_and_always_makes_the_same(name: str) -> None:
    made = plan(name, ROOM)
    assert made == plan(name, ROOM) == Plan.from_json(made.to_json())
    assert made.scenario == name
    assert made.duration_s > 0
    assert made.peak > 0
    assert made.work
    assert plan(name, replace(ROOM, seed=2)).work != made.work


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_lasts_as_long_as_it_is_told_to(name: str) -> None:
    made = plan(name, replace(ROOM, duration_s=200))
    assert made.duration_s == pytest.approx(200)


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_names_options_that_there_are(name: str) -> None:
    assert SCENARIOS[name].takes <= {field.name for field in fields(Options)}
    assert SCENARIOS[name].text.endswith(".")


def test_a_spike_is_a_true_step_up_and_a_true_step_down() -> None:
    made = plan("spike", Options(peak=20, duration_s=100))
    at = made.level
    assert [at(s) for s in (0, 19.99, 20, 59.99, 60, 99)] == [1, 1, 20, 20, 1, 1]
    assert [stage.to for stage in made.stages if stage.for_s == 0] == [20, 1]
    assert made.planned == 20 + 800 + 40
    due = list(made.arrivals())
    assert sum(20 < at_s <= 60 for at_s in due) == 800


def test_a_small_spike_has_a_floor_under_its_base_and_a_tiny_one_is_flat() -> None:
    assert plan("spike", Options(peak=2)).start == 0.2
    assert plan("spike", Options(peak=0.1, duration_s=100)).start == 0.1


def test_a_staged_run_warms_up_holds_climbs_and_cools_down() -> None:
    made = plan("staged", Options(peak=8, duration_s=100))
    assert [made.level(s) for s in (0, 5, 10, 44, 60, 84, 92.5)] == [0, 1, 2, 2, 8, 8, 4]
    assert [stage.name for stage in made.stages] == ["warm-up", "hold", "ramp", "peak", "cool-down"]
    assert plan("staged", Options()).duration_s == 45 * 60


def test_a_soak_is_level() -> None:
    made = plan("soak", Options(peak=3, duration_s=60))
    assert {made.level(s) for s in range(60)} == {3}
    assert made.planned == 180


@pytest.mark.parametrize("name", ["spike", "staged", "soak"])
def test_on_request_levels_are_users_in_a_closed_loop(name: str) -> None:
    made = plan(name, Options(closed=True, peak=7))
    assert (made.loop, made.peak, made.planned) == ("closed", 7, None)
    assert all(stage.to == int(stage.to) for stage in made.stages)
    assert plan(name, Options(peak=7)).loop == "open"


def test_a_matrix_gives_each_cell_the_same_time_and_leaves_none_out() -> None:
    made = plan("matrix", Options(batches=(1, 4), concurrency=(1, 8), models=("a", "b"), duration_s=80))
    kinds = [(cell.model, cell.users, cell.batch) for cell in made.cells]
    assert sorted(kinds) == sorted((m, u, b) for m in "ab" for u in (1, 8) for b in (1, 4))
    assert [model for model, _, _ in kinds] == ["a"] * 4 + ["b"] * 4  # no model is loaded twice
    assert [(cell.from_s, cell.to_s) for cell in made.cells] == [(n * 10, n * 10 + 7.5) for n in range(8)]
    assert [made.level(cell.from_s) for cell in made.cells] == [cell.users for cell in made.cells]
    assert {made.level(cell.to_s) for cell in made.cells} == {0}  # what is under way may end
    assert made.loop == "closed"


def test_a_phone_is_a_person_who_joins_early_and_waits_for_answers() -> None:
    made = plan("audience", Options(peak=40, duration_s=100, room="KWXM", tool="locust"))
    assert (made.loop, made.room, made.source) == ("closed", "KWXM", "locust")
    assert [made.level(s) for s in (0, 10, 20, 99)] == [0, 20, 40, 40]
    assert max(len(one.text) for one in made.work) < 200


def test_amplified_questions_are_marked_as_such_whichever_tool_sends_them() -> None:
    for tool in ("k6", "locust"):
        made = plan("amplify", Options(room="KWXM", copies=9, tool=tool))
        assert (made.source, made.copies, made.peak, made.room) == ("amplified", 9, 9, "KWXM")
    assert plan("spike", Options(tool="locust")).source == "locust"


def test_a_plan_holds_no_more_work_than_it_sends() -> None:
    assert len(plan("spike", Options(peak=2, duration_s=10)).work) == 8 + 1
    assert len(plan("spike", Options(peak=200)).work) == 512


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("spke", {}, "Did you mean spike"),
        ("zzz", {}, "There are spike, staged"),
        ("spike", {"peak": 0}, "--peak 0: give a rate above 0"),
        ("spike", {"peak": 6000}, "up to 5,000 requests a second"),
        ("soak", {"peak": float("nan")}, "--peak nan"),
        ("soak", {"duration_s": 0.5}, "--duration 0.5s: give 1s to 4h"),
        ("soak", {"duration_s": 5 * 3600}, "--duration 18000s: give 1s to 4h"),
        ("soak", {"peak": 5000, "duration_s": 3600}, f"up to {MAX_REQUESTS:,}"),
        ("soak", {"peak": 0.01, "duration_s": 10}, "not a single request"),
        ("spike", {"peak": 2.5, "closed": True}, "these are users; give a whole number"),
        ("audience", {"peak": 2.5}, "these are phones; give a whole number"),
        ("audience", {"peak": 9000}, "from 1 to 5,000"),
        ("amplify", {"room": ""}, "--room KWXM"),
        ("amplify", {"copies": 1001}, "--copies 1001: give 1 to 1,000"),
        ("matrix", {"duration_s": 2}, "give 4s or more"),
        ("matrix", {"batches": tuple(range(1, 80))}, "158 cells; up to 100"),
        ("matrix", {"batches": (100,), "concurrency": (100,)}, "10000 requests at once"),
        ("matrix", {"batches": (0,)}, "--batch 0"),
        ("matrix", {"concurrency": ()}, "--concurrency"),
        ("spike", {"prompt_tokens": (400, 16)}, "--prompt-tokens 400:16"),
        ("spike", {"max_tokens": (1, 9999)}, "from 1 to 4,096"),
        ("spike", {"max_in_flight": 0}, "--max-in-flight 0"),
        ("spike", {"timeout_s": 0}, "--timeout 0s"),
        ("spike", {"thresholds": ("ttft<1",)}, "ttft<1"),
    ],
)
def test_what_cannot_be_is_refused_with_the_options_name_and_what_would_be_right(name, options, said: str) -> None:
    with pytest.raises(BadPlan) as refused:
        plan(name, replace(ROOM, **options))
    assert said in str(refused.value)
