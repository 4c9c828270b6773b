"""What a room will do in a talk: everything that the presenter and the phones send, with its time, from a seed.

No configuration of the cluster changes it, so that each is measured under the same requests. Times are seconds from
when the code is on the screen.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from inference.engine import answers, tokens
from inference.engine.output import Limits, output
from webapp import prompts
from webapp.rehearse import people
from webapp.room.events import Answered, Asked, Closed, Control, Joined, Opened, Response, Revealed, Surveyed
from webapp.room.info import RoomInfo
from webapp.talk.model import Activity, Ask, Quiz, Survey, Talk

REVEAL_AFTER_S = 5.0
SHORTEST_PAUSE_S = 20.0
PAUSE_SIGMA = 0.4


@dataclass(frozen=True, slots=True)
class Pace:
    """The presenter's. Between the activities the talk goes on, for about as long each time, so that it lasts `minutes`
    from when the code is shown; `lobby_minutes` of that before the first activity."""

    minutes: float = 60.0
    lobby_minutes: float = 5.0
    ask_s: float = 180.0
    other_s: float = 120.0  # a survey, a raffle


@dataclass(frozen=True, slots=True)
class Request:
    """What an event asks of the model."""

    activity: str
    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Step:
    """Something that the presenter or a phone does."""

    at_s: float
    event: Control | Response
    request: Request | None = None


@dataclass(frozen=True, slots=True)
class Slot:
    """When an activity is held."""

    activity: Activity
    opens_s: float
    ends_s: float


@dataclass(frozen=True, slots=True)
class Script:
    """`steps` and `slots` are in order of time. The talk ends at `ends_s`."""

    info: RoomInfo
    steps: tuple[Step, ...]
    slots: tuple[Slot, ...]
    ends_s: float


def script(
    talk: Talk, phones: int, pace: Pace | None = None, seed: int = 1, answer_tokens: int | None = None
) -> Script:
    """A talk with so many phones. Replies have the length of what a simulated replica says, or `answer_tokens` each, at
    most the request's max_tokens."""
    return _Writer(talk, phones, pace or Pace(), seed, answer_tokens).write()


class _Writer:
    def __init__(self, talk: Talk, phones: int, pace: Pace, seed: int, answer_tokens: int | None) -> None:
        self._talk = talk
        self._pace = pace
        self._seed = seed
        self._answer_tokens = answer_tokens
        self._entries = [answers.Entry(qa.question, qa.answer, qa.keywords) for qa in talk.qa]
        self._sizes: dict[str, tuple[int, int]] = {}
        self._people = Random(f"people {seed}")
        self._joined_s = {f"phone{n}": people.joins_s(self._people) for n in range(phones)}
        self._steps: list[Step] = []

    def write(self) -> Script:
        for phone, at_s in self._joined_s.items():
            self._add(at_s, Joined(id="join", participant=phone, at_ms=_ms(at_s), nickname=phone))
        slots = []
        at_s = self._pace.lobby_minutes * 60
        for activity, pause_s in zip(self._talk.activities, self._pauses(), strict=True):
            slots.append(Slot(activity, at_s, self._hold(activity, at_s)))
            at_s = slots[-1].ends_s + pause_s
        self._steps.sort(key=lambda step: step.at_s)
        info = RoomInfo("KWXM", self._talk, 0, f"{self._seed}")
        return Script(info, tuple(self._steps), tuple(slots), max(at_s, self._pace.minutes * 60))

    def _pauses(self) -> list[float]:
        """What the presenter says after each activity, the end of the talk included."""
        presenter = Random(f"presenter {self._seed}")
        parts = [presenter.lognormvariate(0.0, PAUSE_SIGMA) for _ in self._talk.activities]
        taken_s = self._pace.lobby_minutes * 60 + sum(self._lasts_s(a) for a in self._talk.activities)
        left_s = self._pace.minutes * 60 - taken_s
        return [max(SHORTEST_PAUSE_S, left_s * part / sum(parts)) for part in parts]

    def _lasts_s(self, activity: Activity) -> float:
        match activity:
            case Quiz():
                return activity.time_limit_s + REVEAL_AFTER_S
            case Ask():
                return self._pace.ask_s
        return self._pace.other_s

    def _hold(self, activity: Activity, at_s: float) -> float:
        """The activity from opening to end; when that is."""
        end_s = at_s + self._lasts_s(activity)
        limit_s = activity.time_limit_s if isinstance(activity, Quiz) else None
        common = {"id": f"{activity.id}-open", "activity": activity.id}
        self._add(at_s, Opened(**common, at_ms=_ms(at_s), duration_s=limit_s))
        ends = Revealed if limit_s else Closed
        self._add(end_s, ends(id=f"{activity.id}-end", at_ms=_ms(end_s), activity=activity.id))
        for phone, joined_s in self._joined_s.items():
            if joined_s <= at_s:
                self._respond(activity, phone, at_s)
        return end_s

    def _respond(self, activity: Activity, phone: str, open_s: float) -> None:
        rng = self._people
        match activity:
            case Quiz():
                if (after_s := people.answers_s(rng, activity.time_limit_s)) is not None:
                    choice = tuple(sorted(activity.correct)) if activity.several else (rng.choice(activity.options).id,)
                    event = Answered(**_of(activity, phone, open_s + after_s), choice=choice)
                    self._add(open_s + after_s, event, prompts.comment(self._talk, activity, choice))
            case Ask():
                for n, after_s in enumerate(people.asks_s(rng, self._pace.ask_s, activity.max_questions)):
                    question = rng.choice(self._questions(activity))
                    event = Asked(**_of(activity, phone, open_s + after_s, n), question=question)
                    self._add(open_s + after_s, event, prompts.answer(self._talk, question))
            case Survey():
                if (after_s := people.answers_s(rng, self._pace.other_s)) is not None:
                    self._add(open_s + after_s, Surveyed(**_of(activity, phone, open_s + after_s), values={}))

    def _questions(self, activity: Ask) -> list[str]:
        return [*activity.examples, *(qa.question for qa in self._talk.qa)] or [activity.title]

    def _add(self, at_s: float, event: Control | Response, body: dict | None = None) -> None:
        request = None
        if body is not None:
            assert isinstance(event, Answered | Asked)
            request = Request(event.activity, *self._size(body))
        self._steps.append(Step(at_s, event, request))

    def _size(self, body: dict) -> tuple[int, int]:
        """Tokens of prompt and reply."""
        text = answers.last_user_text(body["messages"])
        if text not in self._sizes:
            most = body["max_tokens"]
            said = answers.pieces(answers.reply(text, self._entries))
            length = self._answer_tokens or len(output(said, Limits(most)).texts)
            self._sizes[text] = len(tokens.of_chat(body["messages"])), min(length, most)
        return self._sizes[text]


def _of(activity: Activity, phone: str, at_s: float, n: int = 0) -> dict:
    return {"id": f"{activity.id}-{n}", "participant": phone, "at_ms": _ms(at_s), "activity": activity.id}


def _ms(at_s: float) -> int:
    return round(at_s * 1000)
