"""`FIGURE OP NUMBER`: what a run must reach, such as `ttft_p95_ms<1000` or `failed_share<=0.01`. Pure.

A latency counts from the scheduled time, or from the sending with `service_` before its name (and in a closed loop,
which has no schedule). A figure without data is never reached: a run does not pass by emptiness.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import get_args

from loadgen.spike.plan import Plan
from loadgen.spike.point import Kind

OPERATORS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq}
COUNTS = ("planned", "sent", "served", "failed", "refused", "unfinished", "dropped")
SHARES = ("served_share", "failed_share", "goodput_share")
RATES = ("served_per_s", "goodput_per_s", "completion_tokens_per_s")
TIMES = ("ttft", "e2e", "service_ttft", "service_e2e", "tpot", "itl", "headers")
OF = ("mean", "p50", "p90", "p95", "p99", "max")
KIND_FIGURES = ("served", "failed_share", *(f"e2e_{of}_ms" for of in OF))
FIGURES = frozenset(
    [
        *(*COUNTS, *SHARES, *RATES),
        *(f"{time}_{of}_ms" for time, of in product(TIMES, OF)),
        *(f"{kind}_{figure}" for kind, figure in product(get_args(Kind), KIND_FIGURES)),
    ]
)
"""Every name that there is. Those of a kind, `answer_e2e_p95_ms` or `join_failed_share`, are of a phone's requests."""
FAILED_SHARE = 0.01
SERVED_FLOOR = 0.5

_TEXT = re.compile(r"\s*([A-Za-z]\w*)\s*(<=|>=|==|<|>)\s*(\S+)\s*")


class BadThreshold(ValueError):
    """A threshold that says nothing; the text tells what is wrong with it and what would be right."""


@dataclass(frozen=True, slots=True)
class Threshold:
    figure: str
    op: str
    number: float
    text: str

    def held(self, value: float | None) -> bool:
        return value is not None and OPERATORS[self.op](value, self.number)


@dataclass(frozen=True, slots=True)
class Held:
    """A threshold after the run. `value` is None where there was no data, and `ok` is False then."""

    text: str
    value: float | None
    ok: bool


def parse(text: str) -> Threshold:
    """Raises BadThreshold."""
    found = _TEXT.fullmatch(text)
    if found is None:
        raise BadThreshold(f"Not a threshold: {text!r}. It is FIGURE OP NUMBER, such as ttft_p95_ms<1000.")
    figure, op, written = found.groups()
    if figure not in FIGURES:
        raise BadThreshold(f"No figure is called {figure!r} (in {text!r}). {_there_are()}")
    try:
        number = float(written)
    except ValueError:
        raise BadThreshold(f"Not a number: {written!r} (in {text!r}); the unit is in the figure's name.") from None
    if not math.isfinite(number):
        raise BadThreshold(f"Not a finite number: {written!r} (in {text!r}).")
    if figure.endswith("_share") and not 0 <= number <= 1:
        raise BadThreshold(f"A share is from 0 to 1, not {written} (in {text!r}).")
    return Threshold(figure, op, number, f"{figure}{op}{written}")


def default_thresholds(plan: Plan) -> tuple[str, ...]:
    """No more than 1 in 100 of what was sent may fail, be refused or stay unfinished, and at least half of what was
    planned must be served, whatever was planned: at least 1."""
    floor = max(1, math.ceil((plan.planned or 0) * SERVED_FLOOR))
    return f"failed_share<={FAILED_SHARE}", f"served>={floor}"


def thresholds_of(plan: Plan) -> tuple[str, ...]:
    """The plan's own, and the default of each figure on which it has none. Raises BadThreshold."""
    own = [parse(text) for text in plan.thresholds]
    named = {threshold.figure for threshold in own}
    defaults = [parse(text) for text in default_thresholds(plan)]
    return tuple(threshold.text for threshold in (*own, *(one for one in defaults if one.figure not in named)))


def evaluate(texts: Iterable[str], figures: Mapping[str, float | None]) -> tuple[Held, ...]:
    """`figures` by their names in FIGURES; those that are missing have no data. Raises BadThreshold."""
    held = []
    for threshold in map(parse, texts):
        value = figures.get(threshold.figure)
        held.append(Held(threshold.text, value, threshold.held(value)))
    return tuple(held)


def _there_are() -> str:
    return (
        f"There are {', '.join((*COUNTS, *SHARES, *RATES))}; TIME_OF_ms with TIME one of {', '.join(TIMES)} and OF one "
        f"of {', '.join(OF)}; and KIND_served, KIND_failed_share, KIND_e2e_OF_ms with KIND one of "
        f"{', '.join(get_args(Kind))}."
    )
