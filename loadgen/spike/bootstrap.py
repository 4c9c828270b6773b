"""How much a run's figure could have been another by chance: the run resampled, some seconds of it at a time. Pure.

What happens in a second depends on the queue that the seconds before it left, so whole blocks of seconds are drawn, not
requests: the moving-block bootstrap (H. R. Künsch, The Annals of Statistics 17, 1989). A run's load is not the same all
along, so a block takes the place only of one nearby: the local block bootstrap (E. Paparoditis and D. N. Politis,
Comptes Rendus de l'Académie des Sciences, Série I, 335, 2002). It tells of the noise within a run. What differs from
one run to the next (a cold cache, a busy neighbour) is only seen by running again.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate
from math import exp, log
from random import Random

RESAMPLES = 1000
LEAST_BLOCK_S = 5
REACH = 2  # blocks' lengths: how far away a block is taken from
BINS, BITS = 1024, 32
LEAST_VALUE = 1e-6

Blocks = Sequence[tuple[int, int]]
"""(from, to) in whole seconds of the run, `to` not included, that make up a run of the same length."""


def resampled(seconds: int, random: Random) -> list[Blocks]:
    """As many times the run anew. A block is about the cube root of the run's length, which keeps the error of the
    estimated spread smallest (P. Hall, J. L. Horowitz and B.-Y. Jing, Biometrika 82, 1995), and no shorter than a
    backlog lives."""
    length = min(seconds, max(LEAST_BLOCK_S, round(seconds ** (1 / 3))))
    return [[_block(at, length, seconds, random) for at in range(0, seconds, length)] for _ in range(RESAMPLES)]


def _block(at: int, length: int, seconds: int, random: Random) -> tuple[int, int]:
    wanted = min(length, seconds - at)
    start = random.randint(max(0, at - REACH * length), min(seconds - wanted, at + REACH * length))
    return start, start + wanted


def quantiles(
    values: Iterable[tuple[int, float]], seconds: int, draws: Sequence[Blocks], shares: Sequence[float]
) -> list[list[float | None]]:
    """For each share, its quantile in each draw to within half a bin; None where a draw has no value. `values` are
    (second, value).

    A second's histogram is one whole number of `BITS` for each bin, so that adding two is one addition.
    """
    known = [(second, max(value, LEAST_VALUE)) for second, value in values]
    if not known:
        return [[None] * len(draws) for _ in shares]
    low, high = (log(edge(value for _, value in known)) for edge in (min, max))
    width = (high - low) / (BINS - 1) or 1.0
    histograms = [0] * seconds
    for second, value in known:
        histograms[second] += 1 << (BITS * round((log(value) - low) / width))
    before = list(accumulate(histograms, initial=0))
    found: list[list[float | None]] = [[] for _ in shares]
    for draw in draws:
        total = sum(before[end] - before[start] for start, end in draw)
        up_to = list(accumulate(struct.unpack(f"<{BINS}I", total.to_bytes(BINS * BITS // 8, "little"))))
        for share, column in zip(shares, found, strict=True):
            place = bisect_right(up_to, share * (up_to[-1] - 1))
            column.append(exp(low + place * width) if up_to[-1] else None)
    return found


def ratios(parts: Sequence[tuple[float, float]], draws: Sequence[Blocks]) -> list[float | None]:
    """For each draw the sum of the numerators by the sum of the denominators, of (numerator, denominator) for each
    second; None where the latter is 0."""
    over = list(accumulate((part[0] for part in parts), initial=0.0))
    under = list(accumulate((part[1] for part in parts), initial=0.0))
    sums = ((sum(over[e] - over[s] for s, e in draw), sum(under[e] - under[s] for s, e in draw)) for draw in draws)
    return [above / below if below else None for above, below in sums]
