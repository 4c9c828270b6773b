"""The summary of a run: every request counts once, missed targets are missed, and what is measured says by whom."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadgen.spike.figures import by_name
from loadgen.spike.generator import UNKNOWN, Usage
from loadgen.spike.latency import Quantiles
from loadgen.spike.plan import Cell, Plan, Slo, Stage
from loadgen.spike.point import Point
from loadgen.spike.server import ServerSample
from loadgen.spike.summary import About, BadSummary, Summary, summarize
from loadgen.spike.thresholds import FIGURES

PLAN = Plan("spike", "open", 1.0, (Stage(1.0, 10.0),), "k6")
CLOSED = replace(PLAN, loop="closed")
ABOUT = About(
    scenario="spike",
    tool="k6",
    tool_version="1.1.0",
    target="http://127.0.0.1:8000",
    model="mistral",
    loop="open",
    unit="requests/s",
    seed=1,
    peak=1.0,
    duration_s=10.0,
    started_at="2026-11-21T10:00:00Z",
    machine="a machine",
)
IDLE = Usage(cpu_cores=2.0, cpu_share=0.2, others_share=0.1, loop_lag_p99_s=0.004, rss_mb=120.0)
CHAIN = [{"step": "edge", "label": "Load rises", "short": "edge", "t_s": 0.0, "why_not": ""}]


def served(n: int, due_s: float | None = None, *, lag_s: float = 0.001, ttft_s: float = 0.2, **fields: Any) -> Point:
    """26 tokens, 25 of them in the second after the first one: a TPOT of 40 ms."""
    due_s = float(n + 1) if due_s is None else due_s
    sent_s = due_s + lag_s
    times = {"sent_s": sent_s, "headers_s": sent_s + 0.01, "first_s": sent_s + ttft_s, "ended_s": sent_s + ttft_s + 1.0}
    given = {"by": "locust", "first_by": "token", "status": 200, "prompt_tokens": 30, "completion_tokens": 26}
    return Point(n=n, due_s=due_s, **(given | times | {"gaps_ms": (40.0, 60.0)} | fields))


def failed(n: int, status: int = 500, error: str = "status 500") -> Point:
    return served(n, status=status, error=error, first_s=None, first_by="", completion_tokens=None, gaps_ms=())


def unfinished(n: int) -> Point:
    return served(n, ended_s=None, completion_tokens=None)


def dropped(n: int) -> Point:
    return Point(n=n, by="k6", due_s=float(n + 1))


def summary_of(points: Sequence[Point], plan: Plan = PLAN, **given: Any) -> Summary:
    about = replace(ABOUT, loop=plan.loop, stopped=given.pop("stopped", False))
    return summarize(plan, points, given.pop("samples", ()), given.pop("usage", IDLE), about, **given)


def threshold(summary: Summary, figure: str) -> bool:
    return next(held.ok for held in summary.verdict.thresholds if held.text.startswith(figure))


any_point = st.one_of(
    st.builds(
        served,
        st.integers(0, 9),
        lag_s=st.floats(0, 0.5),
        ttft_s=st.floats(0, 5),
        completion_tokens=st.integers(1, 90) | st.none(),
        by=st.sampled_from(["k6", "probe"]),
        first_by=st.sampled_from(["token", "held headers"]),
    ),
    st.builds(failed, st.integers(0, 9), st.sampled_from([0, 200, 429, 500, 503]), st.text(min_size=1, max_size=300)),
    st.builds(unfinished, st.integers(0, 9)),
    st.builds(dropped, st.integers(0, 9)),
)
any_points = st.lists(any_point, max_size=30)


def test_a_good_run_passes_with_its_figures() -> None:
    found = summary_of([served(n) for n in range(10)], run_id="r1", chain=CHAIN)
    assert found.verdict.verdict == "pass"
    assert (found.id, found.counts.planned, found.counts.served, found.ttft_by) == ("r1", 10, 10, "token")
    assert found.latency.ttft_s.service.p50 == pytest.approx(0.2)
    assert found.latency.ttft_s.scheduled.p50 == pytest.approx(0.201)
    assert found.latency.e2e_s.scheduled.max == pytest.approx(1.201)
    assert found.latency.tpot_s.mean == pytest.approx(0.04)
    assert found.latency.itl_s.count == 20 and found.latency.itl_s.p50 == pytest.approx(0.05)
    assert found.latency.headers_s.p99 == pytest.approx(0.01)
    assert (found.latency.tpot_by, found.latency.itl_by) == ("locust", "locust")
    assert found.generator.send_lag.p99 == pytest.approx(0.001)
    assert (found.tokens.prompt, found.tokens.completion) == (300, 260)
    assert found.tokens.completion_per_s == pytest.approx(260 / 11.201)
    assert found.goodput.per_s == pytest.approx(10 / 11.201)
    assert (found.probe, found.server, found.cost_usd, found.chain) == (None, None, None, CHAIN)


def test_what_went_out_late_is_slow_from_the_schedule_only() -> None:
    found = summary_of([served(n, lag_s=2.0) for n in range(10)])
    assert found.latency.ttft_s.service.p99 == pytest.approx(0.2)
    assert found.latency.ttft_s.scheduled.p50 == pytest.approx(2.2)
    assert found.goodput.met == 0
    assert found.verdict.verdict == "invalid"
    assert [check.name for check in found.verdict.checks if check.ok is False] == ["send_lag_p99_s"]


def test_errors_refusals_drops_and_the_unfinished_are_missed_targets() -> None:
    points = [*map(served, range(6)), failed(6), failed(7, 429, ""), dropped(8), unfinished(9)]
    found = summary_of(points)
    counts = found.counts
    assert (counts.sent, counts.served, counts.failed, counts.refused) == (9, 6, 1, 1)
    assert (counts.unfinished, counts.dropped) == (1, 1)
    assert counts.errors == {"status 429": 1, "status 500": 1, "unfinished when the run ended": 1}
    assert (found.goodput.met, found.goodput.of, found.goodput.share) == (6, 10, 0.6)
    assert found.latency.e2e_s.service.count == found.latency.ttft_s.service.count == 6
    assert not threshold(found, "failed_share") and threshold(found, "served")
    assert found.verdict.verdict == "invalid"


def test_arrivals_of_which_nothing_was_heard_are_missed_too() -> None:
    found = summary_of([served(n) for n in range(4)])
    assert (found.goodput.of, found.goodput.share) == (10, 0.4)
    assert [check.name for check in found.verdict.checks if check.ok is False] == ["lost"]


def test_a_slow_first_token_and_slow_tokens_miss_the_target() -> None:
    slow = Slo(ttft_s=0.5, tpot_s=0.05)
    points = [served(0), served(1, ttft_s=0.6), served(2, completion_tokens=11), served(3, completion_tokens=1)]
    found = summary_of(points, replace(PLAN, slo=slow, stages=(Stage(1.0, 4.0),)))
    assert (found.goodput.met, found.goodput.share) == (2, 0.5)


def test_a_run_without_an_answer_is_no_pass() -> None:
    silent = summary_of([failed(n, 0, "connection refused") for n in range(10)])
    assert silent.verdict.verdict == "invalid"
    assert silent.goodput.share == 0.0 and silent.latency.e2e_s.service is None
    assert summary_of([failed(n) for n in range(10)]).verdict.verdict == "fail"
    assert summary_of([]).verdict.verdict == "invalid"


def test_the_scripts_own_errors_make_a_run_invalid() -> None:
    found = summary_of([served(n) for n in range(10)], troubles=["ReferenceError: x"])
    assert found.verdict.reasons == ("The script itself failed: ReferenceError: x",)
    assert found.troubles == ("ReferenceError: x",)


def test_a_stopped_run_counts_what_was_due_until_then() -> None:
    found = summary_of([served(n) for n in range(3)], stopped=True)
    assert (found.verdict.verdict, found.counts.planned, found.goodput.share) == ("stopped", 3, 1.0)


def test_a_closed_loop_has_service_times_only_and_thresholds_take_those() -> None:
    points = [replace(served(n), due_s=None) for n in range(3)]
    found = summary_of(points, replace(CLOSED, thresholds=("ttft_p95_ms<250",)))
    assert (found.counts.planned, found.latency.ttft_s.scheduled, found.generator.send_lag) == (None, None, None)
    assert threshold(found, "ttft_p95_ms")
    assert (found.goodput.share, found.verdict.verdict) == (1.0, "pass")


def test_first_tokens_are_by_those_who_saw_them_best() -> None:
    blind = [replace(served(n), first_s=None, first_by="", gaps_ms=()) for n in range(10)]
    held = [replace(served(n), first_by="held headers") for n in range(10)]
    probes = [served(n, ttft_s=0.4, by="probe") for n in range(4)]
    assert summary_of([*held, served(3), *probes]).ttft_by == "token"
    assert summary_of([*held, *probes]).ttft_by == "held headers"
    by_probe = summary_of([*blind, *probes])
    assert by_probe.ttft_by == by_probe.latency.tpot_by == by_probe.latency.itl_by == "probe"
    assert (by_probe.latency.ttft_s.service.count, by_probe.latency.e2e_s.service.count) == (4, 10)
    unknown = summary_of(blind, replace(PLAN, thresholds=("ttft_p95_ms<9000",)))
    assert (unknown.ttft_by, unknown.latency.ttft_s.service, unknown.goodput.share) == ("", None, None)
    assert unknown.verdict.verdict == "fail"


def test_the_probes_requests_are_apart_and_its_goodput_is_an_estimate() -> None:
    blind = [replace(served(n), first_s=None, first_by="") for n in range(8)]
    probes = [served(0, by="probe"), served(1, by="probe", ttft_s=3.0)]
    found = summary_of([*blind, failed(8), failed(9), *probes])
    assert (found.counts.sent, found.probe.counts.sent, found.probe.counts.planned) == (10, 2, None)
    assert (found.goodput.by, found.goodput.met, found.goodput.of) == ("probe", 4, 10)
    assert sum(found.series.sent) == 10


def test_a_phones_requests_are_by_kind_and_many_polls_do_not_hide_a_lost_answer() -> None:
    polls = [replace(served(n, first_s=None), kind="poll", completion_tokens=None) for n in range(400)]
    answers = [replace(failed(n), kind="answer") for n in range(2)] + [replace(served(2), kind="answer")]
    replies = [replace(served(n), kind="reply") for n in range(10)]
    found = summary_of([*polls, *answers, *replies], replace(CLOSED, scenario="audience"))
    assert found.counts.sent == 10
    assert {kind: (one.sent, one.served, one.failed) for kind, one in found.kinds.items()} == {
        "answer": (3, 1, 2),
        "poll": (400, 400, 0),
        "reply": (10, 10, 0),
    }
    assert found.verdict.verdict == "fail"
    assert found.verdict.reasons == ("failed_share<=0.01: it was 0.6667",)


def test_a_matrix_has_its_figures_by_cell() -> None:
    plan = replace(CLOSED, cells=(Cell("a", 4, 1, 0.0, 5.0), Cell("a", 4, 2, 5.0, 10.0), Cell("b", 1, 1, 10.0, 15.0)))
    points = [replace(served(n), cell=0) for n in range(3)] + [replace(failed(7), cell=1)]
    first, second, third = summary_of(points, plan).cells
    assert (first.model, first.batch, first.sent, first.failed, first.completion_per_s) == ("a", 1, 3, 0, 26 * 3 / 5)
    assert (second.served, second.failed, second.e2e_s) == (0, 1, None)
    assert (third.model, third.sent) == ("b", 0)


def test_our_ttft_stands_beside_the_servers_own() -> None:
    points = [served(n) for n in range(10)]
    before = ServerSample(at_s=-1.0, source="vllm", ttft_sum_s=50.0, ttft_count=100, e2e_sum_s=90.0, e2e_count=100)
    after = ServerSample(at_s=12.0, source="vllm", ttft_sum_s=51.9, ttft_count=110, e2e_sum_s=102.0, e2e_count=110)
    server = summary_of(points, samples=[after, before]).server
    assert (server.source, server.ttft_count) == ("vllm", 10)
    assert (server.ttft_mean_s, server.e2e_mean_s) == (pytest.approx(0.19), pytest.approx(1.2))
    assert server.gap.gap_s == pytest.approx(0.01)
    slow = summary_of(points, samples=[before, replace(after, ttft_sum_s=50.4)])
    assert slow.verdict.verdict == "invalid"
    assert [check.name for check in slow.verdict.checks if check.ok is False] == ["ttft_gap_s"]


def test_other_peoples_requests_on_the_server_make_no_gap_of_ours() -> None:
    before = ServerSample(at_s=-1.0, source="vllm", ttft_sum_s=0.0, ttft_count=0)
    found = summary_of(map(served, range(10)), samples=[before, replace(before, at_s=12.0, ttft_count=12)])
    gap = next(check for check in found.verdict.checks if check.name == "ttft_gap_s")
    assert (found.server.gap, gap.ok, found.verdict.verdict) == (None, None, "pass")
    assert "it counted 12 first tokens and we 10" in gap.says


def test_the_most_frequent_errors_are_named_and_the_rest_counted() -> None:
    points = [failed(n % 10, error=f"error {n}" if n < 30 else "often " * 100) for n in range(40)]
    errors = summary_of(points).counts.errors
    assert next(iter(errors)) == ("often " * 100)[:200]
    assert sum(errors.values()) == 40 and len(errors) == 21 and errors["other errors"] == 11


@given(any_points)
@settings(max_examples=60)
def test_counts_add_up(points: list[Point]) -> None:
    found = summary_of(points)
    counts, tools = found.counts, [p for p in points if p.by != "probe"]
    assert counts.sent + counts.dropped == len(tools)
    assert counts.served + counts.refused + counts.failed + counts.unfinished == counts.sent
    assert sum(counts.errors.values()) == counts.sent - counts.served
    assert sum(one.sent for one in found.kinds.values()) == counts.sent
    assert counts.due >= counts.sent + counts.dropped
    assert found.goodput.met is None or 0 <= found.goodput.met <= counts.served <= found.goodput.of
    assert (found.probe.counts.sent if found.probe else 0) == len(points) - len(tools)


@given(any_points, st.randoms(use_true_random=False))
@settings(max_examples=40)
def test_the_order_of_the_points_does_not_matter(points: list[Point], dice: random.Random) -> None:
    a, b = (json.loads(summary_of(some).to_json()) for some in (points, dice.sample(points, len(points))))
    for one in (a, b):
        del one["series"]["tokens_per_s"]  # floats added in another order
    assert _flat(a) == pytest.approx(_flat(b))


@given(any_points)
@settings(max_examples=40)
def test_a_summary_is_read_back_as_it_was_written(points: list[Point]) -> None:
    plan = replace(CLOSED, cells=(Cell("a", 4, 1, 0.0, 5.0),), thresholds=("dropped==0",))
    for found in (summary_of(points, chain=CHAIN, usage=UNKNOWN), summary_of(points, plan, troubles=["x"])):
        text = found.to_json()
        assert Summary.from_json(text) == found
        assert json.loads(text)["version"] == 1


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50))
def test_quantiles_ascend_within_what_was_measured(values: list[float]) -> None:
    found = Quantiles.of(values)
    ascending = [min(values), found.p50, found.p90, found.p95, found.p99, found.max]
    assert ascending == pytest.approx(sorted(ascending))
    assert found.count == len(values) and min(values) <= found.mean <= max(values) == found.max


def test_percentiles_are_linear_between_the_two_nearest() -> None:
    found = Quantiles.of([1.0, 2.0, 3.0, 4.0])
    assert (found.p50, found.p90, found.mean) == (2.5, pytest.approx(3.7), 2.5)
    assert Quantiles.of([]) is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "Not a run's summary"),
        ("[]", "Not a run's summary"),
        ("{}", "Not a run's summary: 'version'"),
        ('{"version": 2}', "This summary has version 2; version 1 is read here."),
        ('{"version": 1, "id": "x"}', "Not a run's summary"),
        ('{"version": 1, "surprise": 1}', "surprise"),
    ],
)
def test_what_is_no_summary_of_this_version_is_refused(text: str, says: str) -> None:
    with pytest.raises(BadSummary, match=says):
        Summary.from_json(text)


def test_every_figure_that_a_threshold_may_name_is_measured() -> None:
    kinds = [replace(served(n), kind=kind) for n, kind in enumerate(("join", "poll", "screen", "answer", "reply"))]
    found = summary_of([*kinds, served(9)])
    args = (found.counts, found.kinds, found.latency, found.goodput, found.tokens, 10.0)
    assert by_name(PLAN, *args).keys() == FIGURES


def _flat(data: Any, path: str = "") -> dict[str, Any]:
    """Leaves by their path."""
    parts = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    if isinstance(data, dict | list):
        return {leaf: value for key, part in parts for leaf, value in _flat(part, f"{path}/{key}").items()}
    return {path: data}
