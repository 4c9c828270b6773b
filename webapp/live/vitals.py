"""What this process's gateway does just now: window arithmetic, with the clock passed in.

First tokens and the tokens of streams count when they come; an answer that is not streamed when it ends.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from webapp.gateway.record import Record

TTFT_WINDOW_S = 30.0
RATE_WINDOW_S = 10.0
COST_WINDOW_S = 60.0
MAX_FIRST_TOKENS = 20_000
LEFT = 499
WHO = {
    "audience": "audience",
    "amplified": "amplified",
    "k6": "scripted",
    "locust": "scripted",
    "batch": "scripted",
    "api": "api",
}
"""Who loads the fleet, as the stage tells them apart, by the gateway's sources."""


@dataclass(frozen=True, slots=True)
class Reading:
    """`in_flight` by who sent them, those in line too; `waiting` of them have no replica yet. The TTFTs are None
    without a first token in the last 30 s. Rates are over the last 10 s, `tokens_per_min` over the last minute, or
    over less where less has passed. `failed_per_min` leaves out clients that went away."""

    in_flight: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(WHO.values(), 0))
    waiting: int = 0
    ttft_p50_s: float | None = None
    ttft_p95_s: float | None = None
    tokens_per_s: float = 0.0
    requests_per_s: float = 0.0
    tokens_per_min: float = 0.0
    failed_per_min: float = 0.0

    @property
    def at_replicas(self) -> int:
        return max(0, sum(self.in_flight.values()) - self.waiting)


class Vitals:
    """`in_flight` is the gateway's gauge by source, `waiting` reads its line, `clock` gives seconds, `streamed` the
    tokens of all streams so far but their first ones."""

    def __init__(
        self,
        in_flight: Mapping[str, int],
        waiting: Callable[[], int],
        clock: Callable[[], float],
        streamed: Callable[[], int] = lambda: 0,
    ) -> None:
        self.in_flight = in_flight
        self._waiting = waiting
        self._clock = clock
        self._streamed = streamed
        self._streamed_before = streamed()
        self._tokens, self._requests, self._failed = (Window(COST_WINDOW_S, clock()) for _ in range(3))
        self._first_tokens: deque[tuple[float, float]] = deque(maxlen=MAX_FIRST_TOKENS)
        self.latest = Reading()
        """What `read` gave last: for those who show it, each a few times a second."""

    def first_token(self, ttft_s: float) -> None:
        """Of the gateway's `on_first_token`."""
        now_s = self._clock()
        self._first_tokens.append((now_s, ttft_s))
        self._tokens.add(now_s, 1)

    def ended(self, record: Record) -> None:
        """Of the gateway's `on_end`."""
        now_s = self._clock()
        self._requests.add(now_s, 1)
        if record.completion_tokens and record.ttft_s is None:
            self._tokens.add(now_s, record.completion_tokens)
        if record.status >= 400 and record.status != LEFT:
            self._failed.add(now_s, 1)

    def read(self) -> Reading:
        now_s, streamed = self._clock(), self._streamed()
        self._tokens.add(now_s, streamed - self._streamed_before)
        self._streamed_before = streamed
        while self._first_tokens and self._first_tokens[0][0] <= now_s - TTFT_WINDOW_S:
            self._first_tokens.popleft()
        ttft_s = sorted(ttft for at_s, ttft in self._first_tokens if at_s > now_s - TTFT_WINDOW_S)
        in_flight = dict.fromkeys(WHO.values(), 0)
        for source, count in self.in_flight.items():
            in_flight[WHO[source]] += count
        self.latest = Reading(
            in_flight=in_flight,
            waiting=self._waiting(),
            ttft_p50_s=percentile(ttft_s, 50),
            ttft_p95_s=percentile(ttft_s, 95),
            tokens_per_s=self._tokens.per_s(now_s, RATE_WINDOW_S),
            requests_per_s=self._requests.per_s(now_s, RATE_WINDOW_S),
            tokens_per_min=self._tokens.per_s(now_s, COST_WINDOW_S) * 60,
            failed_per_min=self._failed.per_s(now_s, COST_WINDOW_S) * 60,
        )
        return self.latest


class Window:
    """Amounts by whole second, for as long as `length_s`; times never go back. `start_s` is when counting began."""

    def __init__(self, length_s: float, start_s: float) -> None:
        self._length_s = length_s
        self._start_s = start_s
        self._seconds: deque[list[float]] = deque()

    def add(self, at_s: float, amount: float) -> None:
        second = math.floor(at_s)
        if self._seconds and self._seconds[-1][0] >= second:
            self._seconds[-1][1] += amount
        else:
            self._seconds.append([second, amount])
            while self._seconds[0][0] < second - self._length_s:
                self._seconds.popleft()

    def per_s(self, now_s: float, span_s: float) -> float:
        """The mean over the last `span_s`, at most `length_s`: the seconds that have begun since then, this one too."""
        assert span_s <= self._length_s
        first = math.floor(now_s) - span_s
        total = sum(amount for second, amount in self._seconds if second > first)
        return total / max(1.0, min(span_s, now_s - self._start_s))


def percentile(ascending: list[float], share: float) -> float | None:
    """The smallest value that `share` per cent of them do not exceed (nearest rank); None when there are none."""
    if not ascending:
        return None
    return ascending[max(0, math.ceil(len(ascending) * share / 100) - 1)]
