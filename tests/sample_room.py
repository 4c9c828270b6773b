"""A small talk with one activity of each kind, and a room of it that tests drive: the presenter by commands, phones by
events, the clock by hand. Nothing here does I/O."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from webapp.room.commands import Action, decide
from webapp.room.events import Answered, Asked, Control, Joined, Named, Replied, Response, Surveyed
from webapp.room.info import RoomInfo
from webapp.room.state import RoomState
from webapp.talk.model import Ask, Field, FieldKind, Option, Quiz, Raffle, Survey, Talk

SEED = "5eed" * 16
T0_MS = 1_700_000_000_000

QUIZ = Quiz(
    "q1",
    "Which letter is second?",
    (Option("a", "Alpha"), Option("b", "Beta", correct=True), Option("c", "Gamma")),
    time_limit_s=30,
    points=1000,
    explanation="Beta follows alpha.",
)
SEVERAL = Quiz(
    "q2",
    "Which are even?",
    (Option("a", "Two", correct=True), Option("b", "Three"), Option("c", "Four", correct=True)),
    time_limit_s=20,
    points=500,
    explanation="Two and four can be halved.",
)
ASK = Ask("ask", "Ask the model", max_questions=2)
SURVEY = Survey(
    "survey",
    "How was it?",
    (
        Field("stars", "Stars", FieldKind.RATING, required=True),
        Field("pace", "Pace", FieldKind.CHOICE, options=("slow", "fast")),
        Field("topics", "Topics", FieldKind.CHOICES, options=("pods", "nodes", "spot")),
        Field("comment", "Comment", FieldKind.TEXT, max_length=40),
    ),
)
RAFFLE = Raffle("raffle", "Win", ("Book", "Mug"))
TALK = Talk("A sample", (QUIZ, SEVERAL, ASK, SURVEY, RAFFLE))


class SampleRoom:
    """The room `KWXM`. `control` and `responses` are its log so far, `state` what that makes."""

    def __init__(self, talk: Talk = TALK, seed: str = SEED) -> None:
        self.info = RoomInfo("KWXM", talk, T0_MS, seed)
        self.now_ms = T0_MS
        self.control: list[Control] = []
        self.responses: list[Response] = []
        self.state = RoomState(self.info, moderation=talk.moderation)

    def after(self, seconds: float) -> SampleRoom:
        self.now_ms += round(seconds * 1000)
        return self

    def do(self, action: str, **details) -> Control:
        """The presenter's action, now. Raises CommandRefused."""
        event = decide(self.state, Action(id=f"act{len(self.control)}", action=action, **details), self.now_ms)
        self.control.append(event)
        self.state.apply(event)
        return event

    def start(self, activity: str) -> SampleRoom:
        """Goes to an activity and opens it."""
        self.do("goto", activity=activity)
        self.do("open")
        return self

    def add(self, response: Response) -> Response:
        self.responses.append(response)
        self.state.add(response)
        return response

    def join(self, *participants: str) -> SampleRoom:
        for who in participants:
            self.add(Joined(id="join", participant=who, at_ms=self.now_ms, nickname=f"Brave {who.title()}"))
        return self

    def name(self, who: str, nickname: str) -> Response:
        return self.add(Named(id=self._id(), participant=who, at_ms=self.now_ms, nickname=nickname))

    def answer(self, who: str, activity: str, *choice: str) -> Response:
        return self.add(Answered(id=self._id(), participant=who, at_ms=self.now_ms, activity=activity, choice=choice))

    def ask(self, who: str, question: str) -> Response:
        return self.add(Asked(id=self._id(), participant=who, at_ms=self.now_ms, activity="ask", question=question))

    def fill(self, who: str, **values) -> Response:
        return self.add(Surveyed(id=self._id(), participant=who, at_ms=self.now_ms, activity="survey", values=values))

    def reply(self, to: Response, text: str) -> Response:
        return self.add(
            Replied(id=f"reply-{to.id}", participant=to.participant, at_ms=self.now_ms, to=to.id, text=text)
        )

    def _id(self) -> str:
        return f"response{len(self.responses)}"


def other_solutions(talk: Talk) -> Talk:
    """The same talk as far as anybody may know before a reveal: other right options, as many, and explanations."""

    def turned(quiz: Quiz) -> Quiz:
        flags = [o.correct for o in quiz.options]
        options = zip(quiz.options, [*flags[1:], flags[0]], strict=True)
        return replace(
            quiz,
            options=tuple(replace(o, correct=flag) for o, flag in options),
            explanation=f"Not that. {quiz.explanation}",
        )

    return replace(talk, activities=tuple(turned(a) if isinstance(a, Quiz) else a for a in talk.activities))


def tour(room: SampleRoom) -> Iterator[str]:
    """A whole talk, step by step. Yields what the room is at after each step."""
    room.join("ann", "ben", "cy")
    yield "lobby"
    for quiz, right, wrong in ((QUIZ, ("b",), ("a",)), (SEVERAL, ("a", "c"), ("a",))):
        room.do("next")
        yield f"{quiz.id} ready"
        room.do("open")
        yield f"{quiz.id} open"
        room.after(3).answer("ann", quiz.id, *right)
        room.after(3).answer("ben", quiz.id, *wrong)
        yield f"{quiz.id} answered"
        room.do("close")
        yield f"{quiz.id} closed"
        room.after(5).do("reveal")
        yield f"{quiz.id} revealed"
        room.do("show", scene="leaderboard")
        yield f"{quiz.id} leaderboard"
    room.do("next")
    room.do("open")
    asked = room.after(1).ask("ann", "What is a pod?")
    yield "ask open"
    room.reply(asked, "A pod is a group.")
    yield "ask replied"
    room.do("close")
    yield "ask closed"
    room.do("next")
    room.do("open")
    room.after(1).fill("ben", stars=4, comment="Good pace")
    yield "survey open"
    room.do("close")
    yield "survey closed"
    room.do("reveal")
    yield "survey revealed"
    room.do("next")
    room.do("open")
    yield "raffle open"
    room.do("close")
    yield "raffle closed"
    room.do("draw", prize=0)
    yield "raffle drawn"
    room.do("archive")
    yield "archived"
