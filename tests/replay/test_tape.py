"""A room at any moment of its log."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.recordings import CHAIN_S, T0_S, lines, reading, snapshot, store_in, talk
from tests.room.logs import rooms
from tests.sample_room import T0_MS, SampleRoom
from webapp.log.memory import MemoryStore
from webapp.room.state import fold
from webapp.tape import Log, NoRecord, Tape, load
from webapp.timeline import Timeline, decode
from webapp.timeline import fold as fold_timeline

TIMELINE = fold_timeline(decode(lines()))


def log_of(room: SampleRoom, timeline: Timeline = TIMELINE) -> Log:
    return Log(room.info, tuple(room.control), tuple(sorted(room.responses, key=lambda r: r.at_ms)), timeline)


@given(rooms(), st.lists(st.floats(-5, 400), min_size=1, max_size=8))
def test_wound_to_and_fro_the_room_is_as_it_was(room: SampleRoom, seconds: list[float]) -> None:
    log = log_of(room)
    tape = Tape(log)
    for t in seconds:
        now_ms = T0_MS + t * 1000
        control = [event for event in log.control if event.at_ms <= now_ms]
        expected = fold(room.info, control, [r for r in log.responses if r.at_ms <= now_ms])
        state = tape.state_at(T0_S + t)
        assert state == expected
        assert state.standings() == expected.standings()


def test_the_chain_and_the_plots_are_as_they_were() -> None:
    tape = Tape(log_of(talk()))
    assert tape.chain_at(T0_S + 50) is None
    assert tape.chain_at(T0_S + 100).t_s("node") is None
    assert {s.name: s.t_s and round(s.t_s, 3) for s in tape.chain_at(T0_S + 299).steps} == CHAIN_S
    assert tape.chain_at(T0_S + 100).t_s("decision") == 12.0
    columns = tape.history_at(T0_S + 80.5).columns()
    assert columns["t"] == [int(T0_S) + t for t in range(81)]
    assert columns["desired"][-10:] == [1] + [3] * 9
    assert columns["audience"] == [reading(t).in_flight["audience"] for t in range(81)]


async def test_a_log_is_read_whole() -> None:
    store, room = MemoryStore(), talk()
    await store_in(store, room, lines())
    log = await load(store, "KWXM")
    assert log.state() == room.state
    assert log.timeline.snapshot(T0_S + 100) == snapshot(100)
    assert log.times_s[0] == T0_S


async def test_a_room_that_is_not_there_is_named() -> None:
    with pytest.raises(NoRecord, match="KWXB"):
        await load(MemoryStore(), "KWXB")
