"""The timeline: what a second's line keeps, and what the lines of several processes come to."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.cluster.snapshot import Happening
from tests.recordings import (
    CHAIN_S,
    SECONDS,
    T0_S,
    completions,
    frames,
    happened,
    lines,
    reading,
    snapshot,
    store_in,
    talk,
)
from tests.sample_room import T0_MS
from webapp.live.vitals import Reading
from webapp.log.memory import MemoryStore
from webapp.timeline import Encoder, Frame, decode, fold, read, together


def test_every_second_comes_back_as_it_was() -> None:
    assert decode(lines()) == list(frames())


@given(st.lists(st.integers(0, SECONDS - 1), min_size=1, max_size=40, unique=True).map(sorted))
def test_seconds_that_nobody_recorded_change_nothing_of_the_others(seconds: list[int]) -> None:
    encoder = Encoder("writer-a", simulated=True)
    kept = [encoder.line(T0_MS + t * 1000, reading(t), snapshot(t), completions(t)) for t in seconds]
    decoded = decode(kept)
    assert [frame.cluster for frame in decoded] == [snapshot(t, happenings=False) for t in seconds]
    told = [happening for frame in decoded for happening in frame.happenings]
    assert told == [h for h in happened() if h.at_s <= T0_S + seconds[-1]]


def test_a_cluster_goes_in_whole_only_when_more_than_gauges_changed() -> None:
    whole = [t for t, line in enumerate(map(json.loads, lines())) if "cluster" in line]
    assert whole == [0, 60, 72, 74, 104, 130, 190, 250, 260, 270]  # on changes, and a minute after the last
    assert [t for t, line in enumerate(map(json.loads, lines())) if "happened" in line] == [
        62,
        72,
        74,
        104,
        130,
        131,
        260,
    ]
    quiet = [len(line) for t, line in enumerate(lines()) if t % 60 and t < 60]
    assert max(quiet) < 350


def test_a_lost_line_is_mended_within_a_minute() -> None:
    """A store that was away for too long may cost lines; each minute has the whole cluster again."""
    left = decode(lines()[70:])
    assert [f.cluster == snapshot(70 + i, happenings=False) for i, f in enumerate(left)] == [False] * 2 + [True] * 228


async def test_a_room_is_read_from_its_store(tmp_path) -> None:
    store = MemoryStore()
    await store_in(store, talk(), lines())
    timeline = await read(store, "KWXM")
    assert len(timeline.moments) == SECONDS
    assert timeline.happenings == tuple(happened())
    assert timeline.snapshot(T0_S + 131.9) == snapshot(131)
    assert timeline.snapshot(T0_S - 1) is None
    assert timeline.at(T0_S + 1e6).vitals == reading(SECONDS - 1)
    (chain,) = timeline.chains
    assert chain.edge_at_s == T0_S + 60
    assert {step.name: step.t_s and round(step.t_s, 3) for step in chain.steps} == CHAIN_S


async def test_a_room_without_a_timeline_has_an_empty_one() -> None:
    timeline = await read(MemoryStore(), "KWXM")
    assert (timeline.moments, timeline.happenings, timeline.chains, timeline.at(0)) == ((), (), (), None)


def test_loads_of_several_processes_add_up_and_the_cluster_is_the_freshest() -> None:
    older, newer = snapshot(10, happenings=False), snapshot(11, happenings=False)
    one = Reading({"audience": 3, "amplified": 0, "scripted": 0, "api": 1}, 2, 0.2, 0.9, 50.0, 1.0, 3000.0, 1.0)
    two = Reading({"audience": 4, "amplified": 5, "scripted": 6, "api": 0}, 1, 0.1, 1.5, 25.0, 0.5, 1500.0)
    timeline = fold([Frame("b", T0_MS + 100, two, older), Frame("a", T0_MS + 300, one, newer)])
    (moment,) = timeline.moments
    assert moment.vitals.in_flight == {"audience": 7, "amplified": 5, "scripted": 6, "api": 1}
    assert moment.vitals == Reading(moment.vitals.in_flight, 3, 0.2, 1.5, 75.0, 1.5, 4500.0, 1.0)
    assert moment.cluster == newer


def test_a_process_that_fell_silent_counts_no_more_after_three_seconds() -> None:
    last = Frame("b", T0_MS, reading(100), None)
    others = [Frame("a", T0_MS + t * 1000, reading(1), None) for t in range(6)]
    audience = [m.vitals.in_flight["audience"] for m in fold([last, *others]).moments]
    assert audience == [101, 101, 101, 1, 1, 1]


@settings(max_examples=25)
@given(st.permutations(["a", "b", "c"]), st.data())
def test_the_fold_does_not_depend_on_the_order_of_processes(order: list[str], data: st.DataObject) -> None:
    by_writer = {
        writer: [
            replace(frame, writer=writer, at_ms=frame.at_ms + data.draw(st.integers(0, 900)))
            for frame in list(frames())[66:78]
        ]
        for writer in "abc"
    }
    assert fold(f for w in order for f in by_writer[w]) == fold(f for w in "abc" for f in by_writer[w])


def test_a_happening_that_two_processes_saw_is_told_once() -> None:
    def seen(writer: str, *at_s: float) -> Frame:
        told = tuple(Happening(i, T0_S + t, "pod", "ready", "vllm-b", "") for i, t in enumerate(at_s, 1))
        return Frame(writer, T0_MS, Reading(), None, told)

    both = fold([seen("a", 1.0, 60.0), seen("b", 1.4, 60.9)]).happenings
    assert [(h.seq, h.at_s - T0_S) for h in both] == [(1, 1.0), (2, 60.0)]
    alone = fold([seen("a", 1.0, 1.5)]).happenings
    assert len(alone) == 2  # it did happen twice


@pytest.mark.parametrize("readings", [[], [Reading()], [Reading(), Reading()]])
def test_nothing_and_nothing_is_nothing(readings: list[Reading]) -> None:
    assert together(readings) == replace(Reading(), in_flight=Reading().in_flight if readings else {})
