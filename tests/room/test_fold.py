"""That a room is a function of its log: no order, repetition or cutting up of responses makes a difference."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from logs import ACTIVITIES, PEOPLE, ids, responses, rooms

from tests.sample_room import QUIZ, SEVERAL, SURVEY, T0_MS, SampleRoom
from webapp.export import jsonl
from webapp.room.events import Answered, Asked, Response, decode_control, decode_response, encode
from webapp.room.state import RoomState, fold
from webapp.views.console import console_screen
from webapp.views.phone import phone_screen
from webapp.views.stage import results, stage_screen


def facts(state: RoomState, now_ms: int) -> dict[str, Any]:
    """Everything that is read from a state, by name."""
    return {
        "phases": [state.of(a).phase(now_ms) for a in ACTIVITIES],
        "standings": state.standings(),
        "distribution": [state.tally(q) for q in (QUIZ, SEVERAL)],
        "winners": state.of("raffle").winners,
        "entrants": state.of("raffle").entrants,
        "questions": state.questions(),
        "results": results(state, SURVEY),
        "present": state.present,
        "names": [(state.nickname(p), state.stage_name(p)) for p in PEOPLE],
        "export": list(jsonl(state)),
        "phones": [phone_screen(state, p, now_ms) for p in PEOPLE],
        "stage": stage_screen(state, now_ms, "http://talk.test/j/KWXM", False),
        "console": console_screen(state, now_ms, {}),
    }


@st.composite
def read_otherwise(draw: st.DrawFn, room: SampleRoom) -> RoomState:
    """The log of `room` as another process may come to read it: control events in order, and between them the
    responses in any order, some of them again, through their stored bytes."""
    again = draw(st.lists(st.sampled_from(room.responses), max_size=8)) if room.responses else []
    shuffled = draw(st.permutations([*room.responses, *again]))
    state = RoomState(room.info, moderation=room.info.talk.moderation)
    waiting = list(room.control)
    for response in shuffled:
        for _ in range(draw(st.integers(0, 3))):
            if waiting:
                state.apply(decode_control(encode(waiting.pop(0))))
        state.add(decode_response(encode(response)))
        if draw(st.booleans()):
            facts(state, room.now_ms)  # reading in between changes nothing, and fills whatever is kept
    for event in waiting:
        state.apply(event)
    return state


@given(st.data())
def test_any_interleaving_gives_the_same_room(data: st.DataObject) -> None:
    room = data.draw(rooms())
    other = data.draw(read_otherwise(room))
    assert other == room.state
    assert facts(other, room.now_ms) == facts(room.state, room.now_ms)


@given(st.data())
def test_segments_of_several_writers_may_be_read_in_any_order(data: st.DataObject) -> None:
    room = data.draw(rooms())
    writers: list[list[Response]] = [[], [], []]
    for response in room.responses:
        for writer in data.draw(st.sets(st.integers(0, 2), min_size=1)):
            writers[writer].append(response)
    read = [response for writer in data.draw(st.permutations(writers)) for response in writer]
    other = fold(room.info, room.control, read)
    assert other == room.state
    assert facts(other, room.now_ms) == facts(room.state, room.now_ms)


@given(rooms())
def test_applying_one_by_one_equals_a_fold_from_the_start(room: SampleRoom) -> None:
    assert fold(room.info, room.control, room.responses) == room.state


@given(rooms())
def test_reading_changes_nothing(room: SampleRoom) -> None:
    untouched = fold(room.info, room.control, room.responses)
    facts(room.state, room.now_ms)
    assert room.state == untouched


@given(
    st.lists(responses(st.integers(T0_MS, T0_MS + 40_000)), min_size=2, max_size=5).flatmap(
        lambda copies: st.tuples(st.just(copies), st.permutations(copies), ids)
    )
)
def test_one_id_with_different_contents_counts_once_whichever_comes_first(drawn) -> None:
    copies, shuffled, _ = drawn
    first, second = SampleRoom(), SampleRoom()
    for room, order in ((first, copies), (second, shuffled)):
        room.join("ann", "ben").start("q1").after(5).do("reveal")
        for response in order:
            room.add(response)
    assert first.state == second.state
    assert facts(first.state, first.now_ms) == facts(second.state, second.now_ms)
    keys = {r.key for r in (*copies, *first.responses)}
    assert first.state.responses.keys() == keys


def test_of_two_copies_the_earlier_receipt_counts_even_when_it_is_of_another_kind() -> None:
    room = SampleRoom().join("ann").start("q1")
    answer = Answered(id="phone-1", participant="ann", at_ms=room.now_ms + 900, activity="q1", choice=("b",))
    earlier = Asked(id="phone-1", participant="ann", at_ms=room.now_ms + 100, activity="ask", question="Why?")
    room.add(answer)
    room.after(5).do("reveal")
    assert room.state.standings()[0].points == 985
    room.add(earlier)
    assert room.state.answer("q1", "ann") is None
    assert room.state.standings()[0].points == 0


def test_a_response_that_is_known_is_no_news() -> None:
    room = SampleRoom().join("ann")
    assert room.state.add(room.responses[0]) is False
    assert room.state.add(decode_response(encode(room.responses[0]))) is False
