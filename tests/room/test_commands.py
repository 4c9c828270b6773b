"""What the presenter may do when, and that nothing else happens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from logs import ACTIVITIES, PEOPLE, rooms, texts

from tests.sample_room import ASK, QUIZ, RAFFLE, SURVEY, SampleRoom
from webapp.room.commands import SCENES, VERDICTS, Action, CommandRefused, decide, position
from webapp.room.events import Drawn, decode_control, encode
from webapp.room.state import Phase, fold

STEPS = ("open", "reopen", "close", "extend", "reveal", "draw", "redraw")
ALLOWED = {
    ("lobby", "lobby"): set(),
    (QUIZ.id, "ready"): {"open"},
    (QUIZ.id, "open"): {"close", "extend", "reveal"},
    (QUIZ.id, "closed"): {"reopen", "reveal"},
    (QUIZ.id, "expired"): {"reopen", "reveal"},
    (QUIZ.id, "revealed"): {"reopen"},
    (ASK.id, "ready"): {"open"},
    (ASK.id, "open"): {"close"},
    (ASK.id, "closed"): {"reopen"},
    (SURVEY.id, "ready"): {"open"},
    (SURVEY.id, "open"): {"close", "reveal"},
    (SURVEY.id, "closed"): {"reopen", "reveal"},
    (SURVEY.id, "revealed"): {"reopen"},
    (RAFFLE.id, "ready"): {"open"},
    (RAFFLE.id, "open"): {"close"},
    (RAFFLE.id, "closed"): {"reopen", "draw"},
    (RAFFLE.id, "drawn"): {"redraw"},
}
LEADS_TO = {"open": "open", "reopen": "open", "close": "closed", "extend": "open", "reveal": "revealed"}


def at(activity: str, stage: str) -> SampleRoom:
    room = SampleRoom().join(*PEOPLE)
    if stage == "lobby":
        return room
    room.do("goto", activity=activity)
    steps = {"ready": (), "open": ("open",), "expired": ("open",), "drawn": ("open", "close", "draw")}
    for step in steps.get(stage, ("open", {"closed": "close", "revealed": "reveal"}.get(stage, ""))):
        room.do(step)
    return room.after(31) if stage == "expired" else room


@pytest.mark.parametrize(("activity", "stage"), ALLOWED)
@pytest.mark.parametrize("step", STEPS)
def test_each_step_is_possible_in_its_phases_only(activity: str, stage: str, step: str) -> None:
    room = at(activity, stage)
    if step not in ALLOWED[activity, stage]:
        with pytest.raises(CommandRefused):
            room.do(step)
        return
    room.do(step)
    assert str(room.state.phase(room.now_ms)) == LEADS_TO.get(step, "closed")


def test_next_and_back_end_where_the_talk_does() -> None:
    room = SampleRoom()
    with pytest.raises(CommandRefused, match="first"):
        room.do("back")
    for activity in ACTIVITIES:
        room.do("next")
        assert (room.state.current, room.state.phase(room.now_ms)) == (activity, Phase.READY)
    with pytest.raises(CommandRefused, match="last"):
        room.do("next")
    room.do("back")
    assert room.state.current == SURVEY.id


def test_leaving_an_activity_closes_it() -> None:
    room = SampleRoom().start(ASK.id).after(5)
    room.do("next")
    assert room.state.of(ASK.id).phase(room.now_ms) is Phase.CLOSED
    room.do("back")
    assert room.state.phase(room.now_ms) is Phase.CLOSED


def test_an_extension_moves_the_deadline_and_is_bounded() -> None:
    room = SampleRoom().start(QUIZ.id).after(29)
    for by_s in (0, -5, 601):
        with pytest.raises(CommandRefused, match="600"):
            room.do("extend", by_s=by_s)
    room.do("extend", by_s=20)
    assert room.after(20.9).state.phase(room.now_ms) is Phase.OPEN
    assert room.after(0.1).state.phase(room.now_ms) is Phase.CLOSED


@pytest.mark.parametrize("step", ["next", "open", "close", "reveal", "draw", "archive"])
def test_a_second_tap_on_an_old_page_is_refused(step: str) -> None:
    room = {
        "next": lambda: at(QUIZ.id, "revealed"),
        "open": lambda: at(QUIZ.id, "ready"),
        "close": lambda: at(QUIZ.id, "open"),
        "reveal": lambda: at(QUIZ.id, "closed"),
        "draw": lambda: at(RAFFLE.id, "closed"),
        "archive": lambda: at(QUIZ.id, "open"),
    }[step]()
    seen = position(room.state, room.now_ms)
    room.do(step, at=seen)
    before = position(room.state, room.now_ms)
    with pytest.raises(CommandRefused):
        room.do(step, at=seen)
    assert position(room.state, room.now_ms) == before


def test_a_second_redraw_from_the_same_page_does_not_pass_over_the_new_winner() -> None:
    room = at(RAFFLE.id, "drawn")
    seen = position(room.state, room.now_ms)
    room.do("redraw", at=seen)
    with pytest.raises(CommandRefused, match="moved on"):
        room.do("redraw", at=seen)


def test_reopening_a_question_twice_from_one_page_is_refused() -> None:
    room = at(QUIZ.id, "closed")
    seen = position(room.state, room.now_ms)
    room.do("reopen", at=seen)
    room.do("close")
    with pytest.raises(CommandRefused, match="moved on"):
        room.do("reopen", at=seen)


def test_an_archived_room_takes_no_action_any_more() -> None:
    room = at(QUIZ.id, "open")
    room.do("archive")
    assert room.state.of(QUIZ.id).phase(room.now_ms) is Phase.CLOSED
    for action in ("next", "open", "show", "lock", "archive", "rename"):
        with pytest.raises(CommandRefused, match="archived"):
            room.do(action, scene="lobby", participant="ann", nickname="Ann")


def test_lock_moderation_rename_remove_and_scene_do_what_they_say() -> None:
    room = SampleRoom().join(*PEOPLE)
    room.do("lock", on=True)
    room.do("moderation", on=False)
    room.do("rename", participant="ann", nickname=" Ada\u202e  L. ")
    room.do("remove", participant="ben")
    room.do("show", scene="podium")
    state = room.state
    assert (state.locked, state.moderation, state.scene) == (True, False, "podium")
    assert state.nickname("ann") == state.stage_name("ann") == "Ada L."
    assert "ben" not in state.present
    room.do("restore", participant="ben")
    room.do("next")
    assert "ben" in state.present
    assert state.scene == "auto"


@pytest.mark.parametrize(
    "details",
    [
        {"action": "show", "scene": "secrets"},
        {"action": "rename", "participant": "ann", "nickname": " \u200b "},
        {"action": "rename", "participant": "ann", "nickname": "x" * 25},
        {"action": "rename", "participant": "nobody", "nickname": "Ann"},
        {"action": "remove", "participant": "nobody"},
        {"action": "goto", "activity": "nothing"},
        {"action": "dance"},
        {"action": "approve", "item": "q:ann:unheard-of"},
        {"action": "approve", "item": ""},
    ],
)
def test_what_is_not_there_is_refused(details: dict) -> None:
    with pytest.raises(CommandRefused):
        SampleRoom().join("ann").do(**details)


def test_a_verdict_names_something_that_can_be_shown() -> None:
    room = SampleRoom().join("ann").start(ASK.id)
    question = room.after(1).ask("ann", "Why?")
    for item in (
        f"n:{question.key}",
        f"t:{question.key}:comment",
        f"q:{question.key}:more",
        f"q:{question.key}:\ud800",
    ):
        with pytest.raises(CommandRefused):
            room.do("approve", item=item)
    room.do("approve", item=f"q:{question.key}")
    assert room.state.may_show(f"q:{question.key}")


anything = st.sampled_from([*STEPS, *VERDICTS, *ACTIVITIES, *PEOPLE, *SCENES, "next", "goto", "rename"]) | texts


@st.composite
def actions(draw: st.DrawFn, room: SampleRoom) -> Action:
    known = [f"{kind}:{r.key}{rest}" for r in room.responses for kind, rest in (("q", ""), ("n", ""), ("t", ":stars"))]
    return Action(
        id=draw(texts),
        action=draw(anything | st.sampled_from(["back", "show", "lock", "moderation", "remove", "restore", "archive"])),
        at=draw(st.sampled_from(["", "", position(room.state, room.now_ms)]) | texts),
        activity=draw(anything),
        item=draw(anything | st.sampled_from(known) if known else anything),
        participant=draw(anything),
        nickname=draw(texts),
        scene=draw(anything),
        on=draw(st.booleans()),
        by_s=draw(st.integers()),
        prize=draw(st.integers(-2, 4)),
    )


@given(st.data())
def test_any_action_in_any_room_is_carried_out_or_refused_and_nothing_between(data: st.DataObject) -> None:
    room = data.draw(rooms(max_steps=15))
    for _ in range(4):
        before = fold(room.info, room.control, room.responses)
        try:
            event = decide(room.state, data.draw(actions(room)), room.now_ms)
        except CommandRefused as refused:
            assert str(refused)
            assert room.state == before
            continue
        assert decode_control(encode(event)) == event
        room.control.append(event)
        room.state.apply(event)
        assert room.state.seq == len(room.control)
        assert room.state == fold(room.info, room.control, room.responses)
        if isinstance(event, Drawn):
            assert event.ticket == room.state.ticket(event.participant)
