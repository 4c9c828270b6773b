"""What a room is: a pure fold of its events.

`fold(info, control events in order, set of responses) -> RoomState`. Responses join like a semilattice: any order,
any repetition and any split gives the same state. So what depends on both kinds (does this answer count? how many
points?) is worked out when it is read, never when an event arrives, and no event is ever refused here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from webapp.room import raffle, spikes
from webapp.room.events import (
    AUDIENCE,
    Answered,
    Archived,
    Asked,
    Closed,
    Control,
    Drawn,
    Extended,
    Joined,
    LobbyLocked,
    Moderated,
    ModerationSet,
    Moved,
    Named,
    Opened,
    Removed,
    Renamed,
    Replied,
    Response,
    Revealed,
    Shown,
    SpikeEvent,
    Surveyed,
    encode,
)
from webapp.room.info import RoomInfo
from webapp.room.items import name_item
from webapp.room.progress import Phase, Progress, Window
from webapp.room.scoring import Mark, Standing, mark, standings
from webapp.talk.model import Activity, Kind, Quiz, Talk


@dataclass
class RoomState:
    """See `fold`. `seq` counts control events; `version` is the seq of the last one that phones must know of."""

    info: RoomInfo
    seq: int = 0
    version: int = 0
    current: str | None = None
    scene: str = "auto"
    locked: bool = False
    moderation: bool = True
    archived_ms: int | None = None
    progress: dict[str, Progress] = field(default_factory=dict)
    spikes: dict[str, spikes.Spike] = field(default_factory=dict)
    verdicts: dict[str, str] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)
    responses: dict[str, Response] = field(default_factory=dict)
    # From here on `responses` again, sorted:
    joins: dict[str, list[Joined]] = field(default_factory=dict, compare=False, repr=False)
    given_names: set[str] = field(default_factory=set, compare=False, repr=False)
    names: dict[str, list[Named]] = field(default_factory=dict, compare=False, repr=False)
    answers: dict[str, dict[str, list[Answered]]] = field(default_factory=dict, compare=False, repr=False)
    forms: dict[str, dict[str, list[Surveyed]]] = field(default_factory=dict, compare=False, repr=False)
    asked: dict[str, list[Asked]] = field(default_factory=dict, compare=False, repr=False)
    replies: dict[str, list[Replied]] = field(default_factory=dict, compare=False, repr=False)
    # Worked out when first read, and kept until what they rest on may have changed: a thousand screens ask at once.
    _present: list[str] | None = field(default=None, compare=False, repr=False)
    _people: list[str] | None = field(default=None, compare=False, repr=False)
    _tallies: dict[str, tuple[dict[str, int], int]] = field(default_factory=dict, compare=False, repr=False)
    _standings: list[Standing] | None = field(default=None, compare=False, repr=False)

    # ---- folding

    def apply(self, event: Control) -> None:
        """The next control event. Order matters here, and only here."""
        self.seq += 1
        match event:
            case Moved(activity=activity):
                self._close_current(event.at_ms)
                self.current, self.scene = activity, "auto"
            case Opened(activity=activity, duration_s=duration_s):
                if self.current != activity:
                    self._close_current(event.at_ms)
                self.current, self.scene = activity, "auto"
                progress = self._progress(activity)
                progress.revealed_ms = None
                deadline_ms = None if duration_s is None else event.at_ms + duration_s * 1000
                progress.windows.append(Window(event.at_ms, deadline_ms))
            case Extended(activity=activity, by_s=by_s):
                self._extend(activity, by_s)
            case Closed(activity=activity, entrants=entrants):
                self._close(activity, event.at_ms)
                self._progress(activity).entrants = entrants
            case Revealed(activity=activity):
                self._close(activity, event.at_ms)
                self._progress(activity).revealed_ms = event.at_ms
                self.scene = "auto"
            case Drawn(activity=activity):
                self._progress(activity).draws.append(event)
            case Shown(scene=scene):
                self.scene = scene
            case LobbyLocked(on=on):
                self.locked = on
            case ModerationSet(on=on):
                self.moderation = on
            case Moderated(item=item, verdict=verdict):
                self.verdicts[item] = verdict
            case Renamed(participant=participant, nickname=nickname):
                self.renamed[participant] = nickname
            case Removed(participant=participant, on=on):
                (self.removed.add if on else self.removed.discard)(participant)
            case Archived():
                self._close_current(event.at_ms)
                self.archived_ms = event.at_ms
            case _ if isinstance(event, SpikeEvent):
                spikes.apply(self.spikes, event)
        if not isinstance(event, Shown | ModerationSet | Moderated | Renamed | LobbyLocked | SpikeEvent):
            self.version = self.seq
        self._present = self._people = self._standings = None
        self._tallies.clear()

    def add(self, event: Response) -> bool:
        """A response, in any order; False when the room has it already.

        Two processes may have taken the same response from the same phone: the earlier receipt is the one that counts.
        """
        known = self.responses.get(event.key)
        if known is not None:
            if _rank(known) <= _rank(event):
                return False
            self._shelf(known).remove(known)
        self.responses[event.key] = event
        shelf = self._shelf(event)
        shelf.append(event)
        shelf.sort(key=_age)
        for changed in (event, known):
            if isinstance(changed, Joined):
                self._present = self._people = None
                self._tallies.clear()
                self.given_names.add(changed.nickname)
            elif isinstance(changed, Answered):
                self._tallies.pop(changed.activity, None)
            if isinstance(changed, Joined | Answered) and self._ranks(changed):
                self._standings = None
        return True

    def _ranks(self, event: Joined | Answered) -> bool:
        """Whether the leaderboard rests on it."""
        return isinstance(event, Joined) or self.of(event.activity).revealed_ms is not None

    def _shelf(self, event: Response) -> list[Any]:
        """Where responses of this kind stand, the oldest first."""
        match event:
            case Joined():
                return self.joins.setdefault(event.participant, [])
            case Named():
                return self.names.setdefault(event.participant, [])
            case Answered():
                return self.answers.setdefault(event.activity, {}).setdefault(event.participant, [])
            case Surveyed():
                return self.forms.setdefault(event.activity, {}).setdefault(event.participant, [])
            case Asked():
                return self.asked.setdefault(event.participant, [])
            case Replied():
                return self.replies.setdefault(f"{event.participant}:{event.to}", [])
        raise AssertionError(f"no shelf for {type(event).__name__}")

    def _progress(self, activity: str) -> Progress:
        return self.progress.setdefault(activity, Progress())

    def _close_current(self, at_ms: int) -> None:
        if self.current is not None:
            self._close(self.current, at_ms)

    def _close(self, activity: str, at_ms: int) -> None:
        windows = self.of(activity).windows
        if windows and windows[-1].closed_ms is None:
            windows[-1] = replace(windows[-1], closed_ms=at_ms)

    def _extend(self, activity: str, by_s: int) -> None:
        windows = self.of(activity).windows
        if windows and windows[-1].deadline_ms is not None:
            windows[-1] = replace(windows[-1], deadline_ms=windows[-1].deadline_ms + by_s * 1000)

    # ---- reading

    def of(self, activity: str) -> Progress:
        """How far the activity has come: to be read, not changed."""
        return self.progress.get(activity) or Progress()

    def has(self, key: str) -> bool:
        """Whether the response with this `participant:id` is in the log."""
        return key in self.responses

    @property
    def talk(self) -> Talk:
        return self.info.talk

    @property
    def activity(self) -> Activity | None:
        return self.talk.activity(self.current) if self.current else None

    def phase(self, now_ms: int) -> Phase | None:
        """Of the current activity; None in the lobby."""
        return self.of(self.current).phase(now_ms) if self.current else None

    @property
    def present(self) -> list[str]:
        """Every phone that joined and was not removed, scripted ones too, the first to join first. To be read only."""
        if self._present is None:
            self._present = sorted(
                (p for p, joins in self.joins.items() if joins and p not in self.removed),
                key=lambda p: (*_age(self.joins[p][0]), p),
            )
        return self._present

    @property
    def people(self) -> list[str]:
        """Those present who are no scripted phones. To be read only."""
        if self._people is None:
            self._people = [p for p in self.present if self.source(p) == AUDIENCE]
        return self._people

    @property
    def scripted(self) -> int:
        """How many scripted phones are present."""
        return len(self.present) - len(self.people)

    @property
    def rehearsal(self) -> bool:
        """Whether the only phones present are scripted ones."""
        return bool(self.present) and not self.people

    @property
    def audience(self) -> list[str]:
        """Whose responses count and are shown: the people, or in a rehearsal the scripted phones. To be read only."""
        return self.people or self.present

    def counts(self, participant: str) -> bool:
        """Whether the participant is one of the `audience`."""
        if participant in self.removed or self.join(participant) is None:
            return False
        return self.source(participant) == AUDIENCE or not self.people

    def source(self, participant: str) -> str:
        """Who holds the phone, see `Joined`."""
        joined = self.join(participant)
        return joined.source if joined else AUDIENCE

    def answer(self, activity: str, participant: str) -> Answered | None:
        """The answer that counts: the first that came while the question was open."""
        progress = self.of(activity)
        answers = self.answers.get(activity, {}).get(participant, ())
        return next((a for a in answers if progress.window(a.at_ms)), None)

    def form(self, activity: str, participant: str) -> Surveyed | None:
        """The survey form that counts: the last that came while the survey was open."""
        progress = self.of(activity)
        forms = self.forms.get(activity, {}).get(participant, ())
        return next((f for f in reversed(forms) if progress.window(f.at_ms)), None)

    def counted_answers(self, activity: str) -> Iterator[Answered]:
        for participant in self.answers.get(activity, {}):
            if self.counts(participant) and (answer := self.answer(activity, participant)):
                yield answer

    def counted_forms(self, activity: str) -> Iterator[Surveyed]:
        for participant in self.forms.get(activity, {}):
            if self.counts(participant) and (form := self.form(activity, participant)):
                yield form

    def questions(self, activity: str | None = None) -> list[Asked]:
        """What was asked and counts, the first first; of one activity or of all."""
        return sorted(
            (q for p in self.asked if self.counts(p) for q in self.questions_of(p, activity)),
            key=lambda q: (*_age(q), q.participant),
        )

    def questions_of(self, participant: str, activity: str | None = None) -> list[Asked]:
        """What one phone asked in time, the first first."""
        asked = self.asked.get(participant, ())
        return [q for q in asked if activity in (None, q.activity) and self.of(q.activity).window(q.at_ms)]

    def requests(self, activity: str) -> int:
        """How many answers and questions came in time from all phones present, scripted ones too: each asks for a
        reply."""
        answered = sum(self.answer(activity, p) is not None for p in self.present)
        return answered + sum(len(self.questions_of(p, activity)) for p in self.present)

    def reply(self, participant: str, response_id: str) -> Replied | None:
        replies = self.replies.get(f"{participant}:{response_id}")
        return replies[0] if replies else None

    def mark(self, quiz: Quiz, participant: str) -> Mark | None:
        answer = self.answer(quiz.id, participant)
        return self._mark(quiz, answer) if answer else None

    def _mark(self, quiz: Quiz, answer: Answered) -> Mark:
        window = self.of(quiz.id).window(answer.at_ms)
        assert window is not None
        return mark(quiz, answer.choice, answer.at_ms - window.opened_ms, self.talk.scoring)

    def tally(self, quiz: Quiz) -> tuple[dict[str, int], int]:
        """How many chose each option, by option id, and how many answers count. To be read only."""
        known = self._tallies.get(quiz.id)
        if known is None:
            counts, total = {option.id: 0 for option in quiz.options}, 0
            for answer in self.counted_answers(quiz.id):
                total += 1
                for option in answer.choice:
                    if option in counts:
                        counts[option] += 1
            known = self._tallies[quiz.id] = (counts, total)
        return known

    def standings(self) -> list[Standing]:
        """The leaderboard over all revealed questions, kept until something that it rests on changes."""
        if self._standings is None:
            rounds = [
                {a.participant: self._mark(quiz, a) for a in self.counted_answers(quiz.id)} for quiz in self.revealed()
            ]
            self._standings = standings(self.audience, rounds, self.talk.scoring)
        return self._standings

    def standing(self, participant: str) -> Standing | None:
        return next((s for s in self.standings() if s.participant == participant), None)

    def revealed(self) -> list[Quiz]:
        """The quiz questions whose solution the room knows, in the talk's order."""
        return [a for a in self.talk.activities if a.kind is Kind.QUIZ and self.of(a.id).revealed_ms is not None]

    def join(self, participant: str) -> Joined | None:
        joins = self.joins.get(participant)
        return joins[0] if joins else None

    def chosen_name(self, participant: str) -> Named | None:
        """The last nickname that the participant chose; None while the generated one stands. A scripted phone keeps the
        one that says what it is."""
        names = self.names.get(participant) if self.source(participant) == AUDIENCE else None
        return names[-1] if names else None

    def nickname(self, participant: str) -> str:
        """What the participant is called on their own phone and in the console."""
        if participant in self.renamed:
            return self.renamed[participant]
        named = self.chosen_name(participant) or self.join(participant)
        return named.nickname if named else ""

    def stage_name(self, participant: str) -> str:
        """What the stage calls the participant: a chosen name only once it may be shown."""
        chosen = self.chosen_name(participant)
        if participant in self.renamed or (chosen and self.may_show(name_item(chosen))):
            return self.nickname(participant)
        joined = self.join(participant)
        return joined.nickname if joined else ""

    def verdict(self, item: str) -> str:
        return self.verdicts.get(item, "pending")

    def may_show(self, item: str) -> bool:
        """Whether the stage may show this item from a phone."""
        verdict = self.verdict(item)
        return verdict in ("approved", "pinned") or (verdict == "pending" and not self.moderation)

    def ticket(self, participant: str) -> str:
        return raffle.ticket(self.info.code, participant)


def fold(info: RoomInfo, control: Iterable[Control], responses: Iterable[Response]) -> RoomState:
    """The room after these control events, in order, and these responses, in any order and however often."""
    state = RoomState(info, moderation=info.talk.moderation)
    for event in control:
        state.apply(event)
    for response in responses:
        state.add(response)
    return state


def _age(event: Response) -> tuple[int, str]:
    return event.at_ms, event.id


def _rank(event: Response) -> tuple[bool, int, bytes]:
    """Which of two copies of one response counts: a reply that succeeded, then the earlier, then any fixed choice."""
    return isinstance(event, Replied) and event.failed, event.at_ms, encode(event)
