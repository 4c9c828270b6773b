"""The replicas behind the gateway: which are ready, how busy each is, and the one to take next.

Any OpenAI-compatible server may stand behind a URL. What it lacks (`/health`, vLLM's `/metrics`) is
done without.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from inference.upstream import Exchange, Upstream, UpstreamError

CHECK_EVERY_S = 1.0
CHECK_TIMEOUT_S = 3.0
RUNNING = "vllm:num_requests_running"
WAITING = "vllm:num_requests_waiting"


@dataclass(eq=False, slots=True)
class Replica:
    """One server. `in_flight` is our own count; `running` and `waiting` are what it last reported."""

    url: str
    upstream: Upstream = field(repr=False)
    in_flight: int = 0
    running: int = 0
    waiting: int = 0
    ready: bool = False
    model: str | None = None

    @property
    def load(self) -> int:
        return self.in_flight + self.waiting


class Pool:
    """Checks every replica once a second, each on its own, so that one that stalls delays no other."""

    def __init__(
        self, urls: Iterable[str], *, api_key: str | None = None, check_every_s: float = CHECK_EVERY_S
    ) -> None:
        self.replicas = tuple(Replica(url, Upstream(url, api_key=api_key)) for url in urls)
        self._check_every_s = check_every_s
        self._some_ready = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Check every replica once, then go on in the background."""
        assert not self._tasks, "started twice"
        await asyncio.gather(*(self._check(replica) for replica in self.replicas))
        self._tasks = [asyncio.create_task(self._watch(replica)) for replica in self.replicas]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        for replica in self.replicas:
            replica.upstream.close()

    def pick(self, avoid: Collection[Replica] = ()) -> Replica | None:
        """The ready replica with the fewest requests in flight and reported waiting, ties at random.

        One in `avoid` comes only when nothing else is ready. None when none is.
        """
        ready = [replica for replica in self.replicas if replica.ready]
        choice = [replica for replica in ready if replica not in avoid] or ready
        if not choice:
            return None
        least = min(replica.load for replica in choice)
        return random.choice([replica for replica in choice if replica.load == least])

    async def wait_ready(self) -> None:
        """Return as soon as some replica is ready; those who wait go on in the order they came."""
        await self._some_ready.wait()

    def mark_unready(self, replica: Replica) -> None:
        """To be called when a connection to it failed; the next check that succeeds makes it ready again."""
        self._set_ready(replica, False)

    @property
    def ready_count(self) -> int:
        return sum(replica.ready for replica in self.replicas)

    def models(self) -> list[str]:
        """The names of the models that the replicas serve or served when they were last ready."""
        return sorted({replica.model for replica in self.replicas if replica.model})

    async def _watch(self, replica: Replica) -> None:
        while True:
            await asyncio.sleep(self._check_every_s)
            await self._check(replica)

    async def _check(self, replica: Replica) -> None:
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                await self._look_at(replica)
        except (UpstreamError, TimeoutError):
            self._set_ready(replica, False)

    async def _look_at(self, replica: Replica) -> None:
        health, _ = await _fetch(replica.upstream, "/health")
        if health >= 400 and health not in (404, 405, 501):
            self._set_ready(replica, False)
            return
        if health >= 400 or not replica.ready or replica.model is None:
            status, body = await _fetch(replica.upstream, "/v1/models")
            if status != 200:
                self._set_ready(replica, False)
                return
            replica.model = _model_name(body)
        self._set_ready(replica, True)
        status, body = await _fetch(replica.upstream, "/metrics")
        if status == 200:
            text = body.decode("utf-8", "replace")
            replica.running = gauge(text, RUNNING)
            replica.waiting = gauge(text, WAITING)

    def _set_ready(self, replica: Replica, ready: bool) -> None:
        replica.ready = ready
        if not ready:
            replica.running = replica.waiting = 0
        if self.ready_count:
            self._some_ready.set()
        else:
            self._some_ready.clear()


def gauge(text: str, name: str) -> int:
    """The sum of a gauge over its labels in Prometheus text; 0 when it is absent."""
    total = 0.0
    for line in text.splitlines():
        if line.startswith(name) and line[len(name) : len(name) + 1] in ("{", " "):
            total += float(line.rsplit(" ", 1)[1])
    return int(total)


async def _fetch(upstream: Upstream, path: str) -> tuple[int, bytes]:
    exchange: Exchange = await upstream.get(path)
    try:
        return exchange.status, await exchange.read()
    finally:
        exchange.close()


def _model_name(body: bytes) -> str | None:
    try:
        return str(json.loads(body)["data"][0]["id"])
    except (ValueError, LookupError, TypeError):
        return None
