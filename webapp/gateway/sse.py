"""Server-sent events in OpenAI's streams. Pure, and cheap where every token passes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from inference.exchange import UpstreamError

OUTPUT = ("content", "reasoning", "reasoning_content", "tool_calls", "refusal")
DONE = b"data: [DONE]\n\n"
NO_CHOICES = b'"choices":[]'
NO_CHOICES_SPACED = b'"choices": []'
ERROR = b'"error":'
EVENT_LIMIT_BYTES = 1024 * 1024
_BETWEEN = re.compile(rb"(?<=\n\n)|(?<=\r\n\r\n)")


class EventTooLong(UpstreamError):
    pass


class Usage(NamedTuple):
    """Tokens, as a replica counted them."""

    prompt: int
    completion: int


def cut(buffer: bytes) -> tuple[bytes, bytes]:
    """The whole events at the start of the buffer, and the rest."""
    if buffer.endswith(b"\n\n"):
        return buffer, b""
    lf, crlf = buffer.rfind(b"\n\n"), buffer.rfind(b"\r\n\r\n")
    end = max(lf + 2 if lf >= 0 else 0, crlf + 4 if crlf >= 0 else 0)
    return buffer[:end], buffer[end:]


def ends_stream(events: bytes) -> bool:
    """Whether the last of these events is `[DONE]`."""
    return b"[DONE]" in events[-32:]


def payloads(events: bytes) -> Iterator[dict[str, Any]]:
    """The JSON object of each event, without `[DONE]`, comments and what is no JSON object."""
    for line in events.splitlines():
        if line.startswith(b"data:") and line[5:].strip() != b"[DONE]":
            try:
                payload = json.loads(line[5:])
            except ValueError:
                continue
            if isinstance(payload, dict):
                yield payload


def usage_of(payload: dict[str, Any]) -> Usage | None:
    """The token counts in a chunk or a whole answer."""
    usage = payload.get("usage")
    if not isinstance(usage, dict):
        return None
    prompt, completion = usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0)
    return Usage(prompt, completion) if isinstance(prompt, int) and isinstance(completion, int) else None


def has_token(payload: dict[str, Any]) -> bool:
    """Whether a chunk carries output or an end, rather than only the role."""
    for choice in payload.get("choices") or ():
        delta = choice.get("delta") or {}
        if choice.get("finish_reason") or choice.get("text") or any(delta.get(name) for name in OUTPUT):
            return True
    return False


def text_of(payload: dict[str, Any]) -> str:
    """The text that a chunk adds to the first choice."""
    choices = payload.get("choices")
    if not choices:
        return ""
    choice = choices[0]
    return (choice.get("delta") or {}).get("content") or choice.get("text") or ""


class Events:
    """What a stream has said so far. Bytes go in as they come, whole events to pass on come out.

    With `hide_usage`, the event that only counts the tokens is taken out: the client did not ask for it.
    """

    __slots__ = ("_rest", "complete", "count", "error", "hide_usage", "usage")

    def __init__(self, hide_usage: bool) -> None:
        self.hide_usage = hide_usage
        self.complete = False  # it said [DONE]
        self.count = 0  # of events so far, without [DONE], errors and the one that counts the tokens
        self.error: dict[str, Any] | None = None
        self.usage: Usage | None = None
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        if self._rest or data[-2:] != b"\n\n":
            data, self._rest = cut(self._rest + data)
            if len(self._rest) > EVENT_LIMIT_BYTES:
                raise EventTooLong(f"an event of over {EVENT_LIMIT_BYTES} bytes")
            if not data:
                return data
        self.count += data.count(b"\n\n") or data.count(b"\r\n\r\n")
        # JSON text holds these with escaped quotes, so no token looks like one of them.
        if NO_CHOICES in data or NO_CHOICES_SPACED in data or ERROR in data:
            data = self._look_into(data)
        if b"[DONE]" in data[-32:]:
            self.complete = True
            self.count -= 1
        return data

    def _look_into(self, events: bytes) -> bytes:
        kept = []
        for event in _BETWEEN.split(events):
            for payload in payloads(event):
                if payload.get("error"):
                    self.error = payload
                    self.count -= 1
                if payload.get("choices") == []:
                    self.count -= 1
                    self.usage = usage_of(payload) or self.usage
                    if self.hide_usage:
                        event = b""
            kept.append(event)
        return b"".join(kept)
