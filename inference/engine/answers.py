"""What a simulated replica says. Pure and deterministic: the same messages and seed always get the same words."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

FALLBACK = (
    "This is a rehearsal text: a simulated replica answers here, and the talk brings no prepared answer to that "
    "question. On the day of the talk a real model replies."
)
# None of these may hint at which option is right: the question may still be open in the room.
COMMENTS = (
    "You went for {choice}. Let's see how the rest of the room decides!",
    "{choice} it is, noted! Lean back and watch the bars move.",
    "Thanks for locking in {choice}. I wonder what your neighbour picked.",
    "So your answer is {choice}. The reveal will tell us more, stay tuned!",
    "{choice}, thank you! Every answer is one more request for the replicas to serve.",
    "Your answer {choice} has arrived safely. Now we wait for the slowest thumbs in the room.",
)
PLAIN_COMMENT = "Thanks for your answer! Let's see how the rest of the room decides."
COMMENT_MARK = "[comment]"
KEYWORD_SCORE = 3.0
ENOUGH_SCORE = 2.0
CHOICE_LENGTH = 80

_WORD = re.compile(r"\w+")
_PIECE = re.compile(r"\s*\w{1,8}|\s*[^\w\s]+|\s+")
_COMMON = frozenset(
    "a about an and any are as at be but by can could do does for from had has have how i if in into is it its me "
    "my of on or our should so than that the their them there they this to was we were what when where which who "
    "why will with would you your".split()
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One prepared answer, with the question it is meant for and words that point to it."""

    question: str
    answer: str
    keywords: tuple[str, ...] = ()


def read_entries(text: str) -> tuple[Entry, ...]:
    """Entries from a JSON list of `{"question", "answer", "keywords": [...]}`. Raises ValueError on anything else."""
    data = json.loads(text)
    if not isinstance(data, list):
        raise ValueError("expected a list of questions and answers")
    try:
        return tuple(
            Entry(str(e["question"]), str(e["answer"]), tuple(str(k) for k in e.get("keywords") or ())) for e in data
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError('each entry needs "question" and "answer"') from error


def reply(prompt: str, entries: Sequence[Entry], seed: int = 0) -> str:
    """The answer to the last user message: a comment where it asks for one, else the entry that fits best. Where
    several fit as well, the seed chooses."""
    first, _, rest = prompt.lstrip().partition("\n")
    if first.strip().lower() == COMMENT_MARK:
        return comment(rest, seed)
    words = _words(prompt)
    text = f" {' '.join(_WORD.findall(prompt.casefold()))} "
    scored = [(_score(entry, words, text), entry) for entry in entries]
    score = max((score for score, _ in scored), default=0.0)
    if score < ENOUGH_SCORE:
        return FALLBACK
    best = [entry for found, entry in scored if found == score]
    return best[seed % len(best)].answer


def comment(prompt: str, seed: int = 0) -> str:
    """A friendly sentence on the option that stands on the line `Choice: …`; it gives no solution away."""
    choice = re.search(r"^Choice:[ \t]*(\S.*)$", prompt, re.MULTILINE)
    if choice is None:
        return PLAIN_COMMENT
    template = COMMENTS[(zlib.crc32(prompt.encode("utf-8", "replace")) + seed) % len(COMMENTS)]
    return template.format(choice=f"“{choice[1].strip()[:CHOICE_LENGTH]}”")


def pieces(text: str) -> list[str]:
    """The text in token-sized pieces, each with its leading space; joined they give the text again."""
    return _PIECE.findall(text)


def last_user_text(messages: Sequence[dict[str, Any]]) -> str:
    """The text of the last message whose role is `user`; empty when there is none."""
    for message in reversed(messages):
        if message.get("role") == "user":
            return content_text(message.get("content"))
    return ""


def content_text(content: Any) -> str:
    """A message's content as text: a string, or OpenAI's list of parts of which only text counts."""
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def _words(text: str) -> set[str]:
    return {word for word in _WORD.findall(text.casefold()) if word not in _COMMON and len(word) > 1}


def _score(entry: Entry, words: set[str], text: str) -> float:
    keywords = {" ".join(_WORD.findall(keyword.casefold())) for keyword in entry.keywords}
    hits = sum(1 for keyword in keywords if keyword and f" {keyword} " in text)
    return KEYWORD_SCORE * hits + len(words & _words(entry.question))
