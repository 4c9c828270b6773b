"""One request as a run saw it: what the tools report, the raw points on disk, and all figures are made of these. Pure.

Times are in seconds since the run's start (its first planned moment); tools report them as Unix time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

Kind = Literal["completion", "reply", "join", "poll", "screen", "answer"]
"""`completion`: an LLM request that was sent to the API. The others are a phone's: `reply` is the LLM's text that it
reads after its `answer`."""
LLM = frozenset({"completion", "reply"})
REFUSED = frozenset({429, 503})
_TIMES = ("due_s", "sent_s", "headers_s", "first_s", "ended_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """`n` is the request's number in the plan from 0, or of a phone; `by` who measured: `k6`, `locust` or `probe`.

    `due_s` is when it was planned: None in a closed loop. `sent_s` is None when it was dropped: the tool had nobody
    free to send it. `headers_s` is when the status came. `first_s` is when the first token came, as far as that can be
    told: `first_by` says `token` where a reader saw it, `held headers` where they come with it because the gateway
    holds them. `ended_s` is None when it was still under way at the end. Tokens are the server's own count (`usage`),
    None where it gave none. `gaps_ms` are the times between two deliveries of tokens. `error` is empty when it was
    answered in full. `cell` is the index of the matrix's cell.
    """

    n: int
    by: str
    kind: Kind = "completion"
    due_s: float | None = None
    sent_s: float | None = None
    headers_s: float | None = None
    first_s: float | None = None
    first_by: str = ""
    ended_s: float | None = None
    status: int = 0
    error: str = ""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    gaps_ms: tuple[float, ...] = ()
    cell: int | None = None

    @property
    def outcome(self) -> Literal["served", "dropped", "refused", "failed", "unfinished"]:
        """`refused`: the server said 429 or 503 before a token."""
        if self.sent_s is None:
            return "dropped"
        if self.ended_s is None:
            return "unfinished"
        if self.status in REFUSED:
            return "refused"
        return "failed" if self.error else "served"

    @property
    def tpot_s(self) -> float | None:
        """(end − first token) / (tokens − 1), as vLLM has it; None where one of them is not known."""
        if self.first_s is None or self.ended_s is None or (self.completion_tokens or 0) < 2:
            return None
        return (self.ended_s - self.first_s) / (self.completion_tokens - 1)

    def to_json(self) -> str:
        """A line; fields at their defaults are left out, times to a tenth of a millisecond."""
        values = ((f, getattr(self, f.name)) for f in fields(self))
        return json.dumps({f.name: _short(value) for f, value in values if value != f.default}, separators=(",", ":"))

    @classmethod
    def from_json(cls, line: str | bytes) -> Point:
        """Raises ValueError, TypeError."""
        return cls.from_mapping(json.loads(line))

    @classmethod
    def from_mapping(cls, data: Mapping[str, Any]) -> Point:
        return cls(**{**data, "gaps_ms": tuple(data.get("gaps_ms", ()))})


@dataclass(frozen=True, slots=True)
class Sent:
    """A request has gone out, its point will follow when it ends. `at_s` is Unix time."""

    n: int
    at_s: float
    kind: Kind = "completion"


@dataclass(frozen=True, slots=True)
class Dropped:
    """Arrivals for which the tool had nobody free. `at_s` is Unix time."""

    at_s: float
    count: int = 1


@dataclass(frozen=True, slots=True)
class Began:
    """The tool's schedule has begun: moment 0 of the run. `at_s` is Unix time."""

    at_s: float


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something went wrong in the script itself, with its place where the tool tells it. Not a failed request."""

    text: str


Report = Began | Sent | Dropped | Point | Trouble
"""What a tool says while it runs. The times of a tool's points are Unix times; `rebased` makes them the run's."""


def rebased(point: Point, began_s: float) -> Point:
    times = ((name, getattr(point, name)) for name in _TIMES)
    return replace(point, **{name: at_s - began_s for name, at_s in times if at_s is not None})


def _short(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, tuple):
        return [round(one, 2) for one in value]
    return value
