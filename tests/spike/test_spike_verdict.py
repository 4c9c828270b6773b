"""The verdict: what makes a run invalid, and what comes before what."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.spike.thresholds import Held
from loadgen.spike.verdict import Check, Evidence, checks, judge

FINE = Evidence(
    loop="open",
    planned=1000,
    sent=1000,
    dropped=0,
    answered=1000,
    max_in_flight=500,
    send_lag_p99_s=0.004,
    e2e_p50_s=0.8,
    cpu_share=0.4,
    loop_lag_p99_s=0.01,
    client_ttft_s=0.31,
    server_ttft_s=0.3,
)
HELD, MISSED = Held("served>=500", 1000, True), Held("ttft_p95_ms<1000", 1300.0, False)
DOUBTS: list[dict[str, Any]] = [
    {"sent": 999, "dropped": 1},
    {"sent": 900, "answered": 900},
    {"send_lag_p99_s": 0.06},
    {"cpu_share": 0.95},
    {"loop_lag_p99_s": 0.12},
    {"client_ttft_s": 0.45},
    {"troubles": ("TypeError: x is not a function at arrivals.js:12",)},
    {"answered": 0},
]


def doubted(evidence: Evidence) -> list[str]:
    return [check.name for check in checks(evidence) if check.ok is False]


def check(evidence: Evidence, name: str) -> Check:
    return next(check for check in checks(evidence) if check.name == name)


def test_a_run_that_kept_up_and_reached_its_thresholds_passes() -> None:
    verdict = judge(FINE, [HELD])
    assert (verdict.verdict, verdict.reasons) == ("pass", ())
    assert all(check.ok for check in verdict.checks)


def test_a_missed_threshold_fails_and_says_by_what() -> None:
    verdict = judge(FINE, [HELD, MISSED, Held("tpot_p95_ms<50", None, False)])
    assert verdict.verdict == "fail"
    assert verdict.reasons == ("ttft_p95_ms<1000: it was 1,300", "tpot_p95_ms<50: there is no data")


@pytest.mark.parametrize("doubt", DOUBTS, ids=lambda doubt: next(iter(doubt)))
def test_one_doubt_makes_a_run_invalid_whatever_its_thresholds_say(doubt: dict[str, Any]) -> None:
    evidence = replace(FINE, **doubt)
    assert len(doubted(evidence)) == 1
    for thresholds in ([HELD], [MISSED]):
        verdict = judge(evidence, thresholds)
        assert verdict.verdict == "invalid"
        assert verdict.reasons == tuple(check.says for check in verdict.checks if check.ok is False)


@given(st.sampled_from([{}, *DOUBTS]), st.booleans())
def test_a_run_that_was_stopped_is_neither_a_pass_nor_a_failure(doubt: dict[str, Any], reached: bool) -> None:
    assert judge(replace(FINE, **doubt), [HELD if reached else MISSED], stopped=True).verdict == "stopped"


def test_a_run_in_which_nothing_was_sent_is_invalid() -> None:
    nothing = replace(FINE, planned=0, sent=0, answered=0, send_lag_p99_s=None, e2e_p50_s=None)
    assert judge(nothing, []).reasons == ("Nothing was sent.",)


def test_a_server_that_answers_with_nothing_but_errors_fails() -> None:
    """Its errors are answers, and the generator kept up."""
    errors = replace(FINE, e2e_p50_s=None, client_ttft_s=None, server_ttft_s=None, no_gap="it counted none.")
    assert judge(errors, [Held("failed_share<=0.01", 1.0, False)]).verdict == "fail"


def test_a_tool_may_round_the_last_arrival() -> None:
    assert doubted(replace(FINE, planned=92, sent=91, answered=91)) == []
    assert doubted(replace(FINE, planned=92, sent=89, answered=89)) == ["lost"]


def test_a_closed_loop_has_no_arrivals_to_drop_or_to_send_late() -> None:
    closed = replace(FINE, loop="closed", planned=None, send_lag_p99_s=None)
    assert {check.name for check in checks(FINE)} - {check.name for check in checks(closed)} == {
        *("dropped", "lost", "send_lag_p99_s")
    }
    assert judge(closed, [HELD]).verdict == "pass"


@pytest.mark.parametrize(("e2e_p50_s", "bound_s"), [(None, 0.05), (0.2, 0.05), (10.0, 0.5)])
def test_a_slow_server_tolerates_a_greater_send_lag(e2e_p50_s: float | None, bound_s: float) -> None:
    assert check(replace(FINE, e2e_p50_s=e2e_p50_s), "send_lag_p99_s").bound == pytest.approx(bound_s)


@pytest.mark.parametrize(
    ("client_s", "server_s", "ok"), [(0.11, 0.02, True), (0.13, 0.02, False), (2.3, 2.0, True), (1.5, 2.0, False)]
)
def test_the_gap_to_the_servers_ttft_is_100_ms_or_a_fifth_either_way(client_s, server_s, ok) -> None:
    assert check(replace(FINE, client_ttft_s=client_s, server_ttft_s=server_s), "ttft_gap_s").ok is ok


def test_what_is_not_known_is_no_doubt_and_is_said() -> None:
    unknown = replace(
        *(FINE,),
        **dict.fromkeys(("cpu_share", "loop_lag_p99_s", "client_ttft_s", "server_ttft_s", "send_lag_p99_s")),
        no_gap="its metrics can't be read.",
    )
    verdict = judge(unknown, [HELD])
    assert verdict.verdict == "pass"
    assert sum(check.ok is None for check in verdict.checks) == 4
    assert "its metrics can't be read." in check(unknown, "ttft_gap_s").says


@given(
    st.integers(0, 5000),
    st.integers(0, 5000),
    st.floats(0, 5),
    st.floats(0, 2),
    st.floats(0, 3),
    st.floats(0, 3),
)
def test_a_pass_always_means_that_no_check_stands(sent, dropped, lag_s, cpu, client_s, server_s) -> None:
    evidence = replace(
        *(FINE,),
        **{"planned": sent + dropped, "sent": sent, "answered": sent, "dropped": dropped},
        **{"send_lag_p99_s": lag_s, "cpu_share": cpu, "client_ttft_s": client_s, "server_ttft_s": server_s},
    )
    verdict = judge(evidence, [HELD])
    assert (verdict.verdict == "pass") == (not doubted(evidence))
    assert all(check.says for check in verdict.checks)
