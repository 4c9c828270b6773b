"""What requests ask: a seeded choice from texts of our own, in the lengths that are wanted."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files

import yaml

from loadgen.spike.plan import Prompt

WORDS_PER_TOKEN = 0.75
"""Of English text, roughly, as OpenAI's guide to tokens has it; every tokenizer differs. The server's own count is in
each point."""


def work(
    seed: int, prompt_tokens: tuple[int, int] = (16, 400), max_tokens: tuple[int, int] = (64, 200), count: int = 512
) -> tuple[Prompt, ...]:
    """Prompts of lengths drawn log-uniformly from the bounds, both included, as `inference.openloop.trace.Mix` draws
    them. Lengths of prompts are approximate: so many words / 0.75, without the chat template, and never shorter than
    the shortest question. The same seed gives the same work, and fewer of it are its beginning."""
    rng = random.Random(seed)
    return tuple(_prompt(rng, _log_uniform(rng, prompt_tokens), _log_uniform(rng, max_tokens)) for _ in range(count))


def words(text: str) -> int:
    return len(text.split())


def _prompt(rng: random.Random, tokens: int, max_tokens: int) -> Prompt:
    wanted = max(1, round(tokens * WORDS_PER_TOKEN))
    by_length, questions, passages = _texts()
    if wanted <= max(by_length):
        nearest = min(by_length, key=lambda length: (abs(length - wanted), length))
        return Prompt(rng.choice(by_length[nearest]), max_tokens)
    question = rng.choice(questions)
    return Prompt(f"{_passage(rng, passages, wanted - words(question))}\n\n{question}", max_tokens)


def _passage(rng: random.Random, passages: Sequence[Sequence[str]], length: int) -> str:
    """`length` words of passages in any order, over and over where they are not enough."""
    taken: list[str] = []
    while len(taken) < length:
        for passage in rng.sample(passages, len(passages)):
            taken += passage
    return " ".join(taken[:length])


def _log_uniform(rng: random.Random, bounds: tuple[int, int]) -> int:
    low, high = bounds
    return min(high, round(math.exp(rng.uniform(math.log(low), math.log(high)))))


@cache
def _texts() -> tuple[Mapping[int, Sequence[str]], Sequence[str], Sequence[Sequence[str]]]:
    """Questions by their number of words, all questions, and the words of each passage."""
    found = yaml.safe_load((files(__package__) / "corpus.yaml").read_text(encoding="utf-8"))
    by_length: dict[int, list[str]] = {}
    for question in found["questions"]:
        by_length.setdefault(words(question), []).append(question)
    return by_length, found["questions"], [passage.split() for passage in found["passages"]]
