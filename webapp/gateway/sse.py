"""Server-sent events in OpenAI's streams. Pure, and cheap where every token passes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

OUTPUT = ("content", "reasoning", "reasoning_content", "tool_calls", "refusal")
DONE = b"data: [DONE]\n\n"


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
