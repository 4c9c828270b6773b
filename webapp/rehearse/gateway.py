"""The gateway's line on a fast clock: least loaded replica, so many requests on each, the rest in order of arrival.

The rules are those of webapp/gateway/line.py and inference/pool.py, with their own limits. Absent: retries after errors
other than a replica's end, callers that go away, several gateways.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Literal

from inference.engine.core import Core
from inference.engine.scheduler import Sequence
from webapp.gateway.line import Limits
from webapp.rehearse.script import Request

Outcome = Literal["answered", "refused", "broken"]
"""`refused`: no room for it, none in time, or longer than the model's context. `broken`: its replica ended after the
first token."""


@dataclass(eq=False, slots=True)
class Call:
    """One request of the room. Times in seconds; None until it has happened."""

    request: Request
    came_s: float
    first_s: float | None = None
    ended_s: float | None = None
    outcome: Outcome | None = None
    replica: Replica | None = None
    seq: Sequence | None = None

    @property
    def ttft_s(self) -> float | None:
        return None if self.first_s is None else self.first_s - self.came_s

    def end(self, outcome: Outcome, now_s: float) -> None:
        assert self.outcome is None, "a request ends once"
        self.outcome, self.ended_s = outcome, now_s


@dataclass(eq=False, slots=True)
class Replica:
    """A pod's engine as the gateway knows it. `open`: it may be given requests."""

    pod: str
    core: Core
    open: bool = False
    calls: dict[Call, None] = field(default_factory=dict)


class Gateway:
    """`send(call, replica)` is called for each request that a replica is to take."""

    def __init__(self, send: Callable[[Call, Replica], None], seed: int, limits: Limits | None = None) -> None:
        self.replicas: list[Replica] = []
        self.limits = limits or Limits()
        self._send = send
        self._rng = Random(f"gateway {seed}")
        self._waiting: deque[Call] = deque()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def came(self, call: Call, now_s: float) -> None:
        """A request that is new."""
        if not self._waiting and (replica := self._pick()) is not None:
            self._give(call, replica)
        elif len(self._waiting) >= self.limits.max_waiting:
            call.end("refused", now_s)
        else:
            self._waiting.append(call)

    def tired(self, call: Call, now_s: float) -> None:
        """It has waited as long as it may."""
        if call.outcome is None and call.replica is None:
            self._waiting.remove(call)
            call.end("refused", now_s)

    def ended(self, call: Call, outcome: Outcome, now_s: float) -> None:
        assert call.replica is not None
        call.end(outcome, now_s)
        del call.replica.calls[call]
        self.serve()

    def lost(self, replica: Replica, now_s: float) -> None:
        """The replica is gone: who has no token yet goes before all who wait, for the others it is over."""
        self.replicas.remove(replica)
        for call in reversed(replica.calls):
            call.replica = call.seq = None
            if call.first_s is not None:
                call.end("broken", now_s)
            elif now_s - call.came_s >= self.limits.max_wait_s:
                call.end("refused", now_s)
            else:
                self._waiting.appendleft(call)
        replica.calls.clear()
        self.serve()

    def serve(self) -> None:
        """Give what is free to those who have waited longest."""
        while self._waiting and (replica := self._pick()) is not None:
            self._give(self._waiting.popleft(), replica)

    def _give(self, call: Call, replica: Replica) -> None:
        call.replica = replica
        replica.calls[call] = None
        self._send(call, replica)

    def _pick(self) -> Replica | None:
        room = [r for r in self.replicas if r.open and len(r.calls) < self.limits.max_in_flight_per_replica]
        if not room:
            return None
        least = min(len(r.calls) for r in room)
        return self._rng.choice([r for r in room if len(r.calls) == least])
