"""What a phone sent that the presenter may give a verdict on, by name: questions, nicknames, quotes of a form."""

from __future__ import annotations

from webapp.room.events import Asked, Named, Response, Surveyed


def question_item(question: Asked) -> str:
    return f"q:{question.key}"


def name_item(named: Named) -> str:
    return f"n:{named.key}"


def quote_item(form: Surveyed, field_id: str) -> str:
    return f"t:{form.key}:{field_id}"


def items(response: Response) -> set[str]:
    """What the presenter may give a verdict on."""
    match response:
        case Asked():
            return {question_item(response)}
        case Named():
            return {name_item(response)}
        case Surveyed(values=values):
            return {quote_item(response, field_id) for field_id in values}
    return set()
