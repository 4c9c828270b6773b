"""How large a request may be: its body, its prompt, the answer it asks for. Pure; what a request may do beyond that
is for the replica to say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from webapp.gateway.errors import BadField
from webapp.gateway.ticket import COMPLETIONS

PROMPT_FIELDS = ("messages", "prompt", "suffix", "tools", "functions", "documents", "chat_template_kwargs")
"""What a chat template makes the prompt from."""
TOKEN_CHARS = 4  # a prompt of token ids is measured as if each stood for this many characters
COMPLETION_TOKENS = 16  # OpenAI's own default for `/v1/completions`


@dataclass(frozen=True, slots=True)
class Caps:
    body_bytes: int = 1024 * 1024
    prompt_chars: int = 32_000
    max_tokens: int = 1024


def capped(body: dict[str, Any], path: str, caps: Caps) -> dict[str, Any]:
    """The request to send on: `body` itself, or with the `max_tokens` that it lacked. Raises BadField."""
    for name in ("n", "best_of"):
        if body.get(name) not in (None, 1):
            raise BadField(name, f"{name} must be 1: ask once for each answer")
    prompt = body.get("prompt")
    if isinstance(prompt, list) and len(prompt) > 1 and not all(type(part) is int for part in prompt):
        raise BadField("prompt", "prompt must be one text: ask once for each")
    chars = _chars([body[name] for name in PROMPT_FIELDS if name in body])
    if chars > caps.prompt_chars:
        field = "prompt" if path == COMPLETIONS else "messages"
        raise BadField(field, f"the prompt has {chars} characters; at most {caps.prompt_chars} are taken")
    names = ("max_tokens",) if path == COMPLETIONS else ("max_tokens", "max_completion_tokens")
    if any([_given(name, body.get(name), caps.max_tokens) for name in names]):
        return body
    default = min(COMPLETION_TOKENS, caps.max_tokens) if path == COMPLETIONS else caps.max_tokens
    return {**body, "max_tokens": default}


def _given(name: str, value: object, most: int) -> bool:
    """Whether this limit is given. A text or a float is refused, as some servers would take it for a number."""
    if value is None:
        return False
    if type(value) is not int:
        raise BadField(name, f"{name} must be an integer of at most {most}")
    if value > most:
        raise BadField(name, f"{name} must be at most {most}, got {value}")
    return True


def _chars(found: list[Any]) -> int:
    """Characters in all texts at any depth of these values, names of fields included, and TOKEN_CHARS a number."""
    total = 0
    while found:
        value = found.pop()
        if isinstance(value, str):
            total += len(value)
        elif isinstance(value, list):
            found += value
        elif isinstance(value, dict):
            found += value.keys()
            found += value.values()
        elif isinstance(value, int | float):
            total += TOKEN_CHARS
    return total
