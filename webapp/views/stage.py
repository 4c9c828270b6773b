"""What the projector shows. Pure; nothing here may be a secret, and nothing from a phone appears before it may."""

from __future__ import annotations

from dataclasses import dataclass

from webapp.room import raffle
from webapp.room.items import quote_item
from webapp.room.state import Phase, RoomState
from webapp.talk.model import Activity, Ask, Field, FieldKind, Kind, Quiz, Raffle, Survey
from webapp.views.phone import OptionView, QuizView, options, ordinal, public
from webapp.views.spike_mark import SpikeMark, spike_mark

BOARD_ROWS = 8
QUESTION_ROWS = 4
QUOTE_ROWS = 6
LOBBY_NAMES = 60


@dataclass(frozen=True, slots=True)
class BoardRow:
    rank: int
    name: str
    points: int
    right: int
    moved: int
    share: int
    """Length of the bar, 0 to 100, of the leader's points."""


@dataclass(frozen=True, slots=True)
class StageQuestion:
    question: str
    name: str
    reply: str
    live: bool
    pinned: bool


@dataclass(frozen=True, slots=True)
class Bar:
    label: str
    count: int
    share: int
    """Of the forms, 0 to 100."""


@dataclass(frozen=True, slots=True)
class FieldResult:
    """`bars` for ratings and choices; `average` for a rating; `quotes` (approved) for texts."""

    label: str
    kind: str
    count: int
    bars: tuple[Bar, ...] = ()
    average: float | None = None
    scale: int = 0
    quotes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PrizeView:
    prize: str
    winner: str
    ticket: str
    redrawn: int


@dataclass(frozen=True, slots=True)
class StageScreen:
    """`name` is the template: `lobby`, `quiz`, `leaderboard`, `podium`, `ask`, `questions`, `survey`, `raffle`,
    `ended`."""

    name: str
    code: str
    talk_title: str
    subtitle: str
    speaker: str
    join_url: str
    join_host: str
    now_ms: int
    joined: int
    """Of the audience: people, or in a rehearsal the scripted phones."""
    scripted: int
    """Scripted phones that are here."""
    rehearsal: bool
    """Nobody but scripted phones is here: what the screen counts and names is theirs."""
    simulated: bool
    locked: bool
    phase: Phase | None = None
    activity: QuizView | Ask | Survey | Raffle | None = None
    number: int = 0
    of_total: int = 0
    deadline_ms: int | None = None
    opened_ms: int | None = None
    answered: int = 0
    options: tuple[OptionView, ...] = ()
    names: tuple[str, ...] = ()
    board: tuple[BoardRow, ...] = ()
    final: bool = False
    questions: tuple[StageQuestion, ...] = ()
    asked: int = 0
    results: tuple[FieldResult, ...] = ()
    prizes: tuple[PrizeView, ...] = ()
    spike: SpikeMark | None = None
    entrants: int = 0
    commitment: str = ""
    seed: str = ""


def stage_screen(
    state: RoomState, now_ms: int, join_url: str, simulated: bool, live: dict[str, str] | None = None
) -> StageScreen:
    """The stage now. `join_url` is what the QR code says; `live` as in `phone_screen`."""
    activity = state.activity
    name = state.scene
    if state.archived_ms is not None:
        name = "ended"
    elif name == "auto":
        name = str(activity.kind) if activity else "lobby"
    common = {
        "name": name,
        "code": state.info.code,
        "talk_title": state.talk.title,
        "subtitle": state.talk.subtitle,
        "speaker": state.talk.speaker,
        "join_url": join_url,
        "join_host": join_url.split("//")[-1].split("/")[0],
        "now_ms": now_ms,
        "joined": len(state.audience),
        "scripted": state.scripted,
        "rehearsal": state.rehearsal,
        "simulated": simulated,
        "spike": spike_mark(state.spikes, now_ms),
        "locked": state.locked,
    }
    if activity is not None:
        progress = state.of(activity.id)
        window = progress.windows[-1] if progress.windows else None
        number, of_total = ordinal(state, activity)
        common |= {
            "activity": public(activity, progress.phase(now_ms)),
            "phase": progress.phase(now_ms),
            "number": number,
            "of_total": of_total,
            "deadline_ms": window.deadline_ms if window else None,
            "opened_ms": window.opened_ms if window else None,
            "answered": responded(state, activity),
        }
    match name:
        case "lobby":
            names = tuple(state.stage_name(p) for p in state.audience[-LOBBY_NAMES:])
            return StageScreen(names=names, **common)
        case "quiz":
            assert isinstance(activity, Quiz)
            return StageScreen(options=options(state, activity, common["phase"]), **common)
        case "leaderboard" | "podium" | "ended":
            return StageScreen(board=board(state), final=_final(state), **common)
        case "ask" | "questions":
            return StageScreen(questions=_questions(state, live or {}), asked=len(state.questions()), **common)
        case "survey":
            assert isinstance(activity, Survey)
            shown = common["phase"] is Phase.REVEALED
            return StageScreen(results=results(state, activity) if shown else (), **common)
        case "raffle":
            assert isinstance(activity, Raffle)
            return _raffle(state, activity, common)
    raise AssertionError(f"no such scene: {name}")


def responded(state: RoomState, activity: Activity) -> int:
    """How many participants have responded to this activity (questions for an ask)."""
    match activity.kind:
        case Kind.QUIZ:
            assert isinstance(activity, Quiz)
            return state.tally(activity)[1]
        case Kind.SURVEY:
            return sum(1 for _ in state.counted_forms(activity.id))
        case Kind.ASK:
            return len(state.questions(activity.id))
    return len(state.of(activity.id).entrants) or len(state.audience)


def board(state: RoomState, rows: int = BOARD_ROWS) -> tuple[BoardRow, ...]:
    table = state.standings()[:rows] if state.revealed() else []
    top = max((s.points for s in table), default=0)
    return tuple(
        BoardRow(
            s.rank,
            state.stage_name(s.participant),
            s.points,
            s.right,
            s.moved,
            round(100 * s.points / top) if top else 0,
        )
        for s in table
    )


def results(state: RoomState, survey: Survey) -> tuple[FieldResult, ...]:
    """Histograms of ratings and choices, and the quotes that may be shown, the pinned first."""
    return tuple(_result(state, survey, f) for f in survey.fields)


def _result(state: RoomState, survey: Survey, f: Field) -> FieldResult:
    forms = [form for form in state.counted_forms(survey.id) if form.values.get(f.id) not in (None, "", [])]
    if f.kind is FieldKind.TEXT:
        shown = [form for form in forms if state.may_show(quote_item(form, f.id))]
        shown.sort(key=lambda form: (state.verdict(quote_item(form, f.id)) != "pinned", form.at_ms, form.key))
        quotes = tuple(str(form.values[f.id]) for form in shown[:QUOTE_ROWS])
        return FieldResult(f.label, str(f.kind), len(forms), quotes=quotes)
    labels: list = list(range(1, f.scale + 1)) if f.kind is FieldKind.RATING else list(f.options)
    given = [v for form in forms for v in _as_list(form.values[f.id])]
    bars = tuple(
        Bar(str(label), given.count(label), round(100 * given.count(label) / len(forms)) if forms else 0)
        for label in labels
    )
    average = sum(given) / len(given) if f.kind is FieldKind.RATING and given else None
    return FieldResult(f.label, str(f.kind), len(forms), bars, average, f.scale if f.kind is FieldKind.RATING else 0)


def _as_list(value: int | str | list) -> list:
    return list(value) if isinstance(value, list | tuple) else [value]


def _questions(state: RoomState, live: dict[str, str]) -> tuple[StageQuestion, ...]:
    shown = [q for q in state.questions() if state.may_show(f"q:{q.key}")]
    shown.sort(key=lambda q: (state.verdict(f"q:{q.key}") != "pinned", -q.at_ms, q.id))
    views = []
    for q in shown[:QUESTION_ROWS]:
        reply = state.reply(q.participant, q.id)
        text = reply.text if reply else live.get(q.key, "")
        pinned = state.verdict(f"q:{q.key}") == "pinned"
        views.append(StageQuestion(q.question, state.stage_name(q.participant), text, reply is None, pinned))
    return tuple(views)


def _raffle(state: RoomState, activity: Raffle, common: dict) -> StageScreen:
    progress = state.of(activity.id)
    prizes = tuple(
        PrizeView(
            prize,
            state.stage_name(progress.winners[i].participant) if i in progress.winners else "",
            progress.winners[i].ticket if i in progress.winners else "",
            max(0, sum(1 for d in progress.draws if d.prize == i) - 1),
        )
        for i, prize in enumerate(activity.prizes)
    )
    return StageScreen(
        prizes=prizes,
        entrants=len(progress.entrants) or common["joined"],
        commitment=raffle.commitment(state.info.seed),
        seed=progress.draws[0].seed if progress.draws else "",
        **common,
    )


def _final(state: RoomState) -> bool:
    quizzes = [a for a in state.talk.activities if a.kind is Kind.QUIZ]
    return len(state.revealed()) == len(quizzes)
