"""The comparison: it finds what changed, leaves what did not, and says when two runs are not of a kind."""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from statistics import stdev
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.openloop.summary import quantile
from loadgen.spike import folder
from loadgen.spike.bootstrap import LEAST_BLOCK_S, REACH, RESAMPLES, quantiles, ratios, resampled
from loadgen.spike.changes import FIGURES, NEVER, between_means, met_again_s, replicas, values
from loadgen.spike.compare import add_arguments, command, read, text
from loadgen.spike.compare_page import page
from loadgen.spike.comparison import Comparison, compare, warnings
from loadgen.spike.plan import Plan, Prompt, Slo, Stage
from loadgen.spike.point import Point
from loadgen.spike.summary import Summary
from tests.spike.example_runs import PLAN, Fleet, dropped, points, summary, written
from tests.spike.test_spike_report import NASTY, assert_closed

BIGGER = Fleet(more=120, ready_s=45)


def side(name: str, path: Path, **changes: Any) -> Any:
    return read(name, written(path / name, **changes))


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`a` and `b` are runs of one system, `bigger` is one of another."""
    path = tmp_path_factory.mktemp("runs")
    written(path / "a")
    written(path / "b", seed=3)
    written(path / "bigger", fleet=BIGGER, seed=2)
    return path


def by_name(comparison: Comparison) -> dict[str, Any]:
    return {change.figure.name: change for change in comparison.changes}


def called(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return command(parser.parse_args(list(arguments)))


# ---- single runs


def test_a_run_does_not_differ_from_itself(kept: Path) -> None:
    comparison = compare(read("A", kept / "a"), read("B", kept / "a"))
    assert comparison.warnings == ()
    for change in comparison.changes:
        assert change.difference == 0, change
        assert not change.beyond_noise
        assert change.better is None


def test_another_run_of_the_same_system_is_within_noise(kept: Path) -> None:
    comparison = compare(read("A", kept / "a"), read("B", kept / "b"))
    assert not [change for change in comparison.changes if change.beyond_noise]
    told = by_name(comparison)
    for name in ("ttft_p95_s", "e2e_p50_s", "tpot_p99_s", "goodput_share", "served_share", "completion_tokens_per_s"):
        assert told[name].low < told[name].difference < told[name].high, name


def test_a_better_system_is_found_and_a_worse_one_the_other_way_round(kept: Path) -> None:
    a, b = read("A", kept / "a"), read("B", kept / "bigger")
    forth, back = by_name(compare(a, b)), by_name(compare(b, a))
    for name in ("ttft_p95_s", "e2e_p95_s", "goodput_share"):
        assert forth[name].better is True, forth[name]
        assert back[name].better is False, back[name]
        assert forth[name].difference == pytest.approx(-back[name].difference)
        assert forth[name].ratio == pytest.approx(1 / back[name].ratio)
    assert forth["tpot_p50_s"].beyond_noise is False
    assert (forth["met_again_s"].difference < 0, forth["met_again_s"].beyond_noise) == (True, None)


def test_a_small_change_of_everything_is_found_where_little_else_varies(tmp_path: Path) -> None:
    calm = Fleet(slots=400)
    a, b = side("A", tmp_path, fleet=calm), side("B", tmp_path, fleet=replace(calm, slow=1.1), seed=2)
    told = by_name(compare(a, b))
    for name in ("ttft_p50_s", "tpot_p50_s", "tpot_p95_s"):
        assert told[name].better is False
        assert told[name].low < 0.1 * told[name].a < told[name].high


def test_its_values_are_those_of_the_summaries(kept: Path) -> None:
    a = read("A", kept / "a")
    run = a.runs[0].summary
    told = by_name(compare(a, read("B", kept / "b")))
    assert told["ttft_p99_s"].a == run.latency.ttft_s.scheduled.p99
    assert told["goodput_share"].a == run.goodput.share
    assert told["failed_share"].a == (run.counts.failed + run.counts.refused) / run.counts.sent
    assert told["cost_usd"].a == run.cost_usd


def test_what_is_resampled_lies_around_what_the_summary_says() -> None:
    blind = [replace(p, first_s=None, first_by="") for p in points()]
    seen = [replace(p, by="probe", first_by="token") for p in points() if p.n % 5 == 0]
    for found in (points(), dropped(points()), [*blind, *seen]):
        run = summary(found=found)
        told, drawn = values(run, PLAN), replicas(run, PLAN, found, Random(1))
        single = {"cost_usd", "met_again_s"}
        assert {name for name, value in told.items() if value is not None} - single == drawn.keys()
        for name, column in drawn.items():
            known = sorted(value for value in column if value is not None)
            assert len(known) == RESAMPLES
            assert known[0] <= told[name] * 1.01 and told[name] * 0.99 <= known[-1], name


def test_too_little_gives_no_interval(tmp_path: Path) -> None:
    plan = replace(PLAN, start=2, stages=(Stage(2, 6),))
    comparison = compare(side("A", tmp_path, plan=plan), side("B", tmp_path, plan=plan, seed=2))
    assert {change.beyond_noise for change in comparison.changes} == {None}
    assert "one value a run" in text(comparison)


# ---- resampling


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 400), st.integers(0, 9))
def test_a_resampled_run_is_as_long_and_made_of_what_was_near(seconds: int, seed: int) -> None:
    length = max(LEAST_BLOCK_S, round(seconds ** (1 / 3)))
    for blocks in resampled(seconds, Random(seed))[:5]:
        assert sum(end - start for start, end in blocks) == seconds
        at = 0
        for start, end in blocks:
            assert 0 <= start < end <= seconds
            assert abs(start - at) <= REACH * length
            at += end - start


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 29), st.floats(0.001, 100)), min_size=1, max_size=200), st.floats(0, 1))
def test_a_quantile_of_the_whole_run_is_the_next_value_that_there_is(found: list, share: float) -> None:
    ((estimate,),) = quantiles(found, 30, [[(0, 12), (12, 30)]], (share,))
    ordered = sorted(value for _, value in found)
    low = ordered[int(share * (len(ordered) - 1))]
    step = (max(ordered) / min(ordered)) ** (1 / 1023)
    assert low / step * (1 - 1e-9) <= estimate <= low * step * (1 + 1e-9)


def test_the_spread_of_a_quantile_is_that_of_runs_made_anew() -> None:
    def run(seed: int) -> list[tuple[int, float]]:
        random = Random(seed)
        return [(second, random.lognormvariate(-1, 0.4)) for second in range(120) for _ in range(8)]

    (drawn,) = quantiles(run(1), 120, resampled(120, Random(1)), (0.95,))
    anew = [quantile(sorted(value for _, value in run(seed)), 0.95) for seed in range(2, 302)]
    assert stdev(drawn) == pytest.approx(stdev(anew), rel=0.35)


def test_ratios_are_of_sums_and_unknown_of_nothing() -> None:
    parts = [(1.0, 2.0), (0.0, 0.0), (3.0, 3.0)]
    assert ratios(parts, [[(0, 3)], [(2, 3), (2, 3), (0, 1)], [(1, 2)]]) == [0.8, 0.875, None]


# ---- several runs


def test_of_several_runs_their_own_spread_counts(tmp_path: Path) -> None:
    for i in range(3):
        written(tmp_path / "before" / str(i), seed=i)
        written(tmp_path / "after" / str(i), seed=10 + i, fleet=BIGGER)
    comparison = compare(read("A", tmp_path / "before"), read("B", tmp_path / "after"))
    assert (len(comparison.a.runs), len(comparison.b.runs)) == (3, 3)
    told = by_name(comparison)
    assert told["ttft_p95_s"].better is True
    assert told["met_again_s"].better is True
    assert told["tpot_p50_s"].beyond_noise is False
    assert "Welch" in text(comparison)
    assert "the median of each second" in assert_closed(page(comparison)).text


TTFT = FIGURES[0]


def test_the_interval_of_means_is_welchs() -> None:
    # Variances 1 and 4 of three each: 1/3 + 4/3 = 5/3; 2.94 degrees of freedom, taken for 2: t = 9.925.
    change = between_means(TTFT, [1.0, 2.0, 3.0], [4.0, 6.0, 8.0])
    assert (change.a, change.b, change.difference) == (2.0, 6.0, 4.0)
    reach = 9.925 * math.sqrt(5 / 3)
    assert (change.low, change.high) == (pytest.approx(4 - reach), pytest.approx(4 + reach))


def test_a_single_run_is_taken_to_spread_as_the_others_do() -> None:
    change = between_means(TTFT, [10.0], [1.0, 2.0, 3.0])
    reach = 9.925 * math.sqrt(1 + 1 / 3)
    assert (change.low, change.high) == (pytest.approx(-8 - reach), pytest.approx(-8 + reach))
    assert between_means(TTFT, [None, None], [1.0, 2.0]).beyond_noise is None
    assert between_means(TTFT, [NEVER, 2.0], [1.0, 2.0]).beyond_noise is None


@pytest.mark.parametrize(("count", "t"), [(6, 3.169), (11, 2.845), (31, 2.660)])
def test_students_t_is_that_of_the_tables(count: int, t: float) -> None:
    values = [float(i % 2) for i in range(count)]
    change = between_means(TTFT, values, values)
    spread = stdev(values) * math.sqrt(2 / count)
    assert (change.high - change.low) / 2 / spread == pytest.approx(t, abs=0.01)


# ---- met again

STEP = Plan(
    scenario="spike",
    loop="open",
    start=1,
    stages=(Stage(1, 10), Stage(10, 0), Stage(10, 20)),
    source="k6",
    work=(Prompt("What is a pod?", 9),),
    slo=Slo(ttft_s=1.0),
)


def answered(ttft_s: Callable[[float], float | None]) -> Summary:
    """Every request as long as `ttft_s` says of the time when it was due; None: not answered until the end."""
    found = []
    for n, due_s in enumerate(STEP.arrivals()):
        one = Point(n=n, by="locust", due_s=due_s, sent_s=due_s)
        first = ttft_s(due_s)
        if first is not None:
            done = {"first_s": due_s + first, "ended_s": due_s + first, "first_by": "token", "status": 200}
            one = replace(one, **done, completion_tokens=1)
        found.append(one)
    return summary(STEP, found)


@pytest.mark.parametrize(
    ("ttft_s", "met_again"),
    [
        (lambda due_s: 0.1, 0.0),
        (lambda due_s: 2.0 if due_s < 8 else 0.1, 0.0),  # long over before the rise
        (lambda due_s: 2.0 if 12 <= due_s < 14 else 0.1, 6.0),  # the last slow token comes in second 15
        (lambda due_s: 2.0 if int(due_s) in (12, 16) else 0.1, 9.0),  # not met for 5 s between the two
        (lambda due_s: 5.0 if due_s >= 12 else 0.1, NEVER),
        (lambda due_s: 0.1 if due_s < 10 else None, NEVER),
        (lambda due_s: None if 12 <= due_s < 20 else 0.1, 10.0),
    ],
)
def test_met_again_is_when_it_stays_met(ttft_s: Callable[[float], float | None], met_again: float) -> None:
    assert met_again_s(answered(ttft_s), STEP) == met_again


def test_met_again_is_not_known_without_a_rise_or_a_first_token() -> None:
    flat = replace(STEP, start=10, stages=(Stage(10, 30),))
    assert met_again_s(answered(lambda due_s: 0.1), flat) is None
    assert met_again_s(answered(lambda due_s: None), STEP) is None


# ---- like with like


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"scenario": "soak"}, "The scenario is not the same: spike in A, soak in B."),
        ({"seed": 8}, "The seed is not the same: 7 in A, 8 in B."),
        ({"peak": 40.0}, "The peak is not the same: 30 requests/s in A, 40 requests/s in B."),
        ({"duration_s": 60.0}, "The duration is not the same: 150 s in A, 60 s in B."),
        ({"tool": "locust"}, "The tool is not the same: k6 in A, locust in B."),
        ({"what": "vLLM"}, "The kind of target is not the same: crowdspike gateway in A, vLLM in B."),
        ({"loop": "closed"}, "The loop is not the same: open in A, closed in B."),
        ({"simulated": False}, "simulated in A, not known as simulated in B."),
        ({"stopped": True}, "was stopped before its end."),
    ],
)
def test_what_is_not_of_a_kind_is_said(kept: Path, change: dict[str, Any], said: str) -> None:
    a, b = read("A", kept / "a"), read("B", kept / "b")
    (run,) = b.runs
    verdict = replace(run.summary.verdict, verdict="stopped") if change.get("stopped") else run.summary.verdict
    other = replace(run.summary, about=replace(run.summary.about, **change), verdict=verdict)
    (warning,) = warnings(a, replace(b, runs=(replace(run, summary=other),)))
    assert said in warning


def test_doubts_come_first(kept: Path, tmp_path: Path) -> None:
    comparison = compare(read("A", kept / "a"), side("B", tmp_path, tool="locust"))
    said = "The tool is not the same: k6 in A, locust in B."
    shown = text(comparison)
    assert shown.index("Not like with like") < shown.index(said) < shown.index("First token p50")
    on_page = assert_closed(page(comparison)).text
    assert on_page.index(said) < on_page.index("What changed")


def test_other_work_is_no_like_work(kept: Path, tmp_path: Path) -> None:
    plan = replace(PLAN, work=(Prompt("Why?", 900),))
    (warning,) = warnings(read("A", kept / "a"), side("B", tmp_path, plan=plan))
    assert warning.startswith("The plans are not the same")


def test_an_invalid_run_is_named_with_its_reason(kept: Path, tmp_path: Path) -> None:
    b = written(tmp_path / "B")
    folder.write(b / folder.SUMMARY, summary(found=dropped(points())).to_json())
    (warning,) = warnings(read("A", kept / "a"), read("B", b))
    assert warning.startswith(f"B ({b}) is invalid: 396 of 1,980 arrivals were dropped")


# ---- as a command


def test_the_table_is_aligned_and_the_page_is_written(
    kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b, out = kept / "a", kept / "bigger", tmp_path / "c.html"
    assert called(str(a), str(b), "--html", str(out)) == 0
    lines = capsys.readouterr().out.splitlines()
    (head,) = [line for line in lines if "B / A" in line]
    rows = [line for line in lines if re.match(r"(First token|Goodput|Tokens|Cost)", line)]
    end = head.index("B / A") + len("B / A")
    assert len(rows) == 6
    assert {line[end - 1 : end + 1].strip().isdigit() for line in rows} == {True}
    told = assert_closed(out.read_text())
    assert ["First token p95", "11.8 s"] in [row[:2] for row in told.rows]
    assert len([tag for tag, attributes in told.tags if attributes.get("role") == "img"]) == 10


def test_json_is_for_programs(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = kept / "a", kept / "bigger"
    assert called(str(a), str(b), "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert [change["figure"] for change in told["changes"]] == [figure.name for figure in FIGURES]
    assert told["a"] == {"path": str(a), "runs": 1}
    assert told["changes"][1]["better"] is True


def test_names_of_folders_and_servers_are_no_markup(kept: Path, tmp_path: Path) -> None:
    comparison = compare(read("A", kept / "a"), side("B", tmp_path, target=NASTY, what=NASTY))
    html = page(replace(comparison, a=replace(comparison.a, path=NASTY)))
    assert NASTY in assert_closed(html).text


def test_what_is_no_run_is_said_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, empty, broken, future = (tmp_path / name for name in ("good", "empty", "broken", "future"))
    written(good)
    empty.mkdir()
    written(broken)
    (broken / folder.SUMMARY).unlink()
    written(future)
    whole = json.loads((future / folder.SUMMARY).read_text())
    (future / folder.SUMMARY).write_text(json.dumps({**whole, "version": 9}))
    for path, said in (
        (tmp_path / "nowhere", "is no folder"),
        (empty, "is no folder of a run"),
        (broken, "has no summary.json"),
        (future, "version 9"),
    ):
        assert called(str(good), str(path)) == 2
        told = capsys.readouterr()
        assert said in told.err
        assert told.err.count("\n") == 1
        assert told.out == ""
    assert called(str(good), str(good), "--html", str(tmp_path / "no" / "such" / "x.html")) == 74
    told = capsys.readouterr()
    assert "can't be written: No such file" in told.err
    assert "First token p50" in told.out
