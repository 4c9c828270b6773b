"""How a simulated replica counts and numbers tokens: pieces of text, with stable hashes for ids. Pure."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from typing import Any

from inference.engine.answers import content_text, pieces

VOCABULARY = 32768  # as Mistral 7B v0.3's
SPECIAL = 3  # ids below are <unk>, <s> and </s>
BEGIN = "<s>"
# A chat template wraps each message into a few tokens of its own.
OPEN, ROLE, CLOSE = "[INST]", "{role}", "[/INST]"


def of_text(text: str, special: bool = True) -> list[str]:
    """The tokens of a prompt; with `special` the one that begins it comes first."""
    return [BEGIN, *pieces(text)] if special else pieces(text)


def of_chat(messages: Iterable[dict[str, Any]], special: bool = True) -> list[str]:
    """The tokens of a conversation as its chat template would write it."""
    found = [BEGIN] if special else []
    for message in messages:
        found += (OPEN, ROLE.format(role=message.get("role")), *pieces(content_text(message.get("content"))), CLOSE)
    return found


def ids(tokens: Sequence[str]) -> list[int]:
    """A number for each: the same token always has the same one, and two may share one."""
    room = VOCABULARY - SPECIAL
    return [1 if t == BEGIN else SPECIAL + zlib.crc32(t.encode("utf-8", "replace")) % room for t in tokens]
