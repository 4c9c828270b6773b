"""What one phone shows: the room's state seen by one participant. Pure; the templates in `templates/phone` draw it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from webapp.room import raffle
from webapp.room.names import NICKNAME_MAX
from webapp.room.scoring import Mark, Standing
from webapp.room.state import Phase, RoomState
from webapp.talk.model import Activity, Ask, Code, Kind, Picture, Quiz, Raffle, Survey


@dataclass(frozen=True, slots=True)
class QuizView:
    """A question as it may be shown: the options stand apart; `explanation` is empty until the solution is known."""

    id: str
    title: str
    time_limit_s: int
    points: int
    several: bool
    explanation: str
    code: Code | None
    picture: Picture | None
    kind: Kind = Kind.QUIZ


@dataclass(frozen=True, slots=True)
class OptionView:
    """`correct`, `count` and `share` (0 to 100) are None until they may be known."""

    id: str
    text: str
    chosen: bool = False
    correct: bool | None = None
    count: int | None = None
    share: int | None = None


@dataclass(frozen=True, slots=True)
class ReplyView:
    """The LLM's text for one response. While `live` it streams from `url`; `text` is what there is so far."""

    response_id: str
    url: str
    text: str = ""
    live: bool = True
    failed: bool = False


@dataclass(frozen=True, slots=True)
class QuestionView:
    question: str
    reply: ReplyView
    on_stage: bool = False


@dataclass(frozen=True, slots=True)
class FieldView:
    """One survey question with what this phone answered so far."""

    id: str
    label: str
    kind: str
    required: bool
    options: tuple[str, ...]
    scale: int
    low: str
    high: str
    max_length: int
    value: int | str | list[str] | None


@dataclass(frozen=True, slots=True)
class PhoneScreen:
    """`name` is the template: `lobby`, `quiz`, `ask`, `survey`, `raffle`, `ended` or `removed`."""

    name: str
    code: str
    talk_title: str
    version: int
    now_ms: int
    nickname: str
    nickname_pending: bool = False
    nickname_max: int = NICKNAME_MAX
    phase: Phase | None = None
    activity: QuizView | Ask | Survey | Raffle | None = None
    number: int = 0
    of_total: int = 0
    deadline_ms: int | None = None
    opened_ms: int | None = None
    players: int = 0
    # quiz
    options: tuple[OptionView, ...] = ()
    answered: bool = False
    late: bool = False
    mark: Mark | None = None
    standing: Standing | None = None
    reply: ReplyView | None = None
    # ask
    questions: tuple[QuestionView, ...] = ()
    questions_left: int = 0
    # survey
    fields: tuple[FieldView, ...] = ()
    saved: bool = False
    # raffle
    ticket: str = ""
    won: tuple[str, ...] = ()
    draws: int = 0
    entered: bool = False
    passed_over: bool = False
    commitment: str = ""
    prizes: tuple[str, ...] = field(default_factory=tuple)


def ordinal(state: RoomState, activity: Activity) -> tuple[int, int]:
    """(3, 9) for the third of nine activities of this kind."""
    same = [a.id for a in state.talk.activities if a.kind is activity.kind]
    return same.index(activity.id) + 1, len(same)


def public(activity: Activity, phase: Phase) -> QuizView | Ask | Survey | Raffle:
    """The activity without what nobody may know in this phase."""
    if not isinstance(activity, Quiz):
        return activity
    return QuizView(
        id=activity.id,
        title=activity.title,
        time_limit_s=activity.time_limit_s,
        points=activity.points,
        several=activity.several,
        explanation=activity.explanation if phase is Phase.REVEALED else "",
        code=activity.code,
        picture=activity.picture,
    )


def options(state: RoomState, quiz: Quiz, phase: Phase, chosen: tuple[str, ...] = ()) -> tuple[OptionView, ...]:
    """The options as they may be shown in `phase`: counts once closed, solutions once revealed."""
    revealed, counted = phase is Phase.REVEALED, phase in (Phase.CLOSED, Phase.REVEALED)
    counts, total = state.tally(quiz) if counted else ({}, 0)
    return tuple(
        OptionView(
            id=o.id,
            text=o.text,
            chosen=o.id in chosen,
            correct=o.correct if revealed else None,
            count=counts[o.id] if counted else None,
            share=(round(100 * counts[o.id] / total) if total else 0) if counted else None,
        )
        for o in quiz.options
    )


def phone_screen(state: RoomState, participant: str, now_ms: int, live: Mapping[str, str] | None = None) -> PhoneScreen:
    """The screen of `participant`. `live` maps `participant:response id` to the text that has streamed so far."""
    chosen = state.chosen_name(participant)
    common = {
        "code": state.info.code,
        "talk_title": state.talk.title,
        "version": state.version,
        "now_ms": now_ms,
        "nickname": state.nickname(participant),
        "nickname_pending": bool(chosen) and state.stage_name(participant) != state.nickname(participant),
        "players": len(state.audience),
    }
    if participant in state.removed:
        return PhoneScreen(name="removed", **common)
    if state.archived_ms is not None:
        return PhoneScreen(name="ended", standing=_ranked(state, participant), **common)
    activity = state.activity
    if activity is None:
        return PhoneScreen(name="lobby", **common)
    progress = state.of(activity.id)
    number, of_total = ordinal(state, activity)
    window = progress.windows[-1] if progress.windows else None
    common |= {
        "name": str(activity.kind),
        "phase": progress.phase(now_ms),
        "activity": public(activity, progress.phase(now_ms)),
        "number": number,
        "of_total": of_total,
        "deadline_ms": window.deadline_ms if window else None,
        "opened_ms": window.opened_ms if window else None,
    }
    match activity:
        case Quiz():
            return _quiz(state, participant, activity, common, live or {})
        case Ask():
            return _ask(state, participant, activity, common, live or {})
        case Survey():
            return _survey(state, participant, activity, common)
        case Raffle():
            return _raffle(state, participant, activity, common)


def _quiz(state: RoomState, participant: str, quiz: Quiz, common: dict, live: Mapping[str, str]) -> PhoneScreen:
    phase = common["phase"]
    answer = state.answer(quiz.id, participant)
    sent_late = answer is None and bool(state.answers.get(quiz.id, {}).get(participant))
    revealed = phase is Phase.REVEALED
    return PhoneScreen(
        options=options(state, quiz, phase, answer.choice if answer else ()),
        answered=answer is not None,
        late=sent_late,
        mark=state.mark(quiz, participant) if revealed else None,
        standing=_ranked(state, participant) if revealed else None,
        reply=_reply(state, participant, answer.id, live) if answer else None,
        **common,
    )


def _ask(state: RoomState, participant: str, ask: Ask, common: dict, live: Mapping[str, str]) -> PhoneScreen:
    mine = state.questions_of(participant, ask.id)
    return PhoneScreen(
        questions=tuple(
            QuestionView(
                q.question, _reply(state, participant, q.id, live), on_stage=state.verdict(f"q:{q.key}") == "pinned"
            )
            for q in reversed(mine)
        ),
        questions_left=max(0, ask.max_questions - len(mine)),
        **common,
    )


def _survey(state: RoomState, participant: str, survey: Survey, common: dict) -> PhoneScreen:
    form = state.form(survey.id, participant)
    values = form.values if form else {}
    fields = tuple(
        FieldView(
            f.id,
            f.label,
            str(f.kind),
            f.required,
            f.options,
            f.scale,
            f.low,
            f.high,
            f.max_length,
            values.get(f.id),
        )
        for f in survey.fields
    )
    return PhoneScreen(fields=fields, saved=form is not None, **common)


def _raffle(state: RoomState, participant: str, raffle_activity: Raffle, common: dict) -> PhoneScreen:
    progress = state.of(raffle_activity.id)
    won = tuple(
        raffle_activity.prizes[prize] for prize, d in sorted(progress.winners.items()) if d.participant == participant
    )
    ticket = state.ticket(participant)
    entered = ticket in progress.entrants if common["phase"] is Phase.CLOSED else common["phase"] is Phase.OPEN
    return PhoneScreen(
        ticket=ticket,
        won=won,
        draws=len(progress.winners),
        entered=entered,
        passed_over=not won and any(d.participant == participant for d in progress.draws),
        commitment=raffle.commitment(state.info.seed),
        prizes=raffle_activity.prizes,
        **common,
    )


def _ranked(state: RoomState, participant: str) -> Standing | None:
    return state.standing(participant) if state.revealed() else None


def _reply(state: RoomState, participant: str, response_id: str, live: Mapping[str, str]) -> ReplyView:
    stored = state.reply(participant, response_id)
    url = f"/r/{state.info.code}/replies/{response_id}"
    if stored is None:
        return ReplyView(response_id, url, text=live.get(f"{participant}:{response_id}", ""))
    return ReplyView(response_id, url, text=stored.text, live=False, failed=stored.failed)
