"""The work that every tool gets at a constant rate: the same seeded texts, of a length in the server's own tokens."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import httpx

from loadgen.spike import corpus
from loadgen.spike.plan import Plan, Prompt, Stage
from loadgen.spike.preflight import Target

SEED = 7
PROMPT_TOKENS, ANSWER_TOKENS = 64, 75
TRIES = 3
SAMPLE = 16
TIMEOUT_S = 60.0


class NoCount(Exception):
    """The server did not say how many tokens a prompt has."""


@dataclass(frozen=True, slots=True)
class Work:
    """`rate` requests a second for `for_s` seconds."""

    texts: tuple[str, ...]
    rate: float
    for_s: float

    def salted(self, salt: str) -> tuple[str, ...]:
        """As one tool gets them in one round: a mark of its own comes first, so that no text is in the server's prefix
        cache because another tool has sent it."""
        return tuple(_marked(text, salt, n) for n, text in enumerate(self.texts))

    def plan(self, source: str, salt: str) -> Plan:
        """Its seed, by which a probe draws its moments, is the round's."""
        prompts = tuple(Prompt(text, ANSWER_TOKENS) for text in self.salted(salt))
        stages = (Stage(self.rate, self.for_s, "constant"),)
        return Plan(
            "soak",
            "open",
            self.rate,
            stages,
            source,
            seed=random.Random(salt).getrandbits(31),
            work=prompts,
            ignore_eos=True,
            timeout_s=TIMEOUT_S,
        )


async def work(target: Target, rate: float, for_s: float) -> Work:
    """Texts of about PROMPT_TOKENS tokens each with the chat template, one for each request. Tokenizers differ, so the
    server counts some of them and all are made longer or shorter in proportion. Raises NoCount."""
    count = round(rate * for_s)
    wanted = float(PROMPT_TOKENS)
    async with httpx.AsyncClient(base_url=target.url, trust_env=False) as http:
        for _ in range(TRIES):
            texts = _texts(count, wanted)
            found = await _mean_tokens(http, target.model, texts[:SAMPLE])
            if abs(found - PROMPT_TOKENS) <= 1:
                break
            wanted *= PROMPT_TOKENS / found
    return Work(texts, rate, for_s)


def _texts(count: int, tokens: float) -> tuple[str, ...]:
    length = max(1, round(tokens))
    made = corpus.work(SEED, (length, length), (ANSWER_TOKENS, ANSWER_TOKENS), count)
    return tuple(one.text for one in made)


def _marked(text: str, salt: str, n: int) -> str:
    return f"[{salt}-{n}] {text}"


async def _mean_tokens(http: httpx.AsyncClient, model: str, texts: Sequence[str]) -> float:
    counts = []
    for n, text in enumerate(texts):
        asked = {"model": model, "messages": [{"role": "user", "content": _marked(text, "0", n)}]}
        try:
            answer = await http.post("/tokenize", json=asked)
            counts.append(answer.raise_for_status().json()["count"])
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            raise NoCount(f"{http.base_url}/tokenize: {error}") from None
    return sum(counts) / len(counts)
