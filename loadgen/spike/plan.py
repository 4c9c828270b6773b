"""What a run is to send, and when: data that Python, the k6 scripts and the Locust files all read. Pure.

A plan is a JSON file, so that every run can be made again by hand: `k6 run -e PLAN=plan.json …`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any, Literal

VERSION = 1
MAX_DURATION_S = 4 * 3600.0
MAX_REQUESTS = 1_000_000
MAX_RATE_PER_S = 5_000.0
MAX_USERS = 5_000
DRAIN_S = 60.0
"""How long after the last arrival answers are waited for; what is under way then is unfinished."""

Loop = Literal["open", "closed"]


class BadPlan(ValueError):
    """What a run was asked to be, it can't be; the text says what would be right."""


@dataclass(frozen=True, slots=True)
class Stage:
    """The level goes to `to`, linearly, within `for_s`; with `for_s` 0 it is a step. The level is a rate in requests a
    second where the loop is open, a number of users where it is closed."""

    to: float
    for_s: float
    name: str = ""


@dataclass(frozen=True, slots=True)
class Cell:
    """A part of a matrix: so many users, each of whom sends `batch` requests at once and waits for all of them."""

    model: str
    users: int
    batch: int
    from_s: float
    to_s: float


@dataclass(frozen=True, slots=True)
class Prompt:
    text: str
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Slo:
    """What a user should get: the first token within `ttft_s`, the others `tpot_s` apart on average."""

    ttft_s: float = 1.0
    tpot_s: float = 0.05


@dataclass(frozen=True, slots=True)
class Plan:
    """`start` is the level before the first stage. Request number n sends `work[n % len(work)]`, with a prefix of its
    own where `cache_busting`; an empty `model` is the server's first. `source` is what the gateway is told of who
    sends. `max_in_flight` are the requests that may be under way at once: with more, arrivals are dropped, and the run
    says so. `room` and `copies` are for the scenarios that take part in a room."""

    scenario: str
    loop: Loop
    start: float
    stages: tuple[Stage, ...]
    source: str
    seed: int = 1
    model: str = ""
    work: tuple[Prompt, ...] = ()
    cells: tuple[Cell, ...] = ()
    cache_busting: bool = False
    ignore_eos: bool = False
    timeout_s: float = 120.0
    max_in_flight: int = 500
    slo: Slo = field(default_factory=Slo)
    thresholds: tuple[str, ...] = ()
    room: str = ""
    copies: int = 0
    version: int = VERSION

    @property
    def duration_s(self) -> float:
        return sum(stage.for_s for stage in self.stages)

    @property
    def peak(self) -> float:
        return max([self.start, *(stage.to for stage in self.stages)])

    @property
    def planned(self) -> int | None:
        """How many requests the schedule has; None in a closed loop, where the answers decide."""
        return None if self.loop == "closed" else sum(1 for _ in self.arrivals())

    @property
    def deadline_s(self) -> float:
        """After so long from its start a run is over, whatever happens."""
        return self.duration_s + DRAIN_S

    def level(self, at_s: float) -> float:
        """The planned rate or number of users at that time; 0 after the end. At a step, what comes after it."""
        if at_s < 0:
            return self.start
        for (from_s, before), (to_s, after) in pairwise(self.corners()):
            if from_s <= at_s < to_s:
                return before + (after - before) * (at_s - from_s) / (to_s - from_s)
        return 0.0

    def corners(self) -> list[tuple[float, float]]:
        """(seconds, level) where the level bends or steps, in order."""
        at_s, corners = 0.0, [(0.0, self.start)]
        for stage in self.stages:
            at_s += stage.for_s
            corners.append((at_s, stage.to))
        return corners

    def arrivals(self) -> Iterator[float]:
        """When each request of an open loop is due, in seconds since the start: the n-th (from 1) when the integral of
        the rate reaches n, as k6's ramping-arrival-rate has it."""
        assert self.loop == "open"
        done, n = 0.0, 1
        for (from_s, before), (to_s, after) in pairwise(self.corners()):
            length_s = to_s - from_s
            area = length_s * (before + after) / 2
            while length_s > 0 and n <= done + area + 1e-9:
                yield from_s + min(length_s, _when(n - done, before, (after - before) / length_s))
                n += 1
            done += area

    def prompt(self, n: int) -> Prompt:
        """What request `n` (from 0) sends."""
        one = self.work[n % len(self.work)]
        return Prompt(f"[{self.seed}-{n}] {one.text}", one.max_tokens) if self.cache_busting else one

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False, indent=1)

    @classmethod
    def from_json(cls, text: str | bytes) -> Plan:
        """Raises BadPlan."""
        try:
            data = json.loads(text)
            if data.get("version") != VERSION:
                raise BadPlan(f"This is a plan of version {data.get('version')!r}; version {VERSION} is read here.")
            return cls(**{**data, **_parts(data)})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            if isinstance(error, BadPlan):
                raise
            raise BadPlan(f"Not a plan: {error}") from None


def _parts(data: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "stages": tuple(Stage(**one) for one in data["stages"]),
        "work": tuple(Prompt(**one) for one in data.get("work", ())),
        "cells": tuple(Cell(**one) for one in data.get("cells", ())),
        "slo": Slo(**data.get("slo", {})),
        "thresholds": tuple(data.get("thresholds", ())),
    }


def _when(count: float, rate: float, slope: float) -> float:
    """The t at which rate·t + slope·t²/2 = count."""
    if abs(slope) < 1e-12:
        return count / rate
    return (math.sqrt(max(0.0, rate * rate + 2 * slope * count)) - rate) / slope
