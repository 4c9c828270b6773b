"""What phone, stage and console show, for each place in a talk."""

from __future__ import annotations

import pytest

from tests.sample_room import ASK, QUIZ, RAFFLE, SURVEY, SampleRoom, tour
from webapp.room.commands import Action, decide
from webapp.room.items import question_item
from webapp.room.scoring import Standing
from webapp.room.state import Phase
from webapp.views.console import Presence, console_screen
from webapp.views.phone import phone_screen
from webapp.views.stage import stage_screen

URL = "https://talk.test:8443/j/KWXM"


def stage(room: SampleRoom):
    return stage_screen(room.state, room.now_ms, URL, True)


def phone(room: SampleRoom, who: str = "ann"):
    return phone_screen(room.state, who, room.now_ms)


def test_a_late_joiner_sees_what_everybody_sees() -> None:
    room = SampleRoom()
    for number, at in enumerate(tour(room)):
        late = f"late{number}"
        room.join(late)
        mine, theirs = phone(room, late), phone(room, "cy")
        seen = [(s.name, s.activity, s.phase, s.version, s.deadline_ms, s.opened_ms, s.number) for s in (mine, theirs)]
        assert seen[0] == seen[1], at
        assert not mine.answered
        assert mine.nickname == f"Brave {late.title()}"


def test_every_place_in_a_talk_has_a_screen_on_phone_stage_and_console() -> None:
    room = SampleRoom()
    names = {"q1": "quiz", "q2": "quiz", "archived": "ended"}
    for at in tour(room):
        place, _, step = at.partition(" ")
        name = names.get(place, place)
        assert phone(room).name == name, at
        assert stage(room).name == ("leaderboard" if step == "leaderboard" else name), at
        console = console_screen(room.state, room.now_ms, {})
        assert console.activity == room.state.activity
        assert console.stage_name == stage(room).name
        if console.activity:
            assert console.phase == phone(room).phase or place == "archived"


def test_each_button_of_the_console_does_something_where_it_is_shown() -> None:
    room = SampleRoom()
    pressed = set()
    for at in tour(room):
        screen = console_screen(room.state, room.now_ms, {})
        assert sum(b.primary for b in screen.buttons) <= 1, at
        if at != "archived":
            assert screen.buttons, at
        for button in screen.buttons:
            details = {name: int(value) for name, value in button.fields}
            decide(room.state, Action(id="x", action=button.action, at=screen.at, **details), room.now_ms)
            pressed.add(button.action)
    assert pressed == {"next", "back", "open", "reopen", "close", "extend", "reveal", "draw", "redraw"}


def test_the_primary_buttons_alone_lead_through_the_whole_talk() -> None:
    room = SampleRoom().join("ann", "ben", "cy")
    seen = []
    for _ in range(40):
        screen = console_screen(room.state, room.now_ms, {})
        primary = next((b for b in screen.buttons if b.primary), None)
        if primary is None:
            break
        seen.append(primary.action)
        room.after(1).do(primary.action, at=screen.at, **{name: int(value) for name, value in primary.fields})
    assert seen == [
        *("next", "open", "close", "reveal") * 2,
        *("next", "open", "close"),
        *("next", "open", "close", "reveal"),
        *("next", "open", "close", "draw", "draw"),
    ]


def test_the_quiz_on_the_phone_from_ready_to_revealed() -> None:
    room = SampleRoom().join("ann", "ben")
    room.do("next")
    assert (phone(room).phase, phone(room).deadline_ms) == (Phase.READY, None)
    room.do("open")
    opened_ms = room.now_ms
    screen = phone(room)
    assert (screen.opened_ms, screen.deadline_ms) == (opened_ms, opened_ms + 30_000)
    assert (screen.number, screen.of_total, screen.players) == (1, 2, 2)
    answer = room.after(3).answer("ann", QUIZ.id, "b")
    screen = phone(room)
    assert screen.answered
    assert [o.id for o in screen.options if o.chosen] == ["b"]
    assert (screen.reply.url, screen.reply.live) == (f"/r/KWXM/replies/{answer.id}", True)
    assert screen.mark is screen.standing is None
    room.reply(answer, "Bold!")
    room.do("reveal")
    screen = phone(room)
    assert (screen.mark.right, screen.mark.points) == (True, 950)
    assert screen.standing == Standing("ann", 950, 1, 1, 1)
    assert (screen.reply.text, screen.reply.live) == ("Bold!", False)
    other = phone(room, "ben")
    assert (other.mark, other.standing.rank, other.answered, other.late) == (None, 2, False, False)


def test_an_answer_that_came_too_late_is_said_to_be_late() -> None:
    room = SampleRoom().join("ann").start(QUIZ.id)
    room.do("close")
    room.after(2).answer("ann", QUIZ.id, "b")
    assert (phone(room).answered, phone(room).late) == (False, True)


def test_removed_and_ended_take_the_place_of_everything_else() -> None:
    room = SampleRoom().join("ann", "ben").start(QUIZ.id)
    room.after(1).answer("ann", QUIZ.id, "b")
    room.do("reveal")
    room.do("remove", participant="ann")
    assert phone(room).name == "removed"
    room.do("archive")
    assert phone(room).name == "removed"
    assert phone(room, "ben").name == "ended"
    assert phone(room, "ben").standing.rank == 1
    assert stage(room).name == "ended"


def test_questions_left_counts_down_and_pinned_ones_are_marked() -> None:
    room = SampleRoom().join("ann").start(ASK.id)
    assert phone(room).questions_left == 2
    first = room.after(1).ask("ann", "Why?")
    second = room.after(1).ask("ann", "How?")
    room.do("pin", item=question_item(first))
    screen = phone(room)
    assert screen.questions_left == 0
    assert [(q.question, q.on_stage) for q in screen.questions] == [("How?", False), ("Why?", True)]
    room.do("approve", item=question_item(second))
    assert [(q.question, q.pinned, q.live) for q in stage(room).questions] == [
        ("Why?", True, True),
        ("How?", False, True),
    ]


def test_a_survey_keeps_what_the_phone_sent_and_shows_all_forms_once_revealed() -> None:
    room = SampleRoom().join("ann", "ben").start(SURVEY.id)
    room.after(1).fill("ann", stars=2, pace="slow", topics=["pods", "spot"])
    room.after(1).fill("ann", stars=4, topics=["pods"])
    room.after(1).fill("ben", stars=5, topics=["spot"], comment="Nice")
    screen = phone(room)
    assert screen.saved
    assert {f.id: f.value for f in screen.fields} == {"stars": 4, "pace": None, "topics": ["pods"], "comment": None}
    room.do("reveal")
    stars, pace, topics, comment = stage(room).results
    assert (stars.average, [b.count for b in stars.bars]) == (4.5, [0, 0, 0, 1, 1])
    assert (pace.count, [b.share for b in pace.bars]) == (0, [0, 0])
    assert [(b.label, b.count, b.share) for b in topics.bars] == [("pods", 1, 50), ("nodes", 0, 0), ("spot", 1, 50)]
    assert (comment.count, comment.quotes) == (1, ())


def test_the_raffle_shows_tickets_prizes_and_redraws() -> None:
    room = SampleRoom().join("ann", "ben", "cy").start(RAFFLE.id)
    assert phone(room).entered
    room.do("close")
    room.join("late")
    assert not phone(room, "late").entered
    assert stage(room).entrants == 3
    room.do("draw", prize=1)
    first = room.state.of(RAFFLE.id).draws[0].participant
    assert phone(room, first).won == ("Mug",)
    room.do("redraw", prize=1)
    assert phone(room, first).won == ()
    book, mug = stage(room).prizes
    assert (book.winner, book.redrawn, mug.redrawn) == ("", 0, 1)
    assert mug.ticket == phone(room, room.state.of(RAFFLE.id).draws[1].participant).ticket


def test_the_board_has_ranks_names_and_bars_of_the_leaders_length() -> None:
    room = SampleRoom().join("ann", "ben", "cy").start(QUIZ.id)
    room.answer("ann", QUIZ.id, "b")
    room.after(15).answer("ben", QUIZ.id, "b")
    room.do("reveal")
    room.do("show", scene="podium")
    screen = stage(room)
    assert [(r.rank, r.name, r.points, r.share) for r in screen.board] == [
        (1, "Brave Ann", 1000, 100),
        (2, "Brave Ben", 750, 75),
        (3, "Brave Cy", 0, 0),
    ]
    assert not screen.final


def test_the_stage_names_the_host_that_phones_go_to() -> None:
    screen = stage(SampleRoom())
    assert (screen.join_url, screen.join_host, screen.simulated) == (URL, "talk.test:8443", True)


@pytest.mark.parametrize(
    ("rtt_ms", "misses", "age_s", "quality"),
    [
        (80, 0, 0, "good"),
        (600, 0, 40, "good"),
        (601, 0, 0, "fair"),
        (80, 1, 0, "fair"),
        (2001, 0, 0, "poor"),
        (80, 3, 0, "poor"),
        (80, 0, 40.001, "away"),
    ],
)
def test_the_quality_of_a_link(rtt_ms: int, misses: int, age_s: float, quality: str) -> None:
    assert Presence(1000, rtt_ms, misses).quality(1000 + round(age_s * 1000)) == quality


def test_the_console_counts_who_is_here_and_what_waits() -> None:
    room = SampleRoom().join("ann", "ben", "cy").start(ASK.id)
    room.after(1).ask("ann", "Why?")
    room.name("ben", "Bee")
    presence = {"ann": Presence(room.now_ms, 50, 0), "ben": Presence(room.now_ms, 50, 5)}
    screen = console_screen(room.state, room.now_ms, presence)
    assert (screen.joined, screen.here, screen.pending) == (3, 2, 2)
    assert dict(screen.qualities) == {"good": 1, "fair": 0, "poor": 1, "away": 1}
    assert [(r.kind, r.text, r.by, r.on_stage) for r in screen.moderation_rows] == [
        ("nickname", "Bee", "Bee", False),
        ("question", "Why?", "Brave Ann", False),
    ]
    assert [(p.name, p.stage_name) for p in screen.people] == [
        ("Brave Cy", "Brave Cy"),
        ("Bee", "Brave Ben"),
        ("Brave Ann", "Brave Ann"),
    ]
