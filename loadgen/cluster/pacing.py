"""How evenly tokens come, beside the profile: what a client sees between two tokens, and when they were due. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from inference.engine.core import Core
from inference.engine.profile import Profile
from inference.engine.simulation import Arrival, run
from loadgen.machine import at

SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


@dataclass(frozen=True, slots=True)
class Pacing:
    """Times between two tokens of a stream in ms, ascending: as they were seen, and as the same ones were due."""

    seen_ms: tuple[float, ...]
    due_ms: tuple[float, ...]

    @property
    def pace(self) -> float:
        """Tokens a second, as a share of the profile's. Below 1, somebody has fallen behind."""
        return sum(self.due_ms) / sum(self.seen_ms)

    def pairs(self) -> dict[str, tuple[float, float]]:
        """Seen and due, by the name of the quantile."""
        return {name: (at(list(self.seen_ms), share), at(list(self.due_ms), share)) for name, share in SHARES.items()}


def due_s(profile: Profile, streams: int, prompt_tokens: int, tokens: int) -> tuple[float, ...]:
    """When the tokens of one of `streams` that begin together on one replica are due, in seconds since they began."""
    core = Core(profile.capacity, profile.step_s, async_scheduling=profile.async_scheduling)
    return run(core, [Arrival(0.0, prompt_tokens, tokens)] * streams)[0].token_s


def pacing(streams: Iterable[Sequence[float]], due: Sequence[float], from_s: float, to_s: float) -> Pacing:
    """Of what came between the two times. `streams` are the times of each one's tokens, from its first."""
    seen_ms, due_ms = [], []
    for times in streams:
        for i, (before_s, after_s) in enumerate(pairwise(times)):
            if from_s <= before_s and after_s <= to_s:
                seen_ms.append((after_s - before_s) * 1000)
                due_ms.append((due[i + 1] - due[i]) * 1000)
    return Pacing(tuple(sorted(seen_ms)), tuple(sorted(due_ms)))
