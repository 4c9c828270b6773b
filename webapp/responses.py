"""From what a phone sent to a response event. Every way to be wrong gets a message that names the field."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from webapp.errors import ActivityUnknown, BadResponse
from webapp.room.events import Answered, Asked, Response, Surveyed
from webapp.room.names import clean_line
from webapp.talk.model import Ask, Field, FieldKind, Quiz, Survey, Talk

QUESTION_MAX = 500
_RESPONSE_ID = re.compile(r"[A-Za-z0-9_-]{8,64}")

Form = Mapping[str, Any]
"""A field's name to its value: a string or number, or a list of strings where it was sent several times."""


def parse_response(talk: Talk, participant: str, form: Form, at_ms: int) -> Response:
    """Raises BadResponse with all wrong fields, or ActivityUnknown."""
    response_id = _one(form.get("response_id"))
    if not _RESPONSE_ID.fullmatch(response_id) or response_id.startswith("reply-"):
        _refuse(response_id="needs 8 to 64 letters, digits, hyphens or underscores, made by the phone")
    activity_id = _one(form.get("activity_id"))
    activity = talk.activity(activity_id)
    common = {"id": response_id, "participant": participant, "at_ms": at_ms, "activity": activity_id}
    match activity:
        case Quiz():
            return Answered(**common, choice=_choice(activity, form))
        case Ask():
            return Asked(**common, question=_question(form))
        case Survey():
            return Surveyed(**common, values=_values(activity, form))
    raise ActivityUnknown(f"This talk has no activity {activity_id[:40]!r} that takes responses.")


def _choice(quiz: Quiz, form: Form) -> tuple[str, ...]:
    chosen = sorted({str(c) for c in _many(form.get("choice"))})
    known = {o.id for o in quiz.options}
    if not chosen:
        _refuse(choice="choose an answer")
    if not set(chosen) <= known:
        _refuse(choice=f"is not one of {', '.join(sorted(known))}")
    if len(chosen) > 1 and not quiz.several:
        _refuse(choice="choose one answer only")
    return tuple(chosen)


def _question(form: Form) -> str:
    question = clean_line(_one(form.get("question")))
    if not question:
        _refuse(question="write a question first")
    if len(question) > QUESTION_MAX:
        _refuse(question=f"has {len(question)} characters; {QUESTION_MAX} fit")
    return question


def _values(survey: Survey, form: Form) -> dict[str, int | str | list[str]]:
    values: dict[str, int | str | list[str]] = {}
    wrong: dict[str, str] = {}
    for field in survey.fields:
        try:
            value = _READ[field.kind](field, form.get(field.id))
        except ValueError as error:
            wrong[field.id] = f"{field.label}: {error}"
            continue
        if value not in (None, "", []):
            values[field.id] = value
        elif field.required:
            wrong[field.id] = f"{field.label}: needs an answer"
    if wrong:
        _refuse(**wrong)
    return values


def _rating(field: Field, raw: Any) -> int | None:
    text = _one(raw)
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 4 and 1 <= int(text) <= field.scale):
        raise ValueError(f"choose 1 to {field.scale}")
    return int(text)


def _pick(field: Field, raw: Any) -> str:
    text = _one(raw)
    if text and text not in field.options:
        raise ValueError("choose one of the options")
    return text


def _picks(field: Field, raw: Any) -> list[str]:
    chosen = {str(c) for c in _many(raw) if c != ""}
    if not chosen <= set(field.options):
        raise ValueError("choose among the options")
    return [option for option in field.options if option in chosen]


def _text(field: Field, raw: Any) -> str:
    text = "\n".join(clean_line(line) for line in _one(raw).splitlines()).strip()
    if len(text) > field.max_length:
        raise ValueError(f"has {len(text)} characters; {field.max_length} fit")
    return text


_READ = {
    FieldKind.RATING: _rating,
    FieldKind.CHOICE: _pick,
    FieldKind.CHOICES: _picks,
    FieldKind.TEXT: _text,
}


def _many(raw: Any) -> list[Any]:
    return [] if raw is None else list(raw) if isinstance(raw, list | tuple) else [raw]


def _one(raw: Any) -> str:
    values = _many(raw)
    return str(values[0]) if len(values) == 1 and isinstance(values[0], str | int) else ""


def _refuse(**fields: str) -> None:
    raise BadResponse("; ".join(fields.values()), fields=fields)
