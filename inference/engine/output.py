"""The tokens that answer a request: which texts come one after another, and why they end. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise


@dataclass(frozen=True, slots=True)
class Limits:
    """Those of a request's sampling parameters that decide where the text ends."""

    max_tokens: int
    min_tokens: int = 0
    ignore_eos: bool = False
    stop: tuple[str, ...] = ()
    include_stop: bool = False


@dataclass(frozen=True, slots=True)
class Output:
    """One text for each token, empty where a token shows nothing (yet). `stop_reason` is the stop string that hit."""

    texts: list[str]
    finish_reason: str
    stop_reason: str | None = None


def output(words: Sequence[str], limits: Limits) -> Output:
    """What a model that wants to say `words`, one a token, gets out within the limits.

    The natural end is a token of its own, without text, as in vLLM. A text that has to go on (`ignore_eos`,
    `min_tokens`) is said again from its start.
    """
    if limits.ignore_eos:
        texts = _repeated(words, limits.max_tokens)
    else:
        texts = [*_repeated(words, max(len(words), min(limits.min_tokens, limits.max_tokens))), ""]
    reason = "stop" if len(texts) <= limits.max_tokens and not limits.ignore_eos else "length"
    del texts[limits.max_tokens :]
    return _stopped(texts, reason, limits) if limits.stop else Output(texts, reason)


def _repeated(words: Sequence[str], count: int) -> list[str]:
    texts = list(words[:count])
    again = [f" {words[0]}", *words[1:]] if words else ["."]
    while len(texts) < count:
        texts += again[: count - len(texts)]
    return texts


def _stopped(texts: list[str], reason: str, limits: Limits) -> Output:
    """Ends the text at the stop string that is complete first. Until then as many characters are held back as could
    turn out to be the beginning of one (vllm/v1/engine/detokenizer.py)."""
    text = "".join(texts)
    ends = [0, *accumulate(len(t) for t in texts)]
    found: tuple[int, str] | None = None
    if limits.min_tokens < len(texts):
        for stop in limits.stop:
            at = text.find(stop, max(0, ends[limits.min_tokens] - len(stop) + 1))
            if at >= 0 and (found is None or at + len(stop) < found[0]):
                found = at + len(stop), stop
    if found is not None:
        end, stop = found
        ends = ends[: bisect_left(ends, end, lo=1) + 1]
        text = text[: end if limits.include_stop else end - len(stop)]
    held = 0 if limits.include_stop else max(len(stop) for stop in limits.stop) - 1
    shown = list(accumulate((max(0, end - held) for end in ends[1:-1]), max, initial=0))
    shown.append(len(text))
    parts = [text[a:b] for a, b in pairwise(shown)]
    return Output(parts, reason) if found is None else Output(parts, "stop", found[1])
