"""That no screen knows what its viewer may not know yet.

Mostly by comparison: two rooms that differ only in a secret are led through the same talk, and must look the same for
as long as it is one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from tests.sample_room import ASK, QUIZ, RAFFLE, SEED, SEVERAL, SURVEY, TALK, SampleRoom, other_solutions, tour
from webapp.room.items import name_item, question_item, quote_item
from webapp.views.phone import PhoneScreen, phone_screen
from webapp.views.stage import StageScreen, stage_screen

SCENES = ("auto", "lobby", "leaderboard", "questions", "podium")


def phone(room: SampleRoom, who: str = "cy") -> PhoneScreen:
    return phone_screen(room.state, who, room.now_ms)


def stage(room: SampleRoom) -> StageScreen:
    return stage_screen(room.state, room.now_ms, "http://talk.test/j/KWXM", False)


def side_by_side(one: SampleRoom, other: SampleRoom) -> Iterator[str]:
    for at, same in zip(tour(one), tour(other), strict=True):
        assert at == same
        yield at


def test_nothing_tells_the_solution_before_it_is_shown() -> None:
    one, other = SampleRoom(), SampleRoom(other_solutions(TALK))
    told: list[str] = []
    for at in side_by_side(one, other):
        seen = [(phone(room), phone(room, "ann"), stage(room)) for room in (one, other)]
        if seen[0] != seen[1]:
            told.append(at)
    assert told == ["q1 revealed", "q1 leaderboard", "q2 revealed", "q2 leaderboard", "archived"]


def test_a_reopened_question_hides_its_solution_again() -> None:
    one, other = SampleRoom(), SampleRoom(other_solutions(TALK))
    for room in (one, other):
        room.join("ann", "cy").start(QUIZ.id).after(2).answer("ann", QUIZ.id, "b")
        for step in ("reveal", "reopen"):
            room.do(step)
    for room_scene in SCENES:
        for room in (one, other):
            room.do("show", scene=room_scene)
        assert phone(one) == phone(other)
        assert stage(one) == stage(other)


@pytest.mark.parametrize("quiz", [QUIZ, SEVERAL])
def test_a_screen_says_whether_several_may_be_chosen_and_what_the_solution_is_once_shown(quiz) -> None:
    room = SampleRoom().join("ann").start(quiz.id)
    for screen in (phone(room, "ann"), stage(room)):
        assert screen.activity.several == quiz.several
        assert screen.activity.explanation == ""
        assert quiz.explanation not in repr(screen)
        assert {o.correct for o in screen.options} == {None}
    room.do("reveal")
    for screen in (phone(room, "ann"), stage(room)):
        assert screen.activity.explanation == quiz.explanation
        assert {o.id for o in screen.options if o.correct} == quiz.correct


def test_nobody_sees_how_others_answered_before_it_is_closed() -> None:
    def answered(choice: str) -> SampleRoom:
        room = SampleRoom().join("ann", "cy").start(QUIZ.id)
        room.after(2).answer("ann", QUIZ.id, choice)
        return room

    one, other = answered("a"), answered("c")
    for scene in SCENES:
        for room in (one, other):
            room.do("show", scene=scene)
        assert stage(one) == stage(other)
        assert phone(one) == phone(other)
    assert {o.count for o in phone(one).options} == {None}
    assert phone(one, "ann").options[0].chosen
    for room in (one, other):
        room.do("show", scene="auto")
        room.after(40)
    assert stage(one) != stage(other)
    assert [o.count for o in stage(one).options] == [1, 0, 0]
    assert [o.share for o in phone(other).options] == [0, 0, 100]


def test_no_result_of_a_survey_is_on_stage_before_it_is_shown() -> None:
    rooms = [SampleRoom().join("ann", "cy").start(SURVEY.id) for _ in range(2)]
    for room, stars in zip(rooms, (1, 5), strict=True):
        room.after(1).fill("ann", stars=stars)
        room.do("close")
    assert stage(rooms[0]) == stage(rooms[1])
    assert phone(rooms[0]) == phone(rooms[1])
    rooms[0].do("reveal")
    assert stage(rooms[0]).results[0].average == 1


def say_nickname(room: SampleRoom, text: str) -> str:
    return name_item(room.name("ann", text))


def say_question(room: SampleRoom, text: str) -> str:
    asked = room.ask("ann", text)
    room.reply(asked, f"You asked: {text}")
    return question_item(asked)


def say_quote(room: SampleRoom, text: str) -> str:
    return quote_item(room.fill("ann", stars=5, comment=text), "comment")


SAY: list[tuple[str, Callable[[SampleRoom, str], str]]] = [
    (QUIZ.id, say_nickname),
    (RAFFLE.id, say_nickname),
    (ASK.id, say_question),
    (SURVEY.id, say_quote),
]


@pytest.mark.parametrize(("activity", "say"), SAY)
def test_no_text_of_a_phone_is_on_stage_before_the_presenter_lets_it(activity: str, say) -> None:
    room = SampleRoom().join("ann", "ben").start(activity)
    item = say(room.after(1), "UNHEARD")

    def shown() -> bool:
        seen = []
        for scene in SCENES:
            room.do("show", scene=scene)
            seen.append(repr(stage(room)))
        return "UNHEARD" in "".join(seen)

    if activity != ASK.id:
        room.do("close")
    if activity in (QUIZ.id, SURVEY.id):
        room.do("reveal")
    if activity == RAFFLE.id:
        room.do("draw", prize=0)
        room.do("draw", prize=1)
    assert not shown()
    for verdict, visible in (("approve", True), ("hide", False), ("pin", True), ("unpin", True), ("pend", False)):
        room.do(verdict, item=item)
        assert shown() is visible, verdict
    room.do("moderation", on=False)
    assert shown()
    room.do("hide", item=item)
    assert not shown()


@pytest.mark.parametrize(("activity", "say"), [row for row in SAY if row[0] != RAFFLE.id])  # a prize stays won
def test_what_a_removed_participant_said_leaves_the_stage(activity: str, say) -> None:
    room = SampleRoom(replace(TALK, moderation=False)).join("ann", "ben").start(activity)
    say(room.after(1), "UNHEARD")
    if activity in (QUIZ.id, SURVEY.id):
        room.do("reveal")
    room.do("remove", participant="ann")
    for scene in SCENES:
        room.do("show", scene=scene)
        assert "UNHEARD" not in repr(stage(room))


def test_a_new_name_waits_while_the_generated_one_stands_on_stage() -> None:
    room = SampleRoom().join("ann")
    approved = room.name("ann", "Ada")
    room.do("approve", item=name_item(approved))
    assert stage(room).names == ("Ada",)
    room.after(1).name("ann", "UNHEARD")
    assert stage(room).names == ("Brave Ann",)
    assert phone(room, "ann").nickname == "UNHEARD"
    assert phone(room, "ann").nickname_pending


def test_the_seed_is_nowhere_before_the_first_draw() -> None:
    room = SampleRoom()
    for at in tour(room):
        shown = SEED in repr((stage(room), phone(room), phone(room, "ann")))
        assert shown == (at == "raffle drawn"), at
        assert stage(room).commitment in ("", phone(room).commitment)


def test_no_participants_id_is_ever_on_stage_or_on_anothers_phone() -> None:
    people = {"ann": "1d0000000000000a", "ben": "1d0000000000000b", "cy": "1d0000000000000c"}

    class Renamed(SampleRoom):
        def add(self, response):
            return super().add(replace(response, participant=people.get(response.participant, response.participant)))

    room = Renamed()
    room.do("moderation", on=False)
    for at in tour(room):
        others = repr(phone_screen(room.state, people["cy"], room.now_ms)).replace(people["cy"], "mine")
        seen = [others]
        if at != "archived":
            for scene in (*SCENES[1:], "auto"):
                room.do("show", scene=scene)
                seen.append(repr(stage(room)))
        assert "1d00000000" not in "".join(seen), at


def test_one_phone_sees_nothing_that_another_sent() -> None:
    room = SampleRoom(replace(TALK, moderation=False))
    for at in tour(room):
        screen = phone(room, "cy")
        assert "What is a pod?" not in repr(screen), at
        assert "Good pace" not in repr(screen), at
        assert screen.reply is None
        assert screen.questions == ()
