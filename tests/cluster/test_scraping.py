"""What is left of scrapes: the wanted metrics, how long they count, and what a failure takes away."""

from __future__ import annotations

from pathlib import Path

import pytest

from inference.cluster.scraping import LOOKBACK_S, Malformed, Scrapes, read

RECORDED = Path(__file__).parents[1] / "inference" / "recorded" / "metrics-idle.txt"
RUNNING = "vllm:num_requests_running"
TEXT = b"""# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="mistral"} 7.0
vllm:num_requests_running_total{engine="0"} 99
"""


def values(scrapes: Scrapes, name: str, now_s: float) -> list[float]:
    return [sample.value for sample in scrapes.instant(name, now_s)]


def test_what_a_real_vllm_exports_is_read_whole_and_in_part():
    text = RECORDED.read_bytes()
    everything = list(read(text))
    assert len(everything) == sum(1 for line in text.splitlines() if line and not line.startswith(b"#"))
    assert list(read(text, frozenset((RUNNING,)))) == [(RUNNING, {"engine": "0", "model_name": "mistral"}, 0.0)]


def test_only_the_wanted_metric_is_kept_and_not_one_that_begins_like_it():
    scrapes = Scrapes((RUNNING,))
    assert scrapes.put("a:8000", 10.0, TEXT)
    assert values(scrapes, RUNNING, 10.0) == [7.0]
    assert values(scrapes, "vllm:num_requests_running_total", 10.0) == []
    assert values(scrapes, "up", 10.0) == [1.0]


def test_a_sample_counts_from_its_scrape_for_five_minutes():
    scrapes = Scrapes()
    scrapes.put("a:8000", 10.0, TEXT)
    assert values(scrapes, RUNNING, 9.0) == []
    assert values(scrapes, RUNNING, 10.0 + LOOKBACK_S - 0.001) == [7.0]
    assert values(scrapes, RUNNING, 10.0 + LOOKBACK_S) == []


def test_a_failed_scrape_takes_the_series_away_at_once_and_up_to_0():
    scrapes = Scrapes()
    scrapes.put("a:8000", 10.0, TEXT)
    scrapes.put("b:8000", 10.0, TEXT)
    assert not scrapes.put("a:8000", 15.0, None)
    assert values(scrapes, RUNNING, 15.0) == [7.0]
    assert {s.labels["instance"]: s.value for s in scrapes.instant("up", 15.0)} == {"a:8000": 0.0, "b:8000": 1.0}


def test_a_series_that_a_scrape_no_longer_has_is_gone():
    scrapes = Scrapes()
    scrapes.put("a:8000", 10.0, TEXT)
    scrapes.put("a:8000", 15.0, b"other 1\n")
    assert values(scrapes, RUNNING, 15.0) == []


def test_a_target_that_is_forgotten_leaves_nothing():
    scrapes = Scrapes()
    scrapes.put("a:8000", 10.0, TEXT)
    scrapes.forget("a:8000", 11.0)
    scrapes.forget("never there", 11.0)
    assert values(scrapes, RUNNING, 11.0) == values(scrapes, "up", 11.0) == []


def test_text_that_is_no_metrics_is_a_failed_scrape():
    scrapes = Scrapes()
    assert not scrapes.put("a:8000", 10.0, b"<html>502 Bad Gateway</html>")
    assert values(scrapes, "up", 10.0) == [0.0]


def test_simulated_values_stand_like_scraped_ones():
    scrapes = Scrapes()
    scrapes.put_values("pod-1", 10.0, {RUNNING: 3}, {"model_name": "mistral"})
    (sample,) = scrapes.instant(RUNNING, 12.0)
    assert sample.value == 3.0
    assert sample.labels == {"instance": "pod-1", "model_name": "mistral"}
    assert values(scrapes, "up", 12.0) == [1.0]


def test_a_targets_label_wins_over_an_exposed_one_which_stays_under_another_name():
    scrapes = Scrapes()
    scrapes.put("a:8000", 10.0, b'x{pod="theirs",instance="i"} 1\n', {"pod": "ours"})
    (sample,) = scrapes.instant("x", 10.0)
    wanted = {"pod": "ours", "instance": "a:8000", "exported_pod": "theirs", "exported_instance": "i"}
    assert sample.labels == wanted


@pytest.mark.parametrize(
    ("line", "labels", "value"),
    [
        ('x{a="b}c",d="e\\"f\\\\g\\nh"} 1.5', {"a": "b}c", "d": 'e"f\\g\nh'}, 1.5),
        ('x{a="b",} 1e3 1700000000000', {"a": "b"}, 1000.0),
        ("x +Inf", {}, float("inf")),
        ('x_bucket{le="0.1"} 4 # {trace="1"} 0.05', {"le": "0.1"}, 4.0),
    ],
)
def test_the_exposition_format_is_read(line: str, labels: dict[str, str], value: float):
    assert [(found, number) for _, found, number in read(line)] == [(labels, value)]


@pytest.mark.parametrize("line", ["x", "x one", "x{a=b} 1", 'x{a="b} 1', "1x 1"])
def test_what_is_no_sample_is_an_error(line: str):
    with pytest.raises(Malformed):
        list(read(line))
