"""What the presenter sees. Pure. Unlike the stage it shows everything, moderated or not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from webapp.room.commands import position
from webapp.room.items import name_item, question_item, quote_item
from webapp.room.state import Phase, RoomState
from webapp.talk.model import Activity, FieldKind, Kind, Quiz, Raffle, Survey
from webapp.views.phone import OptionView, ordinal
from webapp.views.stage import FieldResult, responded, results, stage_screen

AWAY_AFTER_MS = 40_000


@dataclass(frozen=True, slots=True)
class Presence:
    """What a phone last said of its link. `rtt_ms`: median of its last polls; `misses`: failed ones of the last 10."""

    seen_ms: int
    rtt_ms: int
    misses: int

    def quality(self, now_ms: int) -> str:
        """`good`, `fair`, `poor`, or `away` when it has not been heard for 40 s."""
        if now_ms - self.seen_ms > AWAY_AFTER_MS:
            return "away"
        if self.misses >= 3 or self.rtt_ms > 2000:
            return "poor"
        return "fair" if self.misses or self.rtt_ms > 600 else "good"


@dataclass(frozen=True, slots=True)
class Button:
    """One control action. `fields` go along with it; `primary` is the step that the running order suggests."""

    action: str
    label: str
    primary: bool = False
    fields: tuple[tuple[str, str], ...] = ()
    confirm: str = ""


@dataclass(frozen=True, slots=True)
class OrderRow:
    id: str
    kind: str
    title: str
    phase: str
    current: bool
    responses: int


@dataclass(frozen=True, slots=True)
class PersonRow:
    id: str
    name: str
    stage_name: str
    quality: str
    rtt_ms: int | None
    points: int
    removed: bool
    name_item: str
    """Set while a chosen nickname waits for a verdict."""


@dataclass(frozen=True, slots=True)
class ModerationRow:
    item: str
    kind: str
    """`question`, `quote` or `nickname`."""
    text: str
    by: str
    reply: str
    verdict: str
    on_stage: bool


@dataclass(frozen=True, slots=True)
class ConsoleScreen:
    code: str
    talk_title: str
    at: str
    """Goes along with each control call, see `Action.at`."""
    now_ms: int
    locked: bool
    moderation: bool
    archived: bool
    scene: str
    stage_name: str
    joined: int
    """Of the audience, see `RoomState.audience`; so are `here`, `qualities` and `people`."""
    scripted: int
    rehearsal: bool
    here: int
    qualities: tuple[tuple[str, int], ...]
    activity: Activity | None
    phase: Phase | None
    number: int
    of_total: int
    deadline_ms: int | None
    opened_ms: int | None
    answered: int
    options: tuple[OptionView, ...]
    """With live counts and solutions: for the presenter only."""
    results: tuple[FieldResult, ...]
    buttons: tuple[Button, ...]
    order: tuple[OrderRow, ...]
    people: tuple[PersonRow, ...]
    moderation_rows: tuple[ModerationRow, ...]
    """The undecided first, then the newest first."""
    pending: int
    next_title: str


PEOPLE_ROWS = 200
MODERATION_ROWS = 200


def console_screen(
    state: RoomState, now_ms: int, presence: Mapping[str, Presence], live: dict[str, str] | None = None
) -> ConsoleScreen:
    """The console now. `presence` by participant; `live` as in `phone_screen`."""
    activity = state.activity
    progress = state.of(activity.id) if activity else None
    window = progress.windows[-1] if progress and progress.windows else None
    phase = state.phase(now_ms)
    number, of_total = ordinal(state, activity) if activity else (0, 0)
    quality = {p: presence[p].quality(now_ms) if p in presence else "away" for p in state.audience}
    counts = tuple((q, sum(1 for v in quality.values() if v == q)) for q in ("good", "fair", "poor", "away"))
    rows = _moderation(state, live or {})
    index = state.talk.index(activity.id) if activity else -1
    following = state.talk.activities[index + 1 :]
    return ConsoleScreen(
        code=state.info.code,
        talk_title=state.talk.title,
        at=position(state, now_ms),
        now_ms=now_ms,
        locked=state.locked,
        moderation=state.moderation,
        archived=state.archived_ms is not None,
        scene=state.scene,
        stage_name=stage_screen(state, now_ms, "", False).name,
        joined=len(state.audience),
        scripted=state.scripted,
        rehearsal=state.rehearsal,
        here=sum(n for q, n in counts if q != "away"),
        qualities=counts,
        activity=activity,
        phase=phase,
        number=number,
        of_total=of_total,
        deadline_ms=window.deadline_ms if window else None,
        opened_ms=window.opened_ms if window else None,
        answered=responded(state, activity) if activity else 0,
        options=_options(state, activity) if isinstance(activity, Quiz) else (),
        results=results(state, activity) if isinstance(activity, Survey) else (),
        buttons=tuple(_buttons(state, activity, phase, bool(following))),
        order=tuple(
            OrderRow(a.id, str(a.kind), a.title, str(state.of(a.id).phase(now_ms)), a is activity, responded(state, a))
            for a in state.talk.activities
        ),
        people=_people(state, presence, quality),
        moderation_rows=tuple(rows[:MODERATION_ROWS]),
        pending=sum(1 for r in rows if r.verdict == "pending"),
        next_title=following[0].title if following else "",
    )


def _buttons(state: RoomState, activity: Activity | None, phase: Phase | None, more: bool) -> list[Button]:
    if state.archived_ms is not None:
        return []
    if activity is None:
        return [Button("next", "Start the talk", primary=True)]
    step: list[Button] = []
    if phase is Phase.READY:
        step = [Button("open", f"Open the {activity.kind}", primary=True)]
    elif phase is Phase.OPEN:
        step = [Button("close", "Close the entries" if activity.kind is Kind.RAFFLE else "Close", primary=True)]
        if isinstance(activity, Quiz):
            step.append(Button("extend", "+15 s", fields=(("by_s", "15"),)))
    elif phase is Phase.CLOSED and activity.kind in (Kind.QUIZ, Kind.SURVEY):
        step = [Button("reveal", "Reveal", primary=True)]
    elif phase is Phase.CLOSED and isinstance(activity, Raffle):
        step = _draws(state, activity)
    done = phase is Phase.REVEALED or (phase is Phase.CLOSED and not any(b.primary for b in step))
    if more:
        step.append(Button("next", "Next", primary=done))
    if phase in (Phase.CLOSED, Phase.REVEALED) and not state.of(activity.id).draws:
        confirm = "The solution has been shown. Open the question again?" if phase is Phase.REVEALED else ""
        step.append(Button("reopen", "Reopen", confirm=confirm if activity.kind is Kind.QUIZ else ""))
    if state.talk.activities[0] is not activity:
        step.append(Button("back", "Back"))
    return step


def _draws(state: RoomState, activity: Raffle) -> list[Button]:
    winners = state.of(activity.id).winners
    buttons = []
    for prize, title in enumerate(activity.prizes):
        fields = (("prize", str(prize)),)
        if prize in winners:
            name = state.nickname(winners[prize].participant)
            confirm = f"Draw another ticket for {title}, because {name} is not here?"
            buttons.append(Button("redraw", f"Redraw: {title}", fields=fields, confirm=confirm))
        else:
            first = not any(b.primary for b in buttons)
            buttons.append(Button("draw", f"Draw: {title}", primary=first, fields=fields))
    return buttons


def _options(state: RoomState, quiz: Quiz) -> tuple[OptionView, ...]:
    counts, total = state.tally(quiz)
    return tuple(
        OptionView(o.id, o.text, False, o.correct, counts[o.id], round(100 * counts[o.id] / total) if total else 0)
        for o in quiz.options
    )


def _people(state: RoomState, presence: Mapping[str, Presence], quality: Mapping[str, str]) -> tuple[PersonRow, ...]:
    points = {s.participant: s.points for s in state.standings()}
    rows = []
    for p in [*reversed(state.audience), *sorted(state.removed & state.joins.keys())][:PEOPLE_ROWS]:
        chosen = state.chosen_name(p)
        waiting = chosen and state.verdict(name_item(chosen)) == "pending" and p not in state.renamed
        rows.append(
            PersonRow(
                id=p,
                name=state.nickname(p),
                stage_name=state.stage_name(p),
                quality=quality.get(p, "away"),
                rtt_ms=presence[p].rtt_ms if p in presence else None,
                points=points.get(p, 0),
                removed=p in state.removed,
                name_item=name_item(chosen) if chosen and waiting else "",
            )
        )
    return tuple(rows)


def _moderation(state: RoomState, live: dict[str, str]) -> list[ModerationRow]:
    rows: list[tuple[int, ModerationRow]] = []

    def add(at_ms: int, item: str, kind: str, text: str, participant: str, reply: str = "") -> None:
        by = state.nickname(participant)
        row = ModerationRow(item, kind, text, by, reply, state.verdict(item), state.may_show(item))
        rows.append((at_ms, row))

    for q in state.questions():
        stored = state.reply(q.participant, q.id)
        add(
            q.at_ms,
            question_item(q),
            "question",
            q.question,
            q.participant,
            stored.text if stored else live.get(q.key, ""),
        )
    for survey in state.talk.activities:
        if isinstance(survey, Survey):
            for form in state.counted_forms(survey.id):
                for f in survey.fields:
                    if f.kind is FieldKind.TEXT and form.values.get(f.id):
                        add(form.at_ms, quote_item(form, f.id), "quote", str(form.values[f.id]), form.participant)
    for participant in state.audience:
        chosen = state.chosen_name(participant)
        if chosen and participant not in state.renamed:
            add(chosen.at_ms, name_item(chosen), "nickname", chosen.nickname, participant)
    rows.sort(key=lambda r: (r[1].verdict != "pending", -r[0], r[1].item))
    return [row for _, row in rows]
