"""The line in front of the replicas: who came when, and which replica takes the next."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass

from inference.pool import Pool, Replica
from webapp.gateway.errors import AllFull, GatewayError, NoReplica, QueueFull

MAX_REFUSAL_S = 30.0


@dataclass(frozen=True, slots=True)
class Limits:
    """How many may wait and how long, and how long a replica may keep one waiting."""

    max_waiting: int = 2000
    max_wait_s: float = 120.0
    max_in_flight_per_replica: int = 64
    """Twice vLLM's max-num-seqs: one half runs, the other shows as the replica's own queue, by which it is scaled.
    The rest waits here, where a replica that comes up later can take it."""
    first_token_timeout_s: float = 120.0
    """Nothing from the replica for so long before the first token, and another one is asked. An answer that is not
    streamed comes as a whole, so it must be made in that time."""
    stream_silence_s: float = 60.0
    """The same after the first token, and the stream ends with an error."""


@dataclass(eq=False, slots=True)
class Waiter:
    avoid: Collection[Replica]
    granted: asyncio.Future[Replica]


class Line:
    """Requests are in line from `join()` until their first token. Some of them wait: no replica has room for them.

    A replica is granted to those in the order they came, as soon as it has room, and is the request's until
    `give_back()`.
    """

    def __init__(self, pool: Pool, limits: Limits) -> None:
        self.pool = pool
        self.limits = limits
        self._joined = 0
        self._numbers: list[int] = []  # ascending, as numbers are given in order
        self._waiters: OrderedDict[Waiter, None] = OrderedDict()
        pool.on_room.append(self._serve)

    @property
    def waiting(self) -> int:
        return len(self._waiters)

    def join(self) -> int:
        """A number that stands for the place in line."""
        self._joined += 1
        self._numbers.append(self._joined)
        return self._joined

    def position(self, number: int) -> int:
        """1 for the oldest in line, and so on; 0 for one that has left."""
        i = bisect_left(self._numbers, number)
        return i + 1 if i < len(self._numbers) and self._numbers[i] == number else 0

    def leave(self, number: int) -> None:
        if position := self.position(number):
            del self._numbers[position - 1]

    async def replica(self, avoid: Collection[Replica] = (), again: bool = False, waited_s: float = 0.0) -> Replica:
        """A replica with room, one more request in flight on it already. Raises QueueFull, AllFull or NoReplica.

        A request that comes `again` is older than all who wait: it goes before them, and is never one too many.
        `waited_s` is how long it has waited before.
        """
        if not self._waiters and (chosen := self._pick(avoid)) is not None:
            return chosen
        if not again and len(self._waiters) >= self.limits.max_waiting:
            raise self._refusal("too many requests wait for a replica", QueueFull)
        waiter = Waiter(avoid, asyncio.get_running_loop().create_future())
        self._waiters[waiter] = None
        if again:
            self._waiters.move_to_end(waiter, last=False)
        self._serve()  # those who wait may all avoid the one replica that has room
        try:
            async with asyncio.timeout(max(0.0, self.limits.max_wait_s - waited_s)):
                return await waiter.granted
        except BaseException as error:
            if waiter.granted.done() and not waiter.granted.cancelled():
                self.give_back(waiter.granted.result())
            if isinstance(error, TimeoutError):
                raise self._refusal("no replica had room in time", NoReplica) from None
            raise
        finally:
            self._waiters.pop(waiter, None)

    def give_back(self, replica: Replica) -> None:
        replica.in_flight -= 1
        self._serve()

    def refused(self, replica: Replica, for_s: float) -> None:
        """It said that it has enough requests: it gets none for a while."""
        replica.refusals += 1
        asyncio.get_running_loop().call_later(min(for_s, MAX_REFUSAL_S), self._forget_refusal, replica)

    def states(self) -> dict[str, int]:
        """How many replicas are ready (with room), full and unready."""
        states = {"ready": 0, "full": 0, "unready": 0}
        for replica in self.pool.replicas:
            full = replica.refusals or replica.in_flight >= self.limits.max_in_flight_per_replica
            states[("full" if full else "ready") if replica.ready else "unready"] += 1
        return states

    def _forget_refusal(self, replica: Replica) -> None:
        replica.refusals -= 1
        self._serve()

    def _pick(self, avoid: Collection[Replica]) -> Replica | None:
        chosen = self.pool.pick(avoid, self.limits.max_in_flight_per_replica)
        if chosen is not None:
            chosen.in_flight += 1
        return chosen

    def _serve(self) -> None:
        """Grant what is free to those who have waited longest."""
        served = []
        for waiter in self._waiters:
            if waiter.granted.done():
                continue
            chosen = self._pick(waiter.avoid)
            if chosen is not None:
                waiter.granted.set_result(chosen)
                served.append(waiter)
            elif not waiter.avoid:
                break
        for waiter in served:
            del self._waiters[waiter]

    def _refusal(self, message: str, none_ready: type[GatewayError]) -> GatewayError:
        return AllFull(f"{message}: all are busy") if self.pool.ready_count else none_ready(f"{message}: none is ready")
