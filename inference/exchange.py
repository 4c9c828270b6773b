"""One HTTP/1.1 connection to a replica, and the answer on it, which can be dropped at any moment.

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
from collections.abc import Callable
from time import monotonic
from typing import Protocol

import httptools

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


class Owner(Protocol):
    """Who keeps the connections."""

    def begun(self, exchange: Exchange) -> None:
        """It carries a request from now on."""

    def keep(self, exchange: Exchange) -> None:
        """It is free for another request."""

    def forget(self, exchange: Exchange) -> None:
        """It is of no use any more."""

    def look_at(self, at: float) -> None:
        """Have a look at the deadlines of all no later than at that `time.monotonic()`."""


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

    def __init__(self, owner: Owner, loop: asyncio.AbstractEventLoop) -> None:
        self._owner = owner
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
        self._sink: Callable[[bytes], bool] | None = None
        self._in_use = True
        self._owner.begun(self)
        self.expect(silence_s)
        if not self.usable:
            raise ConnectionLost("the replica closed the connection")
        self._transport.write(request)

    def expect(self, within_s: float) -> None:
        """From now on, end the exchange with Silent when nothing is received for so long."""
        self._silence_s = within_s
        self._silent_since = monotonic()
        self.deadline = self._silent_since + within_s
        self._owner.look_at(self.deadline)

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

    async def push(self, sink: Callable[[bytes], bool]) -> None:
        """Hand the bytes of the body to `sink` as they come, until it returns False or they end. Raises UpstreamError.

        Nothing is woken for each of them, which is what reading them with `chunk()` mostly costs.
        """
        self._sink = sink
        try:
            await self.wait()
        finally:
            self._sink = None

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
            self._owner.keep(self)
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
        self._owner.forget(self)

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
        if self._sink is not None:
            try:
                if self._sink(body):
                    return
            except UpstreamError as error:
                self._fail(error)
            self._sink = None
            self._wake()
            return
        self._chunks.append(body)
        self._buffered += len(body)
        if self._buffered > BUFFER_BYTES and not self._paused:
            self._pause()
        self._wake()

    def on_message_complete(self) -> None:
        self._complete = True
        self._keep_alive = self._parser.should_keep_alive()
        self._wake()
