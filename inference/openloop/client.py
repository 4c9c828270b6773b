"""Sends a trace to an OpenAI-compatible server at its planned times, whatever the answers do, and measures from those
times: what a slow server delays is in the figures, not left out of them."""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from urllib.parse import urlsplit

from inference.engine.simulation import Arrival, Served
from inference.openloop.gauges import Sample, follow
from inference.openloop.stream import Stream, request
from inference.openloop.trace import Mix
from inference.upstream import Upstream

SAMPLE_EVERY_S = 0.5  # vLLM takes ten milliseconds or more for a page of metrics, and no token leaves it meanwhile
DRAIN_S = 120.0
_LEAD_S = 0.2


@dataclass(frozen=True, slots=True)
class Target:
    """A server: `url` is `http(s)://host:port`, `model` the name to ask it for."""

    url: str
    model: str
    api_key: str | None = None


@dataclass(slots=True)
class Run:
    """What came of a trace. Times are seconds since its start; `served` are the requests that were answered in full, by
    arrival, `unfinished` those that got some tokens only and are in `failed` too; `late_s` says how long after its
    planned time each was sent, `cpu_share` what part of a core we used."""

    served: list[Served] = field(default_factory=list)
    unfinished: list[Served] = field(default_factory=list)
    failed: Counter[str] = field(default_factory=Counter)
    late_s: list[float] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    cpu_share: float = 0.0


async def replay(target: Target, trace: Sequence[Arrival], *, drain_s: float = DRAIN_S) -> Run:
    """The open loop: each request at its planned time. Ends when all are answered, or `drain_s` after the last was due;
    what is not answered by then counts as failed. Raises ValueError for a URL that is none, OSError for a name that
    can't be resolved."""
    sender = await _Sender.to(target)
    requests = [sender.request(arrival) for arrival in trace]
    loop = asyncio.get_running_loop()
    async with sender.running(_LEAD_S) as run:
        start_s = loop.time() + _LEAD_S
        for arrival, body in zip(trace, requests, strict=True):
            loop.call_at(start_s + arrival.at_s, sender.send, arrival, body)
        last_s = max((arrival.at_s for arrival in trace), default=0.0)
        await sender.wait(len(trace), start_s + last_s + drain_s)
    return run


async def saturate(target: Target, concurrency: int, for_s: float, seed: int, mix: Mix | None = None) -> Run:
    """A closed loop: so many requests at a time, the next as soon as one ends. After `for_s` those under way are
    dropped: they are `unfinished`. For finding a capacity, not for latencies. Raises as `replay` does."""
    mix, rng = mix or Mix(), random.Random(seed)
    sender = await _Sender.to(target)
    end_s = asyncio.get_running_loop().time() + for_s

    def send() -> None:
        arrival = mix.draw(rng, sender.now_s())
        sender.send(arrival, sender.request(arrival))

    async with sender.running(0.0) as run:
        sender.on_success = send
        for _ in range(concurrency):
            send()
        await sender.wait(-1, end_s)
    return run


class _Sender:
    """Opens a connection for each request and collects what came."""

    def __init__(self, target: Target, address: tuple[str, int]) -> None:
        parts = urlsplit(target.url)
        self._target = target
        self._netloc = parts.netloc.rpartition("@")[2]
        self._address = address
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._salt = random.Random()  # other prompts in each run: nobody's prefix cache knows them
        self._under_way: dict[Stream, Arrival] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended = 0
        self._changed = asyncio.Event()
        self._start_s = 0.0
        self._run = Run()
        self.on_success: Callable[[], None] | None = None

    @classmethod
    async def to(cls, target: Target) -> _Sender:
        parts = urlsplit(target.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"not an http(s) URL: {target.url!r}")
        port = parts.port or (443 if parts.scheme == "https" else 80)
        # Resolved once, so that no request waits for it.
        found = await asyncio.get_running_loop().getaddrinfo(parts.hostname, port)
        return cls(target, found[0][4][:2])

    def request(self, arrival: Arrival) -> bytes:
        return request(self._netloc, self._target.model, arrival, self._salt, self._target.api_key)

    def now_s(self) -> float:
        return time.monotonic() - self._start_s

    @asynccontextmanager
    async def running(self, lead_s: float) -> AsyncIterator[Run]:
        """The run, whose time starts in `lead_s`; at the end of the block whatever is under way is dropped."""
        self._start_s = time.monotonic() + lead_s
        cpu_s, run = time.process_time(), self._run
        upstream = Upstream(self._target.url, api_key=self._target.api_key)
        follower = asyncio.create_task(follow(upstream, SAMPLE_EVERY_S, self._start_s, run.samples))
        try:
            yield run
        finally:
            run.cpu_share = (time.process_time() - cpu_s) / (time.monotonic() - self._start_s + lead_s)
            self.on_success = None
            for stream in list(self._under_way):
                stream.end("not answered in time")
            tasks = (follower, *self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            upstream.close()
            run.served.sort(key=lambda served: served.arrival.at_s)

    def send(self, arrival: Arrival, body: bytes) -> None:
        stream = Stream(body, self._end)
        self._under_way[stream] = arrival
        task = asyncio.create_task(self._connect(stream))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def wait(self, count: int, until_s: float) -> None:
        """Until `count` requests have ended, or the loop's time is `until_s`."""
        try:
            async with asyncio.timeout_at(until_s):
                while self._ended != count:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            pass

    async def _connect(self, stream: Stream) -> None:
        name = urlsplit(self._target.url).hostname if self._tls else None
        try:
            connection = partial(asyncio.get_running_loop().create_connection, lambda: stream, *self._address)
            await connection(ssl=self._tls, server_hostname=name)
        except OSError as error:
            stream.end(f"cannot connect: {error.strerror or error}")

    def _end(self, stream: Stream) -> None:
        arrival, run = self._under_way.pop(stream), self._run
        if stream.sent_s is not None:
            run.late_s.append(stream.sent_s - self._start_s - arrival.at_s)
        if not stream.error and len(stream.token_s) != arrival.output_tokens:
            stream.error = f"{len(stream.token_s)} tokens where {arrival.output_tokens} were asked for"
        served = Served(arrival, tuple(at_s - self._start_s for at_s in stream.token_s))
        if stream.error:
            run.failed[stream.error] += 1
            run.unfinished += [served] if served.token_s else []
        else:
            run.served.append(served)
            if self.on_success:
                self.on_success()
        self._ended += 1
        self._changed.set()
