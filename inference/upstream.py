"""HTTP/1.1 to one replica: keep-alive connections whose answers can be dropped at any moment.

Written on asyncio and httptools because abort must be certain: `Exchange.close()` closes the socket at once, in every
phase, which is how a replica learns that nobody wants its tokens.

    UpstreamError
    ├── ConnectFailed    nothing was sent: the replica can't be reached
    ├── ConnectionLost   the connection ended before the answer did
    └── Silent           nothing arrived for `silence_s`
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from urllib.parse import urlsplit

import httptools

CONNECT_TIMEOUT_S = 3.0
# vLLM (uvicorn) closes an idle connection after 5 s; one reused at that moment would fail.
IDLE_S = 4.0
SILENCE_S = 120.0
BUFFER_BYTES = 256 * 1024


class UpstreamError(Exception):
    """The replica gave no whole answer."""


class ConnectFailed(UpstreamError):
    pass


class ConnectionLost(UpstreamError):
    pass


class Silent(UpstreamError):
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
        self._idle_s = idle_s
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._host = parts.hostname
        self._port = parts.port or (443 if self._tls else 80)
        self._base = parts.path.rstrip("/")
        self._marks = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._netloc = parts.netloc.rpartition("@")[2]
        self._idle: list[Exchange] = []
        self._closed = False

    async def get(self, path: str) -> Exchange:
        """Send a GET; returns when the status and headers are there. Raises UpstreamError."""
        return await self._send("GET", path, b"", {})

    async def post(self, path: str, body: bytes, headers: Mapping[str, str] | None = None) -> Exchange:
        """Send a POST with a JSON body; returns when the status and headers are there. Raises UpstreamError."""
        return await self._send("POST", path, body, headers or {})

    def close(self) -> None:
        """Close the idle connections; those in use close with their exchange."""
        self._closed = True
        for exchange in list(self._idle):
            exchange.abort()

    async def _send(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Exchange:
        lines = [f"{method} {self._base}{path} HTTP/1.1", f"host: {self._netloc}", "accept: */*"]
        if method == "POST":
            lines += ["content-type: application/json", f"content-length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in (self._marks | dict(headers)).items()]
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        exchange = self._reuse() or await self._connect()
        try:
            exchange.begin(head + body)
            await exchange.headers_arrived()
        except BaseException:
            exchange.abort()
            raise
        return exchange

    def _reuse(self) -> Exchange | None:
        while self._idle:
            exchange = self._idle.pop()
            if exchange.usable:
                return exchange
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

    def _keep(self, exchange: Exchange) -> None:
        if self._closed:
            exchange.abort()
            return
        self._idle.append(exchange)
        exchange.expire_after(self._idle_s)

    def _forget(self, exchange: Exchange) -> None:
        if exchange in self._idle:
            self._idle.remove(exchange)


class Exchange(asyncio.Protocol):
    """A connection, and the answer on it: `status`, `headers` (names in lower case), then `chunk()` until empty.

    One reader at a time. `close()` gives a finished connection back for the next request and drops any other at once;
    a reader that waits meanwhile gets ConnectionLost.
    """

    status: int
    headers: dict[str, str]

    def __init__(self, upstream: Upstream, loop: asyncio.AbstractEventLoop) -> None:
        self._upstream = upstream
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._in_use = False
        self._complete = False

    @property
    def usable(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def begin(self, request: bytes) -> None:
        """Start the next request on this connection."""
        self._parser = httptools.HttpResponseParser(self)
        self.status = 0
        self.headers = {}
        self._chunks: list[bytes] = []
        self._buffered = 0
        self._paused = False
        self._complete = False
        self._keep_alive = False
        self._error: UpstreamError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._in_use = True
        self._heard_at = self._loop.time()
        self._set_timer(self._upstream.silence_s, self._check_silence)
        if not self.usable:
            raise ConnectionLost("the replica closed the connection")
        self._transport.write(request)

    async def headers_arrived(self) -> None:
        while not self.status:
            await self._wait()

    async def chunk(self) -> bytes:
        """The next bytes of the body, as many as are there; empty at its end. Raises UpstreamError."""
        while not self._chunks:
            if self._complete:
                return b""
            await self._wait()
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self._buffered = 0
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        return data

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
        self._in_use = False
        self._set_timer(None)
        if self._transport is not None:
            self._transport.abort()

    def expire_after(self, idle_s: float) -> None:
        self._set_timer(idle_s, self.abort)

    async def _wait(self) -> None:
        if self._error is not None:
            raise self._error
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, error: UpstreamError) -> None:
        if self._error is None and not self._complete:
            self._error = error
        self._wake()

    def _set_timer(self, after_s: float | None, action=None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if after_s is None else self._loop.call_later(after_s, action)

    def _check_silence(self) -> None:
        # One lazy timer for each request, not one for each token.
        left_s = self._heard_at + self._upstream.silence_s - self._loop.time()
        if self._complete:
            return
        if left_s > 0 or self._paused:
            self._set_timer(max(left_s, 1.0), self._check_silence)
        else:
            self._fail(Silent(f"the replica sent nothing for {self._upstream.silence_s:g} s"))

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if not self._in_use:
            self.abort()  # an answer that nobody asked for
            return
        self._heard_at = self._loop.time()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(ConnectionLost(f"the replica sent broken HTTP: {error}"))
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._upstream._forget(self)
        self._set_timer(None)
        self._transport = None
        if not hasattr(self, "_parser"):
            return
        if exc is None and self.status and not {"content-length", "transfer-encoding"} & self.headers.keys():
            self._complete = True  # such an answer ends with its connection
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
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def on_message_complete(self) -> None:
        self._complete = True
        self._keep_alive = self._parser.should_keep_alive()
        self._wake()
