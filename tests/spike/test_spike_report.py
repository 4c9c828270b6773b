"""The report: it says what the summary says, lets nothing in, and has something to show for every kind of run."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadgen.plot import MARK_CHARACTER, Plot, number, svg
from loadgen.spike.latency import Quantiles
from loadgen.spike.plan import Cell, Plan, Prompt, Stage
from loadgen.spike.point import Point
from loadgen.spike.report.page import MAX_ROWS, by_second, outcome, page, waterfall
from loadgen.spike.report.plots import plots, steps
from loadgen.spike.report.words import dollars, percent, some, took
from loadgen.spike.summary import Summary
from tests.html_reader import Reader
from tests.spike.example_runs import CHAIN, PLAN, dropped, points, summary


def assert_closed(html: str) -> Reader:
    """It fetches nothing, runs nothing, and its policy allows just its own sheet."""
    read = Reader(html)
    for tag, attributes in read.tags:
        assert tag not in ("script", "link", "iframe", "img", "object", "form", "base", "a"), tag
        assert not {"style", "src", "href", "action"} & attributes.keys(), (tag, attributes)
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
    (sheet,) = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    assert not re.search(r"@import|url\(", sheet)
    digest = base64.b64encode(hashlib.sha256(sheet.encode()).digest()).decode()
    (policy,) = [a["content"] for _, a in read.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    ids = [a["id"] for _, a in read.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert {i for _, a in read.tags for i in (a.get("aria-labelledby") or "").split()} <= set(ids)
    return read


RUN = summary()


def test_its_figures_are_those_of_the_summary() -> None:
    run = RUN
    read = assert_closed(page(run, PLAN))
    ttft, e2e = run.latency.ttft_s, run.latency.e2e_s
    assert ttft.scheduled.p95 != ttft.service.p95
    beside = "from the scheduled time; service"
    assert read.figures["Offered"] == "1\u202f980 requests, 1\u202f980 sent"
    assert read.figures["Answered in full"].startswith(
        f"{number(run.counts.served)} {percent(run.counts.served / 1980)}"
    )
    assert read.figures["Failed"].startswith(f"{run.counts.failed + run.counts.refused} {run.counts.failed} errors")
    assert read.figures["Dropped"].startswith("0 ")
    assert read.figures["TTFT p50"] == f"{took(ttft.scheduled.p50)} {beside} {took(ttft.service.p50)}"
    assert read.figures["Whole answer p95"] == f"{took(e2e.scheduled.p95)} {beside} {took(e2e.service.p95)}"
    assert read.figures["Goodput"].startswith(percent(run.goodput.share))
    assert read.figures["Cost"].startswith(dollars(run.cost_usd))
    for held in run.verdict.thresholds:
        assert [held.text, number(held.value), "✓ met" if held.ok else "✗ missed"] in read.rows
    for check in run.verdict.checks:
        assert [check.says, "✓ kept"] in [[row[0], row[-1]] for row in read.rows]
    for text, amount in run.counts.errors.items():
        assert [text, str(amount)] in read.rows
    gap = run.server.gap
    assert ["Here, from the sending", number(ttft.service.count), took(gap.client_mean_s)] in read.rows
    assert "headers, which the gateway holds back until the first token" in read.text
    seconds = [row for row in read.rows if row and re.fullmatch(r"\d:\d\d", row[0])]
    assert len(seconds) == len(run.series.t)
    assert len([tag for tag, a in read.tags if a.get("role") == "img"]) == 9


def test_it_begins_with_the_verdict_in_words() -> None:
    slow = points()
    broken = [replace(p, error="reset by peer", status=0, first_s=None, first_by="") for p in slow]
    runs = {
        "Pass": summary(replace(PLAN, thresholds=("failed_share<=0.05",))),
        "Fail": RUN,
        "Invalid": summary(found=dropped(slow)),
        "Stopped": summary(stopped=True),
    }
    for word, run in runs.items():
        html = page(run, PLAN)
        assert f'<section class="verdict {word.lower()}"' in html
        assert f'<h2 id="verdict">{word}</h2>' in html
        assert html.index('id="verdict"') < html.index('class="figures"')
    assert outcome(runs["Pass"]).reasons == ()
    assert outcome(runs["Fail"]).reasons[0].startswith("ttft_p95_ms<1000: 1")
    (why,) = outcome(runs["Invalid"]).reasons
    assert "396 of 1,980 arrivals were dropped" in why
    assert "396 of 1,980 arrivals were dropped" in page(runs["Invalid"], PLAN).split('class="figures"')[0]
    unanswered = outcome(summary(found=broken))
    assert unanswered.word == "Invalid"
    assert any("nothing can be said" in reason for reason in unanswered.reasons)


NASTY = '<img src="http://evil.test/x"></style><script>alert(1)</script>{{ 7 * 7 }} & "quotes"'


def test_texts_of_servers_scripts_and_rooms_are_no_markup() -> None:
    found = [replace(p, error=NASTY) if p.error else p for p in points()]
    run = summary(
        found=found, troubles=[NASTY], target=NASTY, what=NASTY, model=NASTY, machine=NASTY, room=NASTY, scenario=NASTY
    )
    chain = [{**step, "label": NASTY, "why_not": NASTY} for step in CHAIN]
    plan = replace(PLAN, stages=tuple(replace(stage, name=NASTY) for stage in PLAN.stages))
    html = page(replace(run, chain=chain), plan)
    read = assert_closed(html)
    assert html.count("&lt;script&gt;") >= 10
    assert "{{ 7 * 7 }}" in html
    assert NASTY in read.text


def test_what_was_simulated_is_said() -> None:
    assert "Simulated:" in page(RUN, PLAN)
    assert "Simulated:" not in page(summary(simulated=False), PLAN)


def test_a_first_token_is_called_after_who_saw_it() -> None:
    blind = [replace(p, first_s=None, first_by="") for p in points()]
    assert "not measured: the tool sees headers only" in page(summary(found=blind), PLAN)
    read = Reader(page(summary(found=blind), PLAN))
    assert read.figures["TTFT p95"] == "–"
    seen = [replace(p, by="probe", first_by="token") for p in points() if p.n % 10 == 0 and p.first_s is not None]
    probed = summary(found=[*blind, *seen])
    read = Reader(page(probed, PLAN))
    assert "as a probe beside the tool read it" in read.text
    assert read.figures["Goodput"].split()[2] == "about"
    assert "Time per token (TPOT), by the probe" in [row[0] for row in read.rows]
    assert "Probe: whole answer, service" in [row[0] for row in read.rows]


CLOSED = Plan(
    scenario="matrix",
    loop="closed",
    start=1,
    stages=(Stage(1, 10, "1 × 1"), Stage(4, 0), Stage(4, 10, "4 × 2")),
    source="locust",
    work=(Prompt("What is a pod?", 50),),
    cells=(Cell("one", 1, 1, 0, 10), Cell("two", 4, 2, 10, 20)),
)


def closed_points() -> list[Point]:
    kinds = ("completion", "completion", "poll", "join")
    return [
        Point(
            n=n,
            by="locust",
            kind=kinds[n % 4],
            sent_s=n / 5,
            headers_s=n / 5 + 0.01,
            first_s=n / 5 + 0.1 if n % 4 < 2 else None,
            first_by="token" if n % 4 < 2 else "",
            ended_s=n / 5 + 0.5,
            status=200,
            prompt_tokens=20,
            completion_tokens=20,
            gaps_ms=(20.0, 21.0),
            cell=0 if n < 50 else 1,
        )
        for n in range(100)
    ]


def test_a_closed_loop_says_what_it_is_and_has_its_kinds_and_cells() -> None:
    run = summary(CLOSED, closed_points(), loop="closed", unit="users", scenario="matrix", tool="locust")
    read = assert_closed(page(run, CLOSED))
    assert "Closed loop" in read.text
    assert "Open loop" not in read.text
    assert read.figures["TTFT p95"] == "100 ms from the sending"
    assert read.figures["Sent"].startswith("50 ")
    assert "First token, from the scheduled time" not in [row[0] for row in read.rows]
    assert [row[:3] for row in read.rows if row[0] in ("one", "two")] == [["one", "1", "1"], ["two", "4", "2"]]
    assert ["poll", "25", "25", "0", "500 ms", "500 ms", "500 ms"] in read.rows
    flight = next(drawing for drawing in plots(run, CLOSED) if drawing.title == "Requests in flight")
    assert flight.legend == ("in flight", "users")


@settings(max_examples=12, deadline=None)
@given(
    st.lists(
        st.builds(Point, n=st.integers(0, 300), by=st.just("k6"), due_s=st.floats(0, 150))
        | st.builds(
            Point,
            n=st.integers(0, 300),
            by=st.sampled_from(["k6", "probe"]),
            due_s=st.floats(0, 150),
            sent_s=st.floats(150, 200),
            headers_s=st.none() | st.floats(200, 210),
            first_s=st.none() | st.floats(200, 220),
            first_by=st.sampled_from(["token", "held headers"]),
            ended_s=st.none() | st.floats(220, 260),
            status=st.sampled_from([0, 200, 429, 500]),
            error=st.sampled_from(["", "refused"]),
            completion_tokens=st.none() | st.integers(0, 5),
        ),
        max_size=20,
    )
)
def test_every_run_has_a_report(found: list[Point]) -> None:
    assert_closed(page(summary(found=found), PLAN))


def test_a_run_reads_back_from_its_summary_to_the_same_page() -> None:
    run = RUN
    assert page(Summary.from_json(run.to_json()), PLAN) == page(run, PLAN)


def test_a_long_run_keeps_its_worst_seconds_in_a_table_of_bounded_length() -> None:
    plan = replace(PLAN, stages=(Stage(1, 3000, "soak"),), start=1, thresholds=())
    found = [
        replace(p, first_s=p.due_s + (9.0 if p.n == 1500 else 0.1), ended_s=p.due_s + 10, first_by="token")
        for p in points(plan)
    ]
    run = summary(plan, found)
    table = by_second(run)
    assert len(table.rows) <= MAX_ROWS
    worst = [row[table.names.index("TTFT p95, s")] for _, row in table.rows]
    assert max(value for value in worst if value is not None) > 8
    assert f"highest of {table.per_row_s} s" in page(run, plan)


def test_marks_are_the_plans_steps() -> None:
    assert steps(PLAN) == [(30, "spike"), (90, "after"), (150, "end")]
    unnamed = replace(PLAN, stages=tuple(replace(stage, name="") for stage in PLAN.stages))
    assert steps(unnamed) == [(30, "step to 30/s"), (90, "step to 2/s"), (150, "end")]
    ramp = replace(PLAN, start=0, stages=(Stage(5, 10), Stage(5, 20), Stage(1, 10), Stage(0, 0)))
    assert steps(ramp) == [(10, "hold 5/s"), (30, "ramp to 1/s"), (40, "end")]


@given(st.lists(st.tuples(st.integers(1, 600), st.text("abc", min_size=1, max_size=12)), max_size=5))
def test_words_of_marks_never_touch(marks: Sequence[tuple[float, str]]) -> None:
    drawn = svg(Plot("p", "t", "u", [], marks=sorted(marks)), 600)
    placed = re.findall(r'<text x="([\d.]+)" y="(\d+)" class="mark-words( end)?">(\w+)<', drawn)
    assert len(placed) == len(marks)
    spans: dict[str, list[tuple[float, float]]] = {}
    for x, y, end, words in placed:
        wide = MARK_CHARACTER * len(words)
        spans.setdefault(y, []).append((float(x) - wide, float(x)) if end else (float(x), float(x) + wide))
    for row in spans.values():
        row.sort()
        assert all(before[1] <= after[0] for before, after in pairwise(row))


def test_a_plot_of_nothing_is_left_out() -> None:
    run = RUN
    bare = replace(run, series=replace(run.series, nodes=(None,) * len(run.series.t), usd_per_hour=(None,) * 151))
    bare = replace(bare, series=replace(bare.series, refused=(0,) * 151, failed=(0,) * 151, dropped=(0,) * 151))
    titles = [drawing.title for drawing in plots(bare, PLAN)]
    assert not [title for title in titles if "Cost" in title or "lost" in title]
    (pods,) = [drawing for drawing in plots(bare, PLAN) if drawing.title == "Pods and nodes"]
    assert pods.legend == ("pods ready", "pods asked for", "pods")


def test_a_chains_bars_follow_each_other() -> None:
    rows = waterfall(CHAIN)
    assert [row["start"] for row in rows] == [0, 0, 20, 160, 160, 528]
    assert rows[-1]["start"] + rows[-1]["length"] == 1000
    html = page(RUN, PLAN)
    assert "there was room for it" in html
    assert "From spike to relief" not in page(replace(RUN, chain=None), PLAN)


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0.42, "420 ms"), (0.000004, "0 ms"), (-0.0213, "-21.3 ms"), (0.9999, "1 s"), (1.924, "1.92 s")],
)
def test_times_are_short(value: float | None, text: str) -> None:
    assert took(value) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [(None, "–"), (1.0, "100 %"), (0.99999, "> 99.9 %"), (0.0, "0 %"), (0.0001, "< 0.1 %"), (0.9834, "98.3 %")],
)
def test_only_all_is_all_and_only_nothing_is_nothing(share: float | None, text: str) -> None:
    assert percent(share) == text


def test_money_and_numbers_read_well() -> None:
    assert [dollars(usd) for usd in (None, 0.0, 0.0958, 12.345)] == ["–", "$0.00", "$0.096", "$12.35"]
    assert [some(1, "core"), some(2, "core"), some(1, "was", "were")] == ["1 core", "2 cores", "1 was"]


def test_quantiles_of_every_latency_stand_in_the_table() -> None:
    run = RUN
    rows = {row[0]: row[1:] for row in Reader(page(run, PLAN)).rows if len(row) == 8}
    q = run.latency.tpot_s
    assert isinstance(q, Quantiles)
    assert rows["Time per token (TPOT)"] == [
        number(q.count),
        *(took(v) for v in (q.mean, q.p50, q.p90, q.p95, q.p99, q.max)),
    ]
