"""The steps of an engine, as far as its clients can tell: who got a token together, and how long after the one before.
Pure.

In a step each decoding request gets one token and each new one its first, so a stream that overlaps with others is in
step with them from its first token to its last: it is counted into the steps of those before it where its times agree
best. How long a step took is the median, over its streams, of the time since their token before; tokens that a busy
client or server delivered together do not count. Prompts that were computed in chunks over several steps are not told
apart, nor are preempted requests; with prompts shorter than a step's budget and a KV cache for all there are none.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from inference.engine.scheduler import Batch
from inference.engine.simulation import Served

_REACH = 4  # steps by which a first token may have come late or early
_LOOK_AT = 40  # tokens of a stream that tell where it belongs


@dataclass(frozen=True, slots=True)
class Step:
    """What was computed, and for how long. `duration_s` is None when nobody was there in the step before."""

    batch: Batch
    duration_s: float | None


def reconstruct(served: Sequence[Served]) -> list[Step]:
    """The steps in order. `served` must be everything that the engine did."""
    line = _Line()
    for one in sorted(served, key=lambda one: one.token_s[0]):
        line.add(one)
    return [_step(members) for members in line.members if members]


class _Line:
    """Numbered steps. `members` are each step's streams and which of their tokens; between two stretches of work one
    number stays empty."""

    def __init__(self) -> None:
        self.members: list[list[tuple[Served, int]]] = []
        self._at_s: list[float] = []  # about when: the median of the members' times

    def add(self, one: Served) -> None:
        first = self._place(one.token_s)
        for index, at_s in enumerate(one.token_s):
            number = first + index
            while number >= len(self.members):
                self.members.append([])
                self._at_s.append(at_s)
            self.members[number].append((one, index))
            self._at_s[number] = median(other.token_s[i] for other, i in self.members[number])

    def _place(self, token_s: Sequence[float]) -> int:
        end = len(self.members)
        if not end or token_s[0] > self._at_s[-1] + self._usual_s() / 2:
            if end:
                self.members.append([])
                self._at_s.append(token_s[0])
            return len(self.members)
        near = bisect_left(self._at_s, token_s[0])
        candidates = range(max(0, near - _REACH), min(end, near + _REACH + 1))
        return min(candidates, key=lambda number: self._misfit(number, token_s))

    def _misfit(self, first: int, token_s: Sequence[float]) -> float:
        pairs = zip(token_s[:_LOOK_AT], self._at_s[first : first + _LOOK_AT], strict=False)
        return median(abs(at_s - expected_s) for at_s, expected_s in pairs)

    def _usual_s(self) -> float:
        last = self._at_s[-_LOOK_AT:]
        return median(later - at for at, later in pairwise(last)) if len(last) > 1 else 0.0


def _step(members: Sequence[tuple[Served, int]]) -> Step:
    batch, gaps_s = Batch(), []
    for one, index in members:
        if index == 0:
            batch.prefill_tokens += one.arrival.prompt_tokens
            continue
        batch.decode_seqs += 1
        batch.context_tokens += one.arrival.prompt_tokens + index - 1
        before, at, after = (*one.token_s[index - 1 : index + 2], float("inf"))[:3]
        if before < at < after and (index < 2 or one.token_s[index - 2] < before):
            gaps_s.append(at - before)
    return Step(batch, median(gaps_s) if gaps_s else None)
