"""The bench of the whole local cluster: its arithmetic, and that it ends by itself with a report."""

from __future__ import annotations

import subprocess
import sys

import pytest

from inference.engine import profile as profiles
from loadgen.cluster.lateness import lateness
from loadgen.cluster.pacing import due_s, pacing

PAGE = b"""\
# TYPE crowdspike_cluster_late_seconds histogram
crowdspike_cluster_late_seconds_bucket{le="0.01",work="scrape"} %d.0
crowdspike_cluster_late_seconds_bucket{le="0.1",work="scrape"} %d.0
crowdspike_cluster_late_seconds_bucket{le="+Inf",work="scrape"} %d.0
crowdspike_cluster_late_seconds_sum{work="scrape"} 1.5
"""


def test_tokens_that_come_when_they_are_due_keep_the_profiles_pace() -> None:
    due = due_s(profiles.load("l4-mistral-7b-awq"), 32, 8, 50)
    begun_s = 1000.0
    paced = pacing([[begun_s + at_s for at_s in due]] * 3, due, 0.0, 2000.0)
    assert len(paced.seen_ms) == 3 * 49
    assert paced.pace == pytest.approx(1.0)
    assert all(seen == pytest.approx(due_ms, abs=1e-6) for seen, due_ms in paced.pairs().values())


def test_tokens_that_come_half_as_fast_show_it_in_every_figure() -> None:
    due = due_s(profiles.load("l4-mistral-7b-awq"), 32, 8, 50)
    paced = pacing([[2 * at_s for at_s in due]], due, 0.0, 2000.0)
    assert paced.pace == pytest.approx(0.5)
    assert all(seen / due_ms == pytest.approx(2.0) for seen, due_ms in paced.pairs().values())


def test_only_what_came_while_it_was_measured_counts() -> None:
    paced = pacing([[1.0, 2.0, 3.0, 4.0, 5.0]], (0.0, 1.0, 2.0, 3.0, 4.0), 2.0, 4.5)
    assert paced.seen_ms == (1000.0, 1000.0)


def test_lateness_is_that_of_the_time_between_two_pages() -> None:
    before, after = (lateness(PAGE % counts)["scrape"] for counts in ((5, 5, 5), (6, 14, 15)))
    new = after.since(before)
    assert new.count == 10
    assert (new.at_most_ms(0.1), new.at_most_ms(0.9), new.at_most_ms(0.99)) == (10.0, 100.0, float("inf"))


def test_page_without_a_local_cluster_has_no_lateness() -> None:
    assert lateness(b"crowdspike_state_polls_total 5.0\n") == {}


def test_a_small_run_ends_by_itself_and_says_what_it_saw() -> None:
    sizes = ["--replicas", "2", "--streams", "40", "--phones", "10", "--stages", "2", "--seconds", "3"]
    ran = subprocess.run(
        [sys.executable, "-m", "loadgen.cluster", *sizes], capture_output=True, text=True, timeout=150, check=False
    )
    assert "of the profile's tokens a second" in ran.stdout, ran.stderr
    assert "replies        10, 0 failed; faults none" in ran.stdout
    for row in ("pass", "scrape", "web process", "2 replicas", "load generator"):
        assert f"\n  {row}" in ran.stdout
