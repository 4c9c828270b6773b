"""A trace of requests through the engine in simulated time: what each would have seen, without waiting for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from inference.engine.core import Core
from inference.engine.scheduler import Sequence


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request of a trace: when, and how long."""

    at_s: float
    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Served:
    """What the client of one arrival would have measured: when each of its tokens came, in seconds of the trace."""

    arrival: Arrival
    token_s: tuple[float, ...]
    preemptions: int = 0

    @property
    def ttft_s(self) -> float:
        return self.token_s[0] - self.arrival.at_s

    @property
    def e2e_s(self) -> float:
        return self.token_s[-1] - self.arrival.at_s


def run(
    core: Core, trace: Iterable[Arrival], overhead_s: float = 0.0, step_ended: Callable[[float], None] | None = None
) -> list[Served]:
    """Every arrival served, in the order of the trace. `overhead_s` is what a request takes outside of the engine,
    before its queue; it is the same for all. `step_ended` is told the time of each step's end."""
    arrivals = sorted(trace, key=lambda a: a.at_s)
    tokens: list[list[float]] = [[] for _ in arrivals]
    seqs: list[Sequence] = []
    next_arrival = 0
    while next_arrival < len(arrivals) or core.due_s is not None:
        if next_arrival < len(arrivals):
            arrival = arrivals[next_arrival]
            if core.due_s is None or arrival.at_s + overhead_s < core.due_s:
                seq = Sequence(arrival.prompt_tokens, arrival.output_tokens, payload=next_arrival)
                seqs.append(seq)
                core.add(seq, arrival.at_s + overhead_s)
                next_arrival += 1
                continue
        assert core.due_s is not None
        now_s = core.due_s
        for seq in core.advance(now_s)[1]:
            assert isinstance(seq.payload, int)
            tokens[seq.payload].append(now_s)
        if step_ended is not None:
            step_ended(now_s)
    return [Served(a, tuple(t), s.preemptions) for a, t, s in zip(arrivals, tokens, seqs, strict=True)]
