"""A room's responses as files: every one that is in the log, with whether it counts."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from webapp.room.events import AUDIENCE, Answered, Asked, Joined, Named, Replied, Response, Surveyed
from webapp.room.state import RoomState
from webapp.talk.model import Quiz

COLUMNS = (
    "at",
    "type",
    "participant",
    "nickname",
    "activity",
    "title",
    "response",
    "counts",
    "correct",
    "points",
    "elapsed_ms",
    "reply",
    "id",
    "scripted",
)


def records(state: RoomState) -> Iterator[dict[str, Any]]:
    """One record a response, the oldest first; replies stand with what they reply to. `participant` is the ticket;
    `scripted` says that it was a load tool's phone, whose responses count only in a room without people."""
    events = [e for e in state.responses.values() if not isinstance(e, Replied)]
    for event in sorted(events, key=lambda e: (e.at_ms, e.key)):
        yield {
            "at": datetime.fromtimestamp(event.at_ms / 1000, UTC).isoformat(timespec="milliseconds"),
            "type": type(event).__name__.lower(),
            "participant": state.ticket(event.participant),
            "nickname": state.nickname(event.participant),
            "id": event.id,
            "scripted": state.source(event.participant) != AUDIENCE,
            **_details(state, event),
        }


def _details(state: RoomState, event: Response) -> dict[str, Any]:
    if isinstance(event, Joined | Named):
        return {"response": event.nickname}
    assert isinstance(event, Answered | Asked | Surveyed)
    activity = state.talk.activity(event.activity)
    reply = state.reply(event.participant, event.id)
    details: dict[str, Any] = {
        "activity": event.activity,
        "title": activity.title if activity else "",
        "reply": reply.text if reply else None,
    }
    here = state.counts(event.participant)
    match event:
        case Answered() if isinstance(activity, Quiz):
            counts = here and state.answer(event.activity, event.participant) == event
            mark = state.mark(activity, event.participant) if counts else None
            texts = [o.text for o in activity.options if o.id in event.choice]
            details |= {
                "response": texts,
                "counts": counts,
                "correct": frozenset(event.choice) == activity.correct,
                "points": mark.points if mark else 0,
                "elapsed_ms": mark.elapsed_ms if mark else None,
            }
        case Asked():
            counts = here and state.of(event.activity).window(event.at_ms) is not None
            details |= {"response": event.question, "counts": counts}
        case Surveyed():
            counts = here and state.form(event.activity, event.participant) == event
            details |= {"response": event.values, "counts": counts}
    return details


def jsonl(state: RoomState) -> Iterator[str]:
    for record in records(state):
        yield json.dumps(record, ensure_ascii=False) + "\n"


def to_csv(state: RoomState) -> Iterator[str]:
    """RFC 4180, with a header. Several choices are joined by ` | `, a survey form is JSON."""
    yield _row(COLUMNS)
    for record in records(state):
        yield _row(_cell(record.get(column)) for column in COLUMNS)


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        value = json.dumps(value, ensure_ascii=False)
    elif isinstance(value, list | tuple):
        value = " | ".join(str(v) for v in value)
    text = "" if value is None else str(value)
    # A spreadsheet would run a text from a phone that begins like a formula.
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def _row(cells: Iterable[str]) -> str:
    out = io.StringIO()
    csv.writer(out).writerow(cells)
    return out.getvalue()


FORMATS: dict[str, Callable[[RoomState], Iterator[str]]] = {"csv": to_csv, "jsonl": jsonl}
