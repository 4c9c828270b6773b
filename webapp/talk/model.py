"""A talk as the rest of the program sees it: frozen, validated, independent of YAML.

`parse.py` makes a `Talk` from a file; line numbers do not leave the modules that it uses. `to_json` and `from_json`
carry it through `room.json`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """What an activity asks of the room."""

    QUIZ = "quiz"
    ASK = "ask"
    SURVEY = "survey"
    RAFFLE = "raffle"


@dataclass(frozen=True, slots=True)
class Option:
    """One answer that a phone may choose; `id` is `a` to `f` in the order of the file."""

    id: str
    text: str
    correct: bool = False


@dataclass(frozen=True, slots=True)
class Code:
    """A code block shown with a question; `language` is a Pygments lexer name."""

    text: str
    language: str = "text"


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture shown with a question: a data URI, with what it shows in words."""

    src: str
    alt: str


@dataclass(frozen=True, slots=True)
class Quiz:
    """A timed question. With several correct options an answer counts when it names all of them and no other."""

    id: str
    title: str
    options: tuple[Option, ...]
    time_limit_s: int = 30
    points: int = 1000
    explanation: str = ""
    code: Code | None = None
    picture: Picture | None = None
    kind: Kind = Kind.QUIZ

    @property
    def correct(self) -> frozenset[str]:
        return frozenset(option.id for option in self.options if option.correct)

    @property
    def several(self) -> bool:
        """Whether more than one option is right, so that phones may choose several."""
        return len(self.correct) > 1


@dataclass(frozen=True, slots=True)
class Ask:
    """The room puts questions to the LLM; `max_questions` each."""

    id: str
    title: str
    prompt: str = ""
    examples: tuple[str, ...] = ()
    max_questions: int = 5
    kind: Kind = Kind.ASK


class FieldKind(StrEnum):
    RATING = "rating"
    CHOICE = "choice"
    CHOICES = "choices"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class Field:
    """One question of a survey. `options` for `choice` and `choices`; `scale` (3 to 10) for `rating`."""

    id: str
    label: str
    kind: FieldKind
    required: bool = False
    options: tuple[str, ...] = ()
    scale: int = 5
    low: str = ""
    high: str = ""
    max_length: int = 500


@dataclass(frozen=True, slots=True)
class Survey:
    id: str
    title: str
    fields: tuple[Field, ...]
    prompt: str = ""
    kind: Kind = Kind.SURVEY


@dataclass(frozen=True, slots=True)
class Raffle:
    id: str
    title: str
    prizes: tuple[str, ...]
    prompt: str = ""
    kind: Kind = Kind.RAFFLE


Activity = Quiz | Ask | Survey | Raffle


@dataclass(frozen=True, slots=True)
class QA:
    """One entry of the text that a simulated replica answers from."""

    question: str
    answer: str
    keywords: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Theme:
    """Colours of the talk: `accent` is a `#rrggbb` colour."""

    accent: str = "#5b5bd6"


@dataclass(frozen=True, slots=True)
class Scoring:
    """Options of the talk. Speed: a right answer is worth `round(points × (1 − t / T / 2))`. Streaks: plus 100 for
    each right answer in a row after the first, at most 500."""

    speed: bool = True
    streaks: bool = False


@dataclass(frozen=True, slots=True)
class Talk:
    title: str
    activities: tuple[Activity, ...]
    speaker: str = ""
    subtitle: str = ""
    language: str = "en"
    persona: str = "You are a friendly expert who answers an audience in two or three short sentences."
    moderation: bool = True
    theme: Theme = field(default_factory=Theme)
    scoring: Scoring = field(default_factory=Scoring)
    qa: tuple[QA, ...] = ()

    def activity(self, activity_id: str) -> Activity | None:
        return next((a for a in self.activities if a.id == activity_id), None)

    def index(self, activity_id: str) -> int:
        return next(i for i, a in enumerate(self.activities) if a.id == activity_id)


def to_json(talk: Talk) -> dict[str, Any]:
    """The talk as JSON-ready data; `from_json` is its inverse."""
    return asdict(talk)


def from_json(data: dict[str, Any]) -> Talk:
    """A talk from what `to_json` gave. Raises KeyError or TypeError on other data: only our own files come here."""
    return Talk(
        **{
            **data,
            "activities": tuple(_activity(a) for a in data["activities"]),
            "theme": Theme(**data["theme"]),
            "scoring": Scoring(**data["scoring"]),
            "qa": tuple(QA(**{**e, "keywords": tuple(e["keywords"])}) for e in data["qa"]),
        }
    )


def _activity(data: dict[str, Any]) -> Activity:
    kind = Kind(data["kind"])
    rest = {**data, "kind": kind}
    if kind is Kind.QUIZ:
        return Quiz(
            **{
                **rest,
                "options": tuple(Option(**o) for o in data["options"]),
                "code": data["code"] and Code(**data["code"]),
                "picture": data["picture"] and Picture(**data["picture"]),
            }
        )
    if kind is Kind.ASK:
        return Ask(**{**rest, "examples": tuple(data["examples"])})
    if kind is Kind.SURVEY:
        fields = tuple(
            Field(**{**f, "kind": FieldKind(f["kind"]), "options": tuple(f["options"])}) for f in data["fields"]
        )
        return Survey(**{**rest, "fields": fields})
    return Raffle(**{**rest, "prizes": tuple(data["prizes"])})
