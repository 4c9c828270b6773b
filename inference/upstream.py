"""HTTP/1.1 to one replica: keep-alive connections whose answers can be dropped at any moment.

Written on asyncio and httptools because abort must be certain: `Exchange.close()` closes the socket at once, in every
phase, which is how a replica learns that nobody wants its tokens.

    UpstreamError
    ├── ConnectFailed    nothing was sent: the replica can't be reached
    ├── ConnectionLost   the connection ended before the answer did
    ├── Silent           nothing arrived for `silence_s`
    └── Overflow         the reader left more than BUFFER_BYTES unread
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from time import monotonic
from urllib.parse import urlsplit

import httptools

CONNECT_TIMEOUT_S = 3.0
# vLLM (uvicorn) closes an idle connection after 5 s; one reused at that moment would fail.
IDLE_S = 4.0
SILENCE_S = 120.0
BUFFER_BYTES = 256 * 1024
# A burst may pass the bound before its reader has had a turn; a reader that is alive takes it within this time.
OVERFLOW_AFTER_S = 1.0
NEVER = float("inf")


class UpstreamError(Exception):
    """The replica gave no whole answer."""


class ConnectFailed(UpstreamError):
    pass


class ConnectionLost(UpstreamError):
    pass


class Silent(UpstreamError):
    pass


class Overflow(UpstreamError):
    pass


class Upstream:
    """The connections to one replica. `url` may carry a path, which then comes before every path asked for.

    `api_key` goes along with every request as a bearer token.
    """

    def __init__(
        self, url: str, *, api_key: str | None = None, idle_s: float = IDLE_S, silence_s: float = SILENCE_S
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"not an http(s) URL: {url!r}")
        self.silence_s = silence_s
        self._delivered_at = 0.0
        self._idle_s = idle_s
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._host = parts.hostname
        self._port = parts.port or (443 if self._tls else 80)
        self._base = parts.path.rstrip("/")
        self._marks = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._netloc = parts.netloc.rpartition("@")[2]
        self._idle: list[Exchange] = []
        self._busy: set[Exchange] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._sweep_at = 0.0
        self._closed = False

    async def get(self, path: str) -> Exchange:
        """Send a GET; returns when the status and headers are there. Raises UpstreamError."""
        return await self._send("GET", path, b"", {})

    async def post(
        self, path: str, body: bytes, headers: Mapping[str, str] | None = None, silence_s: float | None = None
    ) -> Exchange:
        """Send a POST with a JSON body; returns when the status and headers are there. Raises UpstreamError."""
        return await self._send("POST", path, body, headers or {}, silence_s)

    def close(self) -> None:
        """Close the idle connections; those in use close with their exchange."""
        self._closed = True
        for exchange in list(self._idle):
            exchange.abort()
        if self._sweeper is not None and not self._busy:
            self._sweeper.cancel()
            self._sweeper = None

    async def _send(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str], silence_s: float | None = None
    ) -> Exchange:
        lines = [f"{method} {self._base}{path} HTTP/1.1", f"host: {self._netloc}", "accept: */*"]
        if method == "POST":
            lines += ["content-type: application/json", f"content-length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in (self._marks | dict(headers)).items()]
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        exchange = self._reuse() or await self._connect()
        try:
            exchange.begin(head + body, method == "POST", self.silence_s if silence_s is None else silence_s)
            await exchange.headers_arrived()
        except BaseException:
            exchange.abort()
            raise
        return exchange

    def _reuse(self) -> Exchange | None:
        while self._idle:
            exchange = self._idle.pop()
            if exchange.usable and exchange.deadline > monotonic():
                return exchange
            exchange.abort()
        return None

    async def _connect(self) -> Exchange:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                _, exchange = await loop.create_connection(
                    lambda: Exchange(self, loop), self._host, self._port, ssl=self._tls
                )
        except (OSError, TimeoutError) as error:
            raise ConnectFailed(f"cannot connect to {self._netloc}: {error}") from error
        return exchange

    @property
    def in_use(self) -> int:
        """Connections with a POST on them."""
        return sum(exchange.is_post for exchange in self._busy)

    @property
    def delivered_at(self) -> float:
        """`time.monotonic()` when bytes of some answer to a POST last came; 0 before."""
        return max([self._delivered_at, *(exchange.heard_at for exchange in self._busy if exchange.is_post)])

    def _keep(self, exchange: Exchange) -> None:
        if self._closed:
            exchange.abort()
            return
        self._free(exchange)
        self._idle.append(exchange)
        exchange.deadline = monotonic() + self._idle_s
        self._look_at(exchange.deadline)

    def _free(self, exchange: Exchange) -> None:
        if exchange in self._busy:
            self._busy.remove(exchange)
            if exchange.is_post:
                self._delivered_at = max(self._delivered_at, exchange.heard_at)

    def _forget(self, exchange: Exchange) -> None:
        self._free(exchange)
        if exchange in self._idle:
            self._idle.remove(exchange)

    def _look_at(self, at: float) -> None:
        """Have a look at all connections no later than then. One timer for all: two for each request cost more than
        choosing its replica."""
        if self._sweeper is not None:
            if self._sweep_at <= at:
                return
            self._sweeper.cancel()
        self._sweep_at = at
        wait_s = max(0.005, at - monotonic())
        self._sweeper = asyncio.get_running_loop().call_later(wait_s, self._sweep)

    def _sweep(self) -> None:
        self._sweeper = None
        now = monotonic()
        for exchange in [*self._idle, *self._busy]:
            if exchange.deadline <= now:
                exchange.expire()
        due = min((exchange.deadline for exchange in (*self._idle, *self._busy)), default=NEVER)
        if due < NEVER:
            self._look_at(due)


class Exchange(asyncio.Protocol):
    """A connection, and the answer on it: `status`, `headers` (names in lower case), then `chunk()` until empty.

    One reader at a time. `close()` gives a finished connection back for the next request and drops any other at once;
    a reader that waits meanwhile gets ConnectionLost. A reader that takes too little holds the replica back, unless
    `drop_slow_reader()` was called.
    """

    status: int
    headers: dict[str, str]
    heard_at: float
    """`time.monotonic()` when the last bytes came; 0 before."""
    deadline: float
    """When to look whether it has been silent, or idle, for too long."""

    def __init__(self, upstream: Upstream, loop: asyncio.AbstractEventLoop) -> None:
        self._upstream = upstream
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._in_use = False
        self._complete = False
        self._error: UpstreamError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._overflow_timer: asyncio.TimerHandle | None = None

    @property
    def complete(self) -> bool:
        """The whole answer has arrived, read or not."""
        return self._complete

    @property
    def usable(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def begin(self, request: bytes, is_post: bool, silence_s: float) -> None:
        """Start the next request on this connection. Nothing received for `silence_s` ends it with Silent."""
        self.is_post = is_post
        self.heard_at = 0.0
        self.status = 0
        self.headers = {}
        self._chunks: list[bytes] = []
        self._buffered = 0
        self._paused = False
        self._complete = False
        self._keep_alive = False
        self._on_overflow: Callable[[], None] | None = None
        self._in_use = True
        self._upstream._busy.add(self)
        self.expect(silence_s)
        if not self.usable:
            raise ConnectionLost("the replica closed the connection")
        self._transport.write(request)

    def expect(self, within_s: float) -> None:
        """From now on, end the exchange with Silent when nothing is received for so long."""
        self._silence_s = within_s
        self._silent_since = monotonic()
        self.deadline = self._silent_since + within_s
        self._upstream._look_at(self.deadline)

    def drop_slow_reader(self, tell: Callable[[], None]) -> None:
        """From now on, end the exchange with Overflow and call `tell`, when the reader leaves too much unread.

        To hold the replica back would only make it collect what nobody reads.
        """
        self._on_overflow = tell

    async def headers_arrived(self) -> None:
        while not self.status:
            await self.wait()

    async def chunk(self) -> bytes:
        """The next bytes of the body, as many as are there; empty at its end. Raises UpstreamError."""
        while not (data := self.take()) and not self._complete:
            await self.wait()
        return data

    def take(self) -> bytes:
        """The bytes of the body that are there, or none."""
        chunks = self._chunks
        if not chunks:
            return b""
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        self._buffered = 0
        if self._paused:
            self._resume()
        return data

    async def wait(self) -> None:
        """Until there is more, or the answer is complete. Raises UpstreamError."""
        if self._error is not None:
            raise self._error
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    async def read(self) -> bytes:
        """The rest of the body. Raises UpstreamError."""
        parts = []
        while part := await self.chunk():
            parts.append(part)
        return b"".join(parts)

    def close(self) -> None:
        """End the exchange: keep the connection if the answer is complete, otherwise abort it. May be called again."""
        if not self._in_use:
            return
        if self._complete and not self._chunks and self._keep_alive and self.usable:
            self._in_use = False
            self._upstream._keep(self)
        else:
            self.abort()

    def abort(self) -> None:
        self._let_go()
        if self._transport is not None:
            self._transport.abort()

    def expire(self) -> None:
        """The deadline has come: end it if it was silent, or idle, until then."""
        if not self._in_use:
            self.abort()
        elif self._complete or self._paused:
            self.deadline = monotonic() + self._silence_s
        elif (silent_at := max(self.heard_at, self._silent_since) + self._silence_s) > monotonic():
            self.deadline = silent_at
        else:
            self.deadline = NEVER
            self._fail(Silent(f"the replica sent nothing for {self._silence_s:g} s"))

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, error: UpstreamError) -> None:
        if self._error is None and not self._complete:
            self._error = error
        self._wake()

    def _pause(self) -> None:
        self._paused = True
        self._transport.pause_reading()
        if self._on_overflow is not None:
            self._overflow_timer = self._loop.call_later(OVERFLOW_AFTER_S, self._overflow)

    def _stop_overflow(self) -> None:
        if self._overflow_timer is not None:
            self._overflow_timer.cancel()
            self._overflow_timer = None

    def _let_go(self) -> None:
        self._in_use = False
        self._stop_overflow()
        self._upstream._forget(self)

    def _resume(self) -> None:
        self._paused = False
        self._stop_overflow()
        if self._transport is not None:
            self._transport.resume_reading()
            self._silent_since = monotonic()

    def _overflow(self) -> None:
        tell = self._on_overflow
        self._chunks.clear()
        self._fail(Overflow(f"the reader left over {BUFFER_BYTES} bytes unread"))
        self.abort()
        if tell is not None:
            tell()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if not self._in_use:
            self.abort()  # an answer that nobody asked for
            return
        self.heard_at = monotonic()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(ConnectionLost(f"the replica sent broken HTTP: {error}"))
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is None and self._in_use and self.status:
            # An answer without either of these ends with its connection.
            self._complete = self._complete or not {"content-length", "transfer-encoding"} & self.headers.keys()
        self._let_go()
        self._transport = None
        self._fail(ConnectionLost("the replica closed the connection before its answer ended"))

    # What the parser calls.

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        self._wake()

    def on_body(self, body: bytes) -> None:
        self._chunks.append(body)
        self._buffered += len(body)
        if self._buffered > BUFFER_BYTES and not self._paused:
            self._pause()
        self._wake()

    def on_message_complete(self) -> None:
        self._complete = True
        self._keep_alive = self._parser.should_keep_alive()
        self._wake()
