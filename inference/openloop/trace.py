"""Seeded traces: when requests arrive and how long they are. Pure; the same arguments give the same trace."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from inference.engine.simulation import Arrival


@dataclass(frozen=True, slots=True)
class Mix:
    """Lengths in tokens, each drawn log-uniformly from the bounds, both included."""

    prompt_tokens: tuple[int, int] = (16, 400)
    output_tokens: tuple[int, int] = (8, 200)

    @property
    def mean_output_tokens(self) -> float:
        """Of the continuous distribution, `(b - a) / ln(b / a)`."""
        low, high = self.output_tokens
        return float(low) if low == high else (high - low) / math.log(high / low)

    def draw(self, rng: random.Random, at_s: float) -> Arrival:
        return Arrival(at_s, _log_uniform(rng, self.prompt_tokens), _log_uniform(rng, self.output_tokens))


def poisson(rate_per_s: float, duration_s: float, seed: int, mix: Mix | None = None) -> list[Arrival]:
    """Arrivals at `rate_per_s` on average, independent of each other, from 0 to `duration_s`."""
    mix, rng, at_s = mix or Mix(), random.Random(seed), 0.0
    trace = []
    while (at_s := at_s + rng.expovariate(rate_per_s)) < duration_s:
        trace.append(mix.draw(rng, at_s))
    return trace


def _log_uniform(rng: random.Random, bounds: tuple[int, int]) -> int:
    low, high = bounds
    return min(high, round(math.exp(rng.uniform(math.log(low), math.log(high)))))
