"""What a tool's script says comes back as it was said, and nothing else that it prints is taken for it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.spike.point import Began, Dropped, Point, Sent, Trouble
from loadgen.spike.tools.lines import TROUBLE_CHARS, decode, encode

AT_S = 1_795_243_040.1234

_times = st.none() | st.integers(0, 10**14).map(lambda n: n / 10_000)
_points = st.builds(
    Point,
    n=st.integers(0, 10**6),
    by=st.sampled_from(["k6", "locust", "probe"]),
    kind=st.sampled_from(["completion", "reply", "poll"]),
    due_s=_times,
    sent_s=_times,
    first_s=_times,
    ended_s=_times,
    status=st.sampled_from([0, 200, 503]),
    error=st.text(max_size=40),
    completion_tokens=st.none() | st.integers(0, 4096),
    gaps_ms=st.lists(st.integers(0, 10**6).map(lambda n: n / 100), max_size=5).map(tuple),
    cell=st.none() | st.integers(0, 99),
)


@pytest.mark.parametrize(
    "report",
    [
        Began(AT_S),
        Sent(7, AT_S),
        Sent(7, AT_S, "poll"),
        Dropped(AT_S, 3),
        Trouble("line 3:\n“no”"),
        Point(n=0, by="k6"),
    ],
)
def test_each_kind_of_report_comes_back_from_one_line(report) -> None:
    line = encode(report)
    assert "\n" not in line
    assert decode(line) == report
    assert decode(line.encode()) == report


@given(_points)
def test_points_come_back_as_they_were(point: Point) -> None:
    assert decode(encode(point)) == point


@pytest.mark.parametrize(
    "line",
    [
        "",
        "[2026-11-21 12:00:00] INFO/locust.main: Starting",
        "7",
        "[]",
        "{}",
        '{"metric":"http_reqs","type":"Point"}',
        '{"crowdspike":"other"}',
        '{"crowdspike":["sent"]}',
        '{"crowdspike":"sent","n":1}',
        '{"crowdspike":"point","n":1,"by":"k6","unknown":1}',
        b'{"crowdspike":"sent","n":1,"at_s":17\xff',
    ],
)
def test_other_lines_are_no_reports(line: str | bytes) -> None:
    assert decode(line) is None


def test_half_a_line_is_no_report() -> None:
    line = encode(Point(n=3, by="locust", sent_s=AT_S))
    assert {decode(line[:cut]) for cut in range(len(line))} == {None}


def test_a_long_trouble_is_cut() -> None:
    assert decode(encode(Trouble("x" * 10_000))) == Trouble("x" * TROUBLE_CHARS)
