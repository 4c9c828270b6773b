"""That what is stored is what happened."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from logs import forms, responses, texts

from webapp.room import events
from webapp.room.events import CONTROL, RESPONSES, decode_control, decode_response, encode

FIELDS = {
    "int": st.integers(0, 2**53),
    "int | None": st.none() | st.integers(1, 600),
    "str": texts,
    "bool": st.booleans(),
    "tuple[str, ...]": st.lists(texts, max_size=4).map(tuple),
    "dict[str, int | str | list[str]]": forms,
}


def any_of(cls: type) -> st.SearchStrategy:
    return st.builds(cls, **{name: FIELDS[f.type] for name, f in cls.__dataclass_fields__.items()})


@pytest.mark.parametrize("name", CONTROL)
@given(data=st.data())
def test_each_control_event_survives_the_log(name: str, data: st.DataObject) -> None:
    event = data.draw(any_of(CONTROL[name]))
    assert decode_control(encode(event)) == event


@pytest.mark.parametrize("name", RESPONSES)
@given(data=st.data())
def test_each_response_survives_the_log(name: str, data: st.DataObject) -> None:
    event = data.draw(any_of(RESPONSES[name]))
    assert decode_response(encode(event)) == event


@given(responses(st.integers(0, 2**53)))
def test_an_event_is_one_line_of_json_that_names_its_type(event: events.Response) -> None:
    line = encode(event)
    assert b"\n" not in line
    assert json.loads(line)["type"] == type(event).__name__.lower()
    assert line == encode(decode_response(line))


def test_every_event_type_is_known_to_the_log() -> None:
    defined = {c for c in vars(events).values() if isinstance(c, type) and issubclass(c, events.Control)}
    assert set(CONTROL.values()) == defined - {events.Control}
    defined = {c for c in vars(events).values() if isinstance(c, type) and issubclass(c, events.Response)}
    assert set(RESPONSES.values()) == defined - {events.Response}


def test_half_a_character_from_a_model_can_be_stored() -> None:
    reply = events.Replied(id="reply-1", participant="ann", at_ms=1, to="1", text="so \ud83d")
    assert decode_response(encode(reply)).text == "so ?"
