"""What can happen in a room, as frozen events, and their JSON.

Two kinds, because they are stored apart: *control* events are the presenter's, in one agreed order (`seq`);
*responses* come from phones, are a set without order, and carry an id made by the phone. Times are integer
milliseconds since the epoch by the server's clock.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any

AUDIENCE = "audience"


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """A presenter's act. `id` is unique to the request, so that a repeated append is recognised as the same."""

    id: str
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved(Control):
    """The running order stands at another activity, which is not open yet."""

    activity: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened(Control):
    """The activity takes responses. `duration_s` is its time limit, None for no limit."""

    activity: str
    duration_s: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Extended(Control):
    activity: str
    by_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed(Control):
    """No more responses. For a raffle `entrants` freezes the tickets, in byte order."""

    activity: str
    entrants: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Revealed(Control):
    activity: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn(Control):
    """A winner. A second draw of the same `prize` (an index) replaces an absent winner. `seed` is public from here."""

    activity: str
    prize: int
    ticket: str
    participant: str
    seed: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown(Control):
    """What the stage shows: `auto` follows the running order; else `lobby`, `leaderboard`, `questions` or `podium`."""

    scene: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LobbyLocked(Control):
    on: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ModerationSet(Control):
    on: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Moderated(Control):
    """A verdict on one item from a phone: `approved`, `hidden`, `pinned`, or `pending` to take one back."""

    item: str
    verdict: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Renamed(Control):
    participant: str
    nickname: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed(Control):
    """`on` false lets the participant in again."""

    participant: str
    on: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Archived(Control):
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class SpikeArmed(Control):
    """A load run is made ready. `spike` is its id, `by` the writer whose process runs it; `unit` says what `peak`
    counts. Unless it is fired, it is over at `until_ms`, whatever happens."""

    spike: str
    scenario: str
    tool: str
    peak: int
    unit: str
    duration_s: int
    target: str
    by: str
    until_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SpikeFired(Control):
    """It begins, and is over at `until_ms`, whatever happens."""

    spike: str
    until_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SpikeStopped(Control):
    """It is to end now; `SpikeEnded` follows."""

    spike: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SpikeEnded(Control):
    """`verdict`: `pass`, `fail`, `invalid` or `stopped` as the run has it, `failed` where nothing was measured, `lost`
    where nobody knows. `headline` is a sentence; `ttft_by` says who saw the first tokens. `kept`: the store has its
    summary and its report."""

    spike: str
    verdict: str
    headline: str
    served: int = 0
    failed: int = 0
    dropped: int = 0
    ttft_p95_ms: int | None = None
    ttft_by: str = ""
    kept: bool


SpikeEvent = SpikeArmed | SpikeFired | SpikeStopped | SpikeEnded


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """Something from a phone. (`participant`, `id`) identifies it: whatever repeats it is the same response."""

    id: str
    participant: str
    at_ms: int

    @property
    def key(self) -> str:
        return f"{self.participant}:{self.id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined(Response):
    """`source` is who holds the phone, as the gateway names its sources: `audience`, or the load tool whose script it
    is."""

    nickname: str
    source: str = AUDIENCE

    @property
    def scripted(self) -> bool:
        return self.source != AUDIENCE


@dataclass(frozen=True, slots=True, kw_only=True)
class Named(Response):
    """The participant chose another nickname."""

    nickname: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered(Response):
    activity: str
    choice: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked(Response):
    activity: str
    question: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Surveyed(Response):
    """A survey form. `values` maps a field's id to a number, a text, or a list of texts."""

    activity: str
    values: dict[str, int | str | list[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Replied(Response):
    """The LLM's whole text for the response `to`; its own id is `reply-{to}`. `failed` says that it could not."""

    to: str
    text: str
    failed: bool = False


CONTROL: dict[str, type[Control]] = {
    cls.__name__.lower(): cls
    for cls in (
        Moved,
        Opened,
        Extended,
        Closed,
        Revealed,
        Drawn,
        Shown,
        LobbyLocked,
        ModerationSet,
        Moderated,
        Renamed,
        Removed,
        Archived,
        SpikeArmed,
        SpikeFired,
        SpikeStopped,
        SpikeEnded,
    )
}
RESPONSES: dict[str, type[Response]] = {
    cls.__name__.lower(): cls for cls in (Joined, Named, Answered, Asked, Surveyed, Replied)
}


def encode(event: Control | Response) -> bytes:
    """One JSON object on one line, keys in a fixed order: equal events give equal bytes. Half a surrogate pair, which a
    model may send, becomes a question mark: UTF-8 has no place for it."""
    return json.dumps(
        {"type": type(event).__name__.lower(), **asdict(event)}, ensure_ascii=False, separators=(",", ":")
    ).encode(errors="replace")


def decode_control(line: bytes) -> Control:
    return _decode(line, CONTROL)


def decode_response(line: bytes) -> Response:
    return _decode(line, RESPONSES)


def _decode(line: bytes, types: dict[str, type[Any]]) -> Any:
    """Raises KeyError for an unknown type and TypeError for wrong fields: the log holds only what `encode` wrote."""
    data = json.loads(line)
    cls = types[data.pop("type")]
    return cls(**{f.name: _frozen(data[f.name]) for f in fields(cls) if f.name in data})


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
