"""What the room answered, activity by activity. Pure. Nobody is named, and a text of a phone stands here only when the
presenter has approved it: a report leaves the room, so what was merely not hidden does not do."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from webapp.room.items import question_item, quote_item
from webapp.room.state import RoomState
from webapp.talk.model import Activity, Ask, FieldKind, Quiz, Raffle, Survey
from webapp.views.stage import FieldResult, results

APPROVED = ("approved", "pinned")


@dataclass(frozen=True, slots=True)
class OptionCount:
    text: str
    correct: bool
    count: int
    share: int
    """Of the answers, 0 to 100."""


@dataclass(frozen=True, slots=True)
class QuizAnswers:
    title: str
    options: tuple[OptionCount, ...]
    answers: int
    right: int
    median_s: float | None
    """From the opening to the answer; None without answers."""
    kind: str = "quiz"

    @property
    def right_share(self) -> int | None:
        return round(100 * self.right / self.answers) if self.answers else None


@dataclass(frozen=True, slots=True)
class Question:
    question: str
    reply: str


@dataclass(frozen=True, slots=True)
class Asked:
    """`questions` are the approved ones."""

    title: str
    asked: int
    replied: int
    questions: tuple[Question, ...]
    kind: str = "ask"


@dataclass(frozen=True, slots=True)
class Forms:
    """As the stage has them, but with every approved text."""

    title: str
    forms: int
    fields: tuple[FieldResult, ...]
    kind: str = "survey"


@dataclass(frozen=True, slots=True)
class Draws:
    """Prize, and the winner's ticket."""

    title: str
    tickets: int
    draws: tuple[tuple[str, str], ...]
    kind: str = "raffle"


Answers = QuizAnswers | Asked | Forms | Draws


def answers(state: RoomState) -> list[Answers]:
    """Of every activity that was opened, in the talk's order."""
    return [_of(state, activity) for activity in state.talk.activities if state.of(activity.id).windows]


def _of(state: RoomState, activity: Activity) -> Answers:
    match activity:
        case Quiz():
            return _quiz(state, activity)
        case Ask():
            return _asked(state, activity)
        case Survey():
            return _forms(state, activity)
        case Raffle():
            winners = state.of(activity.id).winners
            draws = tuple((prize, winners[i].ticket) for i, prize in enumerate(activity.prizes) if i in winners)
            return Draws(activity.title, len(state.of(activity.id).entrants), draws)
    raise AssertionError(f"no such activity: {activity.kind}")


def _quiz(state: RoomState, quiz: Quiz) -> QuizAnswers:
    counts, total = state.tally(quiz)
    marks = [state.mark(quiz, answer.participant) for answer in state.counted_answers(quiz.id)]
    options = tuple(
        OptionCount(o.text, o.correct, counts[o.id], round(100 * counts[o.id] / total) if total else 0)
        for o in quiz.options
    )
    elapsed_s = [mark.elapsed_ms / 1000 for mark in marks if mark]
    right = sum(mark.right for mark in marks if mark)
    return QuizAnswers(quiz.title, options, total, right, median(elapsed_s) if elapsed_s else None)


def _asked(state: RoomState, ask: Ask) -> Asked:
    questions = state.questions(ask.id)
    replies = {q.key: state.reply(q.participant, q.id) for q in questions}
    said = {key: reply.text for key, reply in replies.items() if reply and not reply.failed}
    shown = tuple(
        Question(q.question, said.get(q.key, "")) for q in questions if state.verdict(question_item(q)) in APPROVED
    )
    return Asked(ask.title, len(questions), len(said), shown)


def _forms(state: RoomState, survey: Survey) -> Forms:
    forms = sorted(state.counted_forms(survey.id), key=lambda form: (form.at_ms, form.key))
    fields = []
    for field, result in zip(survey.fields, results(state, survey), strict=True):
        if field.kind is FieldKind.TEXT:
            texts = tuple(
                str(form.values[field.id])
                for form in forms
                if form.values.get(field.id) and state.verdict(quote_item(form, field.id)) in APPROVED
            )
            result = FieldResult(field.label, str(field.kind), result.count, quotes=texts)
        fields.append(result)
    return Forms(survey.title, len(forms), tuple(fields))
