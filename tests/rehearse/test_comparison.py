"""The comparison in words says who is worse, whichever it is."""

from __future__ import annotations

from dataclasses import replace

from webapp.rehearse.figures import Figures
from webapp.rehearse.table import table, verdicts

BASE = Figures(
    requests=100,
    answered=100,
    refused=0,
    broken=0,
    ttft_p50_s=0.1,
    ttft_p95_s=4.0,
    ttft_p99_s=6.0,
    ttft_p95_first_s=None,
    over_target=30,
    gpu_hours=2.0,
    usd=1.0,
    peak_pods=4,
    short_s=60,
    enough_s=None,
    nodes=("g5.xlarge spot",),
)


def test_better_and_cheaper_is_said() -> None:
    better = replace(BASE, ttft_p95_s=1.5, over_target=10, usd=0.75)
    said = "b against a: TTFT p95 2.50 s faster, 20 fewer requests over 1 s, costs $0.25 less."
    assert verdicts({"a": BASE, "b": better}) == [said]


def test_worse_and_dearer_is_said() -> None:
    worse = replace(BASE, ttft_p95_s=14.5, over_target=31, usd=1.5)
    said = "b against a: TTFT p95 10 s slower, 1 more requests over 1 s, costs $0.50 more."
    assert verdicts({"a": BASE, "b": worse}) == [said]


def test_no_difference_is_said_and_seeds_are_not_taken_for_one() -> None:
    assert verdicts({"a": BASE, "b": replace(BASE, ttft_p95_s=4.1, usd=1.005)}) == [
        "b against a: TTFT p95 the same, the same cost."
    ]
    assert verdicts({"a": BASE}) == []


def test_the_table_has_a_column_for_each_and_a_dash_where_nothing_was_measured() -> None:
    rows = table({"one": BASE, "another": replace(BASE, enough_s=12.0)}).splitlines()
    assert len({len(row) for row in rows}) == 1, "columns line up"
    first = next(row for row in rows if row.startswith("TTFT p95, first activity"))
    assert first.split()[-2:] == ["–", "–"]
    assert rows[-1].split()[-3:] == ["never", "12", "s"]
