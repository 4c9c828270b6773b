"""What a rehearsed room does: as the program would see it, and never otherwise."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from tests.sample_room import ASK, TALK
from webapp import prompts
from webapp.rehearse import people
from webapp.rehearse.script import SHORTEST_PAUSE_S, Pace, Script, script
from webapp.room.events import Answered, Asked, Control, Joined, Response
from webapp.room.state import Phase, RoomState
from webapp.talk.model import Quiz
from webapp.talk.samples import sample_talk


def responses(play: Script, kind: type[Response]) -> list[Response]:
    return [step.event for step in play.steps if isinstance(step.event, kind)]


def test_the_same_seed_writes_the_same_script_and_another_a_different_one() -> None:
    assert script(TALK, 30, seed=1) == script(TALK, 30, seed=1)
    assert script(TALK, 30, seed=1).steps != script(TALK, 30, seed=2).steps


def test_every_response_comes_while_its_activity_is_open_and_counts() -> None:
    play = script(TALK, 50, seed=3)
    state = RoomState(play.info)
    for step in play.steps:
        if isinstance(step.event, Control):
            state.apply(step.event)
            continue
        if not isinstance(step.event, Joined):
            assert state.current == step.event.activity
            assert state.phase(step.event.at_ms) is Phase.OPEN
        state.add(step.event)
    assert len(state.present) == 50
    for activity in TALK.activities:
        if isinstance(activity, Quiz):
            answered = [e for e in responses(play, Answered) if e.activity == activity.id]
            assert answered, "somebody answers"
            assert state.tally(activity)[1] == len(answered), "each phone once"
    assert len(state.questions()) == len(responses(play, Asked)) > 0


def test_nobody_asks_more_than_an_activity_allows() -> None:
    asked = Counter(event.participant for event in responses(script(TALK, 200, seed=5), Asked))
    assert max(asked.values()) == ASK.max_questions


def test_requests_are_as_long_as_the_program_would_send_them() -> None:
    talk = sample_talk()
    steps = [step for step in script(talk, 20, seed=1).steps if step.request]
    assert {step.event.activity for step in steps} == {a.id for a in talk.activities if a.kind in ("quiz", "ask")}
    for step in steps:
        most = prompts.COMMENT_MAX_TOKENS if isinstance(step.event, Answered) else prompts.ANSWER_MAX_TOKENS
        assert 1 < step.request.output_tokens <= most
        assert step.request.prompt_tokens > len(talk.persona.split())
    longest = [step for step in script(talk, 20, seed=1, answer_tokens=1000).steps if step.request]
    assert {step.request.output_tokens for step in longest} == {prompts.COMMENT_MAX_TOKENS, prompts.ANSWER_MAX_TOKENS}
    assert [step.at_s for step in longest] == [step.at_s for step in steps], "lengths change no times"


def test_the_talk_lasts_as_long_as_it_was_given_or_as_its_activities_need() -> None:
    assert round(script(TALK, 0, Pace(minutes=45)).ends_s) == 45 * 60
    hurried = script(TALK, 0, Pace(minutes=1, lobby_minutes=0))
    pauses = [after.opens_s - before.ends_s for before, after in pairwise(hurried.slots)]
    assert min(pauses) >= SHORTEST_PAUSE_S - 1e-6
    assert hurried.ends_s > 60


def test_who_joins_late_answers_only_what_opens_later() -> None:
    play = script(TALK, 300, Pace(lobby_minutes=1), seed=2)
    joined = {event.participant: event.at_ms for event in responses(play, Joined)}
    opens_ms = {slot.activity.id: slot.opens_s * 1000 for slot in play.slots}
    assert max(joined.values()) > opens_ms["q1"], "some are late"
    for event in responses(play, Answered):
        assert joined[event.participant] <= opens_ms[event.activity] + 1


@given(st.integers(), st.floats(1, 300))
def test_people_answer_before_the_deadline_or_not_at_all(seed: int, limit_s: float) -> None:
    rng = Random(seed)
    times = [people.answers_s(rng, limit_s) for _ in range(50)]
    assert all(0 < at_s < limit_s for at_s in times if at_s is not None)


@given(st.integers(), st.floats(1, 300), st.integers(1, 5))
def test_people_ask_one_question_after_another(seed: int, open_s: float, most: int) -> None:
    times = people.asks_s(Random(seed), open_s, most)
    assert len(times) <= most
    assert times == sorted(times)
    assert all(0 < at_s < open_s for at_s in times)
