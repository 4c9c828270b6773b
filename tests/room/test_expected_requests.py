"""What the room is about to ask: numbers worked by hand, and what holds for any room."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.histogram import Histogram
from tests.room.logs import rooms
from tests.sample_room import ASK, QUIZ, RAFFLE, SEVERAL, SURVEY, SampleRoom
from webapp.crowd import ASK_SPREAD_S, MEASURED_FROM, QUESTIONS_EACH, REPLY_S, expected_requests, seconds_per_reply
from webapp.room.events import Joined

PHONES = [f"phone{n}" for n in range(60)]


def expected(room: SampleRoom, seconds: float = 2.0) -> float:
    return expected_requests(room.state, room.now_ms, seconds)


def full() -> SampleRoom:
    return SampleRoom().join(*PHONES)


def test_the_first_question_counts_from_the_first_phone_on() -> None:
    room = SampleRoom()
    assert expected(room) == 0
    room.join("ann")
    assert expected(room) == pytest.approx(1 / 30 * 2)  # one answer in 30 s, each in flight for 2 s
    room.join(*PHONES)
    assert expected(room) == pytest.approx(61 / 30 * 2)


def test_each_answer_to_an_open_question_leaves_one_fewer_to_come() -> None:
    room = full().start(QUIZ.id)
    for n, phone in enumerate(PHONES[:45], 1):
        room.answer(phone, QUIZ.id, "a")
        assert expected(room) == pytest.approx((60 - n) / 30 * 2)
    room.answer(PHONES[0], QUIZ.id, "b")
    assert expected(room) == pytest.approx(15 / 30 * 2), "the same phone's second answer counts no more"


def test_the_next_question_counts_once_the_one_before_is_closed() -> None:
    room = full().start(QUIZ.id)
    for phone in PHONES:
        room.answer(phone, QUIZ.id, "b")
    assert expected(room) == 0
    room.after(30)
    assert expected(room) == pytest.approx(60 / SEVERAL.time_limit_s * 2), "closed by its deadline"
    room.do("reveal")
    assert expected(room) == pytest.approx(60 / SEVERAL.time_limit_s * 2)
    room.do("goto", activity=ASK.id)
    assert expected(room) == pytest.approx(60 * QUESTIONS_EACH / ASK_SPREAD_S * 2), "what stands ready comes first"


def test_a_longer_time_limit_spreads_the_answers() -> None:
    room = full().start(QUIZ.id)
    room.do("extend", by_s=30)
    assert expected(room) == pytest.approx(60 / 60 * 2)


def test_a_round_of_questions_falls_as_they_are_asked() -> None:
    room = full().start(ASK.id)
    assert expected(room) == pytest.approx(60 / ASK_SPREAD_S * 2)
    for phone in PHONES[:20]:
        room.ask(phone, "What is a pod?")
        room.ask(phone, "And a node?")
    assert expected(room) == pytest.approx(20 / ASK_SPREAD_S * 2)
    for phone in PHONES[20:]:
        room.ask(phone, "What is a pod?")
    assert expected(room) == 0, "more questions than were expected"


@pytest.mark.parametrize("activity", [SURVEY.id, RAFFLE.id])
def test_what_asks_nothing_of_the_model_expects_nothing(activity: str) -> None:
    room = full()
    room.do("goto", activity=activity)
    assert expected(room) == 0


def test_removed_phones_and_an_archived_room_expect_nothing() -> None:
    room = full()
    room.do("remove", participant=PHONES[0])
    assert expected(room) == pytest.approx(59 / 30 * 2)
    room.do("archive")
    assert expected(room) == 0


@given(rooms(), st.floats(0, 1000))
def test_it_is_never_negative_and_grows_with_the_time_of_a_reply(room: SampleRoom, seconds: float) -> None:
    once = expected(room, seconds)
    assert once >= 0
    assert expected(room, 2 * seconds) == pytest.approx(2 * once)


@given(rooms(), st.integers(1, 40))
def test_more_phones_never_expect_less_and_none_expect_nothing(room: SampleRoom, more: int) -> None:
    before = expected(room)
    if not room.state.present:
        assert before == 0
    for n in range(more):
        room.add(Joined(id="join", participant=f"late{n}", at_ms=room.now_ms, nickname="Late"))
    assert expected(room) >= before


def test_a_reply_is_timed_from_its_first_token_and_never_below_the_default() -> None:
    ttft, e2e = Histogram((1.0,)), Histogram((1.0,))
    for _ in range(MEASURED_FROM - 1):
        ttft.observe(30.0)
        e2e.observe(37.0)
    assert seconds_per_reply(ttft, e2e) == REPLY_S, "too few to count"
    ttft.observe(30.0)
    e2e.observe(37.0)
    assert seconds_per_reply(ttft, e2e) == pytest.approx(7.0), "the 30 s before it are a queue's"
    ttft.observe(0.1, 1000)
    e2e.observe(0.3, 1000)
    assert seconds_per_reply(ttft, e2e) == REPLY_S, "an idle fleet is quicker than one that is in use"
