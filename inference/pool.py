"""The replicas behind the gateway: which there are, which are ready, how busy each is, and the one to take next.

Any OpenAI-compatible server may stand behind a URL. What it lacks (`/health`, vLLM's `/metrics`) is
done without.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from time import monotonic

from inference.upstream import Upstream, UpstreamError

log = logging.getLogger("crowdspike.pool")

CHECK_EVERY_S = 1.0
CHECK_TIMEOUT_S = 2.0
MAX_TIMEOUTS = 2
MAX_BACK_OFF = 5.0
STALE_AFTER_S = 5.0
RUNNING = b"vllm:num_requests_running"
WAITING = b"vllm:num_requests_waiting"


@dataclass(eq=False, slots=True)
class Replica:
    """One server. `in_flight` is our own count; `running` and `waiting` are what it last reported."""

    url: str
    upstream: Upstream = field(repr=False)
    in_flight: int = 0
    running: int = 0
    waiting: int = 0
    others: int = 0
    """Requests that it reported beyond our own: those of other gateways."""
    ready: bool = False
    models: tuple[str, ...] = ()
    refusals: int = 0
    """Requests that it refused as it has enough of them, and that have not been forgotten: until then it gets none."""
    timeouts: int = 0
    """Health checks in a row that took too long."""

    @property
    def model(self) -> str | None:
        """The one it serves, the first of several."""
        return self.models[0] if self.models else None

    @property
    def load(self) -> int:
        # Our own count is exact at this moment and a request of ours that waits there is in the report as well, so of
        # the report only the surplus over our own count at that time is added.
        return self.in_flight + self.others


class Pool:
    """Checks every replica once a second, each on its own, so that one that stalls delays no other."""

    def __init__(
        self,
        urls: Iterable[str] = (),
        *,
        api_key: str | None = None,
        check_every_s: float = CHECK_EVERY_S,
        check_timeout_s: float = CHECK_TIMEOUT_S,
        stale_after_s: float = STALE_AFTER_S,
    ) -> None:
        self.replicas: tuple[Replica, ...] = ()
        self.model_names: set[str] = set()
        """Of all models that replicas serve or have served."""
        self.on_room: list[Callable[[], None]] = []
        """Each is called when a replica has become ready."""
        self._api_key = api_key
        self._check_every_s = check_every_s
        self._check_timeout_s = check_timeout_s
        self._stale_after_s = stale_after_s
        self._started = False
        self._tasks: dict[Replica, list[asyncio.Task[None]]] = {}
        self.set(urls)

    async def start(self) -> None:
        """Check every replica once, then go on in the background."""
        assert not self._started, "started twice"
        self._started = True
        await asyncio.gather(*(self._check(replica) for replica in self.replicas))
        for replica in self.replicas:
            if replica not in self._tasks:
                self._watch(replica)

    async def close(self) -> None:
        tasks = [task for of_one in self._tasks.values() for task in of_one]
        self.set(())
        await asyncio.gather(*tasks, return_exceptions=True)

    def set(self, urls: Iterable[str]) -> None:
        """From now on there are exactly these. What is in flight on one that goes is served to its end."""
        wanted = dict.fromkeys(urls)
        known = {replica.url: replica for replica in self.replicas}
        for replica in self.replicas:
            if replica.url not in wanted:
                self._let_go(replica)
        self.replicas = tuple(known.get(url) or self._new(url) for url in wanted)

    def add(self, url: str) -> None:
        self.set([*self.urls, url])

    def remove(self, url: str) -> None:
        self.set(known for known in self.urls if known != url)

    @property
    def urls(self) -> list[str]:
        return [replica.url for replica in self.replicas]

    @property
    def ready_count(self) -> int:
        return sum(replica.ready for replica in self.replicas)

    def models(self) -> list[str]:
        """The names of the models that the replicas serve or served when they were last ready."""
        return sorted({name for replica in self.replicas for name in replica.models})

    def pick(self, avoid: Collection[Replica] = (), limit: float = float("inf")) -> Replica | None:
        """The least loaded of the ready replicas with fewer than `limit` of our requests, ties at random.

        One in `avoid` comes only when no other is ready. None when there is none to take now.
        """
        among = self.replicas
        if avoid:
            ready = [replica for replica in among if replica.ready]
            among = tuple(replica for replica in ready if replica not in avoid) or ready
        chosen, least, ties = None, float("inf"), 0
        for replica in among:
            if not replica.ready or replica.in_flight >= limit or replica.refusals:
                continue
            load = replica.load
            if load < least:
                chosen, least, ties = replica, load, 1
            elif load == least:
                ties += 1
                if random.random() * ties < 1:  # each of the tied ones is as likely
                    chosen = replica
        return chosen

    def mark_unready(self, replica: Replica) -> None:
        """To be called when a connection to it failed; the next check that succeeds makes it ready again."""
        self._set_ready(replica, False)

    def _new(self, url: str) -> Replica:
        replica = Replica(url, Upstream(url, api_key=self._api_key))
        if self._started:
            self._watch(replica, check_now=True)
        return replica

    def _let_go(self, replica: Replica) -> None:
        replica.ready = False
        for task in self._tasks.pop(replica, ()):
            task.cancel()
        replica.upstream.close()

    def _watch(self, replica: Replica, check_now: bool = False) -> None:
        self._tasks[replica] = [
            asyncio.create_task(self._keep_checking(replica, check_now)),
            asyncio.create_task(self._keep_reading(replica)),
        ]

    async def _keep_checking(self, replica: Replica, check_now: bool) -> None:
        failures = 0
        if not check_now:
            await asyncio.sleep(self._check_every_s)
        while True:
            if await self._check(replica):
                failures = 0
                await asyncio.sleep(self._check_every_s)
            else:
                failures += 1
                await asyncio.sleep(self._check_every_s * back_off(failures) * random.uniform(0.8, 1.2))

    async def _check(self, replica: Replica) -> bool:
        """Whether it is ready, which is noted: a refusal counts at once, a check that takes too long from the second
        in a row on, and not at all while the replica delivers."""
        began_at = monotonic()
        try:
            async with asyncio.timeout(self._check_timeout_s):
                passed = await _is_healthy(replica)
            replica.timeouts = 0
        except UpstreamError:
            passed = False
        except TimeoutError:
            replica.timeouts += replica.upstream.delivered_at < began_at
            passed = replica.ready and replica.timeouts < MAX_TIMEOUTS
        self._set_ready(replica, passed)
        return passed

    async def _keep_reading(self, replica: Replica) -> None:
        """Keep up with its own figures, apart from its health: a slow scrape is no illness."""
        read_at = 0.0
        while True:
            if replica.ready:
                ours = replica.in_flight
                try:
                    async with asyncio.timeout(self._check_timeout_s):
                        status, body = await _fetch(replica.upstream, "/metrics")
                    if status == 200:
                        running, waiting, read_at = gauge(body, RUNNING), gauge(body, WAITING), monotonic()
                        replica.running, replica.waiting = running, waiting
                        replica.others = max(0, running + waiting - max(ours, replica.in_flight))
                except (UpstreamError, TimeoutError, ValueError, OverflowError):
                    pass
            if monotonic() - read_at > self._stale_after_s:
                replica.running = replica.waiting = replica.others = 0
            await asyncio.sleep(self._check_every_s)

    def _set_ready(self, replica: Replica, ready: bool) -> None:
        came = ready and not replica.ready
        replica.ready = ready
        self.model_names.update(replica.models)
        if not ready:
            replica.running = replica.waiting = replica.others = 0
        if came:
            for tell in self.on_room:
                tell()


async def _is_healthy(replica: Replica) -> bool:
    health, _ = await _fetch(replica.upstream, "/health")
    if health >= 400 and health not in (404, 405, 501):
        return False
    if health >= 400 or not replica.ready or not replica.models:
        status, body = await _fetch(replica.upstream, "/v1/models")
        if status != 200:
            return False
        replica.models = _model_names(body)
    return True


def back_off(failures: int) -> float:
    """The pause after so many failed checks in a row, in units of the usual one; jitter comes on top."""
    return min(2.0 ** min(failures - 2, 8), MAX_BACK_OFF)


def gauge(text: bytes, name: bytes) -> int:
    """The sum of a gauge over its labels in Prometheus text; 0 when it is absent. Raises ValueError."""
    total = 0.0
    # Cut at the name, rather than line by line: such a page has 50 kB and each replica's is read each second.
    for piece in (b"\n" + text).split(b"\n" + name)[1:]:
        if piece[:1] in (b"{", b" "):
            total += float(piece.partition(b"\n")[0].rpartition(b" ")[2])
    return int(total)


async def _fetch(upstream: Upstream, path: str) -> tuple[int, bytes]:
    exchange = await upstream.get(path)
    try:
        return exchange.status, await exchange.read()
    finally:
        exchange.close()


def _model_names(body: bytes) -> tuple[str, ...]:
    try:
        return tuple(str(card["id"]) for card in json.loads(body)["data"])
    except (ValueError, LookupError, TypeError):
        return ()
