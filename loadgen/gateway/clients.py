"""The load: connections that ask and count. Minimal parsing, because they share a core with the replicas.

load = Load(host, port, headers)
async with load.calls(64): …      whole answers, each connection asks again at once
async with load.paced(16, 100): … whole answers, 100 a second whatever happens
async with load.streams(200): …   streams, each connection begins the next when one has ended
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import perf_counter

from loadgen.gateway import wire

FINISH_WITHIN_S = 25.0
"""How long the answers under way may still take when a run ends."""
AGAIN_AFTER_S = 0.05
"""After an error a connection waits this long before it asks again."""
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_LAST_CHUNK = b"0\r\n\r\n"
_TAIL_BYTES = 48  # holds `data: [DONE]` and the last chunk, however they were cut


@dataclass
class Tally:
    """What has been counted so far. `times_s`: (when it began, how long until the answer or the first token), by
    `perf_counter`, as uvloop's own clock has steps of a millisecond."""

    answers: int = 0
    tokens: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    times_s: list[tuple[float, float]] = field(default_factory=list)


class Load:
    """A load on one server. `headers` are whole lines, each with its line end."""

    def __init__(self, host: str, port: int, headers: str = "") -> None:
        self.tally = Tally()
        self.running = False
        self._address = (host, port)
        self._headers = headers

    @asynccontextmanager
    async def calls(self, connections: int) -> AsyncIterator[Tally]:
        async with self._run([_Call(self, self._request(stream=False)) for _ in range(connections)], over_s=0.1):
            yield self.tally

    @asynccontextmanager
    async def paced(self, connections: int, per_s: float) -> AsyncIterator[Tally]:
        """An open model: times count from when a request was due, not from when it could be sent."""
        every_s, request = connections / per_s, self._request(stream=False)
        async with self._run([_Call(self, request, every_s) for _ in range(connections)], over_s=every_s):
            yield self.tally

    @asynccontextmanager
    async def streams(self, connections: int) -> AsyncIterator[Tally]:
        request, spread_s = self._request(stream=True), wire.TOKENS * wire.EVERY_S
        async with self._run([_Stream(self, request) for _ in range(connections)], over_s=spread_s):
            yield self.tally

    @asynccontextmanager
    async def _run(self, connections: list[_Connection], over_s: float) -> AsyncIterator[None]:
        """Starts them evenly `over_s`, and at the end lets each finish what it has asked for."""
        self.running = True
        loop = asyncio.get_running_loop()
        await asyncio.gather(*(loop.create_connection(lambda c=c: c, *self._address) for c in connections))
        for i, connection in enumerate(connections):
            connection.start(loop.time() + over_s * i / len(connections))
        try:
            yield
        finally:
            self.running = False
            for connection in connections:
                connection.stop()
            await asyncio.wait([connection.stopped for connection in connections], timeout=FINISH_WITHIN_S)
            for connection in connections:
                connection.give_up()

    def _request(self, stream: bool) -> bytes:
        body = wire.question(stream)
        return (
            f"POST {wire.PATH} HTTP/1.1\r\nhost: {self._address[0]}:{self._address[1]}\r\n{self._headers}"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        ).encode() + body

    def connect(self, connection: _Connection) -> None:
        """Takes up a connection that the server has closed."""
        loop = asyncio.get_running_loop()

        async def again() -> None:
            try:
                await loop.create_connection(lambda: connection, *self._address)
            except OSError as error:
                connection.failed(f"cannot connect: {error.strerror}")
            else:
                connection.ask()

        connection.task = loop.create_task(again())


class _Connection(asyncio.Protocol):
    """Asks, and asks again, while its load runs. An answer that is no good is counted by what was wrong with it."""

    task: asyncio.Task[None] | None = None

    def __init__(self, load: Load, request: bytes, every_s: float | None = None) -> None:
        self.stopped: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._load = load
        self._request = request
        self._every_s = every_s
        self._loop = asyncio.get_running_loop()
        self._waits: asyncio.TimerHandle | None = None
        self._busy = False
        self._late_s = 0.0
        self._buffer = b""

    def start(self, at: float) -> None:
        self._due_at = at
        self._waits = self._loop.call_at(at, self.ask)

    def stop(self) -> None:
        """Asks for nothing more."""
        if self._waits is not None:
            self._waits.cancel()
        if not self._busy:
            self._leave()

    def give_up(self) -> None:
        if not self.stopped.done():
            self._load.tally.errors[f"unfinished after {FINISH_WITHIN_S:g} s"] += 1
            self._leave()

    def ask(self) -> None:
        if not self._load.running:
            self._leave()
            return
        self._waits = None
        self._buffer = b""
        self._busy = True
        if self._transport.is_closing():
            self._load.connect(self)
            return
        self._begin()
        self._asked_at = perf_counter()
        self._transport.write(self._request)

    def failed(self, reason: str) -> None:
        """The request ended in an error."""
        self._load.tally.errors[reason] += 1
        self._transport.abort()
        self._next(self._loop.time() + AGAIN_AFTER_S)

    def connection_made(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        if self._busy and not self.stopped.done() and self.task is None:
            self.failed("the connection broke")

    def _begin(self) -> None:
        self.task = None

    def _next(self, at: float | None = None) -> None:
        self._busy = False
        if not self._load.running:
            self._leave()
            return
        if self._every_s is not None:
            self._due_at += self._every_s
            at = max(self._due_at, at or 0.0)
            self._late_s = max(0.0, self._loop.time() - self._due_at)
        if at is None or self._late_s:
            self.ask()
        else:
            self._waits = self._loop.call_at(at, self.ask)

    def _leave(self) -> None:
        self._busy = False
        self._transport.close()
        if not self.stopped.done():
            self.stopped.set_result(None)


class _Call(_Connection):
    """Whole answers."""

    def data_received(self, data: bytes) -> None:
        if not self._busy:
            return
        self._buffer = buffer = self._buffer + data if self._buffer else data
        head_end = buffer.find(b"\r\n\r\n") + 4
        if head_end < 4:
            return
        length = _LENGTH.search(buffer, 0, head_end)
        if len(buffer) < head_end + int(length[1]) if length else not buffer.endswith(_LAST_CHUNK):
            return
        if (status := buffer[9:12]) != b"200":
            self.failed(f"status {status.decode('latin-1')}")
        elif b'"choices"' not in buffer:
            self.failed("no answer in a 200")
        else:
            tally = self._load.tally
            tally.answers += 1
            tally.times_s.append((self._asked_at, perf_counter() - self._asked_at + self._late_s))
            self._next()


class _Stream(_Connection):
    """Streams: every token is counted when it comes."""

    def _begin(self) -> None:
        super()._begin()
        self._carried = 0  # tokens in the buffer that have been counted
        self._tokens = 0
        self._pieces: list[bytes] = []
        self._status = b""

    def data_received(self, data: bytes) -> None:
        if not self._busy:
            return
        self._pieces.append(data)
        buffer = self._buffer + data
        if not self._status:
            if b"\r\n\r\n" not in buffer:
                self._buffer = buffer
                return
            self._status = buffer[9:12]
            if self._status != b"200":
                self.failed(f"status {self._status.decode('latin-1')}")
                return
        if new := buffer.count(wire.TOKEN_MARK) - self._carried:
            tally = self._load.tally
            if not self._tokens:
                tally.times_s.append((self._asked_at, perf_counter() - self._asked_at))
            self._tokens += new
            tally.tokens += new
        self._buffer = buffer[-_TAIL_BYTES:]
        self._carried = self._buffer.count(wire.TOKEN_MARK)
        if buffer.endswith(_LAST_CHUNK):
            self._ended()

    def _ended(self) -> None:
        done = b"data: [DONE]" in self._buffer
        if not done or self._tokens != wire.TOKENS:
            # Some gateways begin a chunk wherever a read ended, so that its frame may stand in the middle of a mark.
            body = unchunked(b"".join(self._pieces))
            done, tokens = b"data: [DONE]" in body, body.count(wire.TOKEN_MARK)
            self._load.tally.tokens += tokens - self._tokens
            self._tokens = tokens
        if not done:
            self.failed(f"ended without [DONE] after {self._tokens} tokens")
        elif self._tokens != wire.TOKENS:
            self.failed(f"{self._tokens} tokens instead of {wire.TOKENS}")
        else:
            self._load.tally.answers += 1
            self._next()


def unchunked(raw: bytes) -> bytes:
    """The body of a whole answer with `transfer-encoding: chunked`."""
    _, _, rest = raw.partition(b"\r\n\r\n")
    parts = []
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size.partition(b";")[0], 16)
        parts.append(rest[:length])
        rest = rest[length + 2 :]
    return b"".join(parts)
