"""k6's output, read: points in pieces of any size, words with and without an exception of the script."""

from __future__ import annotations

import json
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from loadgen.spike.point import Began, Dropped, Point, Sent
from loadgen.spike.tools import lines
from loadgen.spike.tools.k6_lines import Stream, words

REPORTS = [
    Began(1_795_288_021.816),
    Sent(0, 1_795_288_022.25),
    Point(n=0, by="k6", sent_s=1_795_288_022.25, status=200),
]


def _counted(metric: str, said: str, value: int = 1) -> str:
    """As k6 1.1 prints a point of a counter."""
    data = {"time": "2026-11-21T19:07:02.317431913Z", "value": value, "tags": {}, "metadata": {lines.KEY: said}}
    return json.dumps({"metric": metric, "type": "Point", "data": data}, separators=(",", ":"))


PRINTED = "\n".join(
    [
        '{"type":"Metric","data":{"name":"crowdspike_sent","type":"counter"},"metric":"crowdspike_sent"}',
        *(_counted("crowdspike_any", lines.encode(report)) for report in REPORTS),
        '{"metric":"http_reqs","type":"Point","data":{"time":"2026-11-21T19:07:02.3Z","value":1,"tags":{}}}',
        '{"metric":"dropped_iterations","type":"Point","data":{"time":"2026-11-21T20:07:02.5+01:00","value":2,"tags":{}}}',
        "",
    ]
).encode()


@given(st.lists(st.integers(0, len(PRINTED)), max_size=20))
def test_a_stream_in_any_pieces_gives_the_same_reports(cuts):
    stream, edges = Stream(), [0, *sorted(cuts), len(PRINTED)]
    heard = [report for a, b in pairwise(edges) for report in stream.feed(PRINTED[a:b])]
    assert heard == [*REPORTS, Dropped(1_795_288_022.5, 2)]


def test_a_line_that_a_killed_k6_left_half_printed_is_passed_over():
    half = _counted("crowdspike_point", lines.encode(REPORTS[2]))[:-20]
    assert Stream().feed(f"{half}\n".encode()) == []


def test_a_script_s_own_words_under_our_key_are_passed_over():
    assert Stream().feed(f"{_counted('crowdspike_point', 'no line of ours')}\n".encode()) == []


def test_an_exception_of_the_script_is_told_with_its_place_but_not_the_machine_s_folders():
    said = words(
        rb'{"level":"error","msg":"TypeError: no foo\n\tat default (file:///home/any/k6/arrivals.js:3:51(4))\n",'
        rb'"source":"stacktrace","time":"2026-11-21T19:09:54Z"}'
    )
    assert said.thrown
    assert said.text == "TypeError: no foo at default (arrivals.js:3:51(4))"


def test_other_errors_of_k6_are_words_and_no_exception():
    said = words(b'{"level":"error","msg":"Error from API server","error":"listen tcp: address already in use"}')
    assert not said.thrown
    assert str(said) == "error: Error from API server: listen tcp: address already in use"


def test_words_that_are_no_json_are_kept():
    assert words(b"panic: runtime error\n").text == "panic: runtime error"


def test_a_failed_request_is_no_words_of_its_own():
    assert words(b'{"level":"warning","msg":"Request Failed","error":"dial tcp"}') is None
    assert words(b"\n") is None
