"""One request on its way: line, replica, first token, stream. Retries on another replica, but never after a token."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal

from inference.pool import Replica
from inference.upstream import ConnectFailed, ConnectionLost, Exchange, Silent, UpstreamError
from webapp.gateway import sse
from webapp.gateway.errors import Closed, Failed, FromReplica, GatewayError, Refused
from webapp.gateway.line import Line
from webapp.gateway.metrics import Metrics

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
MAX_RETRIES = 2
LEFT = 499  # nginx's status for a client that went away

State = Literal["warming", "waiting", "streaming", "done", "failed"]


@dataclass(frozen=True, slots=True)
class Request:
    """What to ask: `body` for `path`, or its bytes `raw` as they came."""

    path: str
    body: dict[str, Any]
    raw: bytes | None
    source: str
    request_id: str


@dataclass(frozen=True, slots=True)
class Answer:
    """How a replica answers. A stream's bytes come from `Ticket.read()`; any other answer is whole in `body`."""

    status: int
    content_type: str
    body: bytes | None


class Ticket:
    """A request in flight. Use either `deltas()`, or `begin()` and then `read()`; both raise GatewayError."""

    def __init__(self, line: Line, metrics: Metrics, request: Request) -> None:
        self._line = line
        self._metrics = metrics
        self._request = request
        self._number = line.join()
        self._opened_at = time.monotonic()
        self._replica: Replica | None = None
        self._exchange: Exchange | None = None
        self._ready = b""  # whole events that wait to be read
        self._rest = b""  # the start of an event
        self._complete = False  # the stream said [DONE]
        self._ended: int | None = None  # the status that the request ended with
        self._beginner: asyncio.Task[Any] | None = None
        metrics.in_flight.labels(request.source).inc()

    @property
    def source(self) -> str:
        return self._request.source

    @property
    def position(self) -> int:
        """1 for the next in line, and so on; 0 once the first token is here or the request has ended."""
        return self._line.position(self._number)

    @property
    def state(self) -> State:
        if self._ended is not None:
            return "done" if self._ended < 400 else "failed"
        if not self.position:
            return "streaming"
        if self._replica is None and not self._line.pool.ready_count:
            return "warming"
        return "waiting"

    async def deltas(self) -> AsyncIterator[str]:
        """The text as it comes. Ends early, without an error, after `aclose()`; leaving the loop aborts the request."""
        self._request = replace(self._request, body={**self._request.body, "stream": True}, raw=None)
        try:
            with suppress(Closed):
                answer = await self.begin()
                if answer.body is not None:
                    raise self._fail("the replica did not stream")
                while events := await self.read():
                    for payload in sse.payloads(events):
                        if "error" in payload:
                            raise self._fail("the replica broke off with an error")
                        if text := sse.text_of(payload):
                            yield text
        finally:
            await self.aclose()

    async def begin(self) -> Answer:
        """Wait in line and for the first token (or the whole answer); retry until then where that can help."""
        if self._ended is not None:
            raise Closed("the request is closed")
        self._beginner = asyncio.current_task()
        try:
            answer = await self._first_answer()
        except GatewayError as error:
            self._end(error.status)
            raise
        except asyncio.CancelledError:
            if self._ended is None or self._beginner.uncancel() > 0:
                raise
            raise Closed("the request was closed") from None  # by aclose(): nobody cancelled the caller
        finally:
            self._beginner = None
        self._line.leave(self._number)
        if answer.body is None:
            self._metrics.ttft.labels(self.source).observe(time.monotonic() - self._opened_at)
        else:
            self._end(answer.status)
        return answer

    async def read(self) -> bytes:
        """The next events of the stream as the replica sent them, always whole; empty once the request has ended."""
        while not self._ready:
            if self._ended is not None:
                return b""
            assert self._exchange is not None, "read() before begin()"
            try:
                chunk = await self._exchange.chunk()
            except UpstreamError as error:
                if self._ended is not None:
                    return b""
                raise self._fail(str(error)) from error
            if chunk:
                self._take(chunk)
            elif self._complete:
                self._end(200)
            else:
                raise self._fail("the replica ended the stream too early")
        events, self._ready = self._ready, b""
        return events

    async def aclose(self) -> None:
        """End the request in any phase and abort it on the replica at once. May be called again, from any task."""
        if self._ended is not None:
            return
        self._end(LEFT)
        if self._beginner is not None and self._beginner is not asyncio.current_task():
            self._beginner.cancel()

    async def _first_answer(self) -> Answer:
        tried: set[Replica] = set()
        pool = self._line.pool
        for retries_left in range(MAX_RETRIES, -1, -1):
            self._replica = replica = await self._line.replica(avoid=tried)
            replica.in_flight += 1
            try:
                return await self._attempt(replica)
            except Silent as error:
                raise Failed(504, message=str(error)) from error
            except (UpstreamError, Failed) as error:
                self._drop_replica()
                tried.add(replica)
                if isinstance(error, ConnectFailed):
                    pool.mark_unready(replica)
                # A server's own 5xx is not asked for twice; a connection may only have been stale.
                pointless = isinstance(error, Failed) and pool.pick(avoid=tried) in tried
                if pointless or not retries_left:
                    raise error if isinstance(error, Failed) else Failed(502, message=str(error)) from error
                self._metrics.retries.inc()
        raise AssertionError("unreachable")

    async def _attempt(self, replica: Replica) -> Answer:
        """One try on one replica, until its first token or its whole answer."""
        headers = {"x-request-id": self._request.request_id, "x-load-source": self.source}
        exchange = await replica.upstream.post(self._request.path, self._payload(replica), headers)
        self._exchange = exchange
        content_type = exchange.headers.get("content-type", "application/json")
        if exchange.status >= 400:
            raise _error(exchange.status, await exchange.read(), exchange.headers.get("retry-after"))
        if not content_type.startswith("text/event-stream"):
            return Answer(exchange.status, content_type, await exchange.read())
        await self._first_token(exchange)
        return Answer(exchange.status, content_type, None)

    async def _first_token(self, exchange: Exchange) -> None:
        held = b""
        while chunk := await exchange.chunk():
            self._take(chunk)
            held += self._ready
            begun = self._complete
            for payload in sse.payloads(self._ready):
                if "error" in payload:
                    raise _stream_error(payload)
                begun = begun or sse.has_token(payload)
            self._ready = b""
            if begun:
                self._ready = held
                return
        raise ConnectionLost("the replica ended the stream before its first token")

    def _payload(self, replica: Replica) -> bytes:
        body, raw = self._request.body, self._request.raw
        if raw is not None and body.get("model"):
            return raw
        model = body.get("model") or replica.model
        return json.dumps({**body, "model": model} if model else body).encode()

    def _take(self, chunk: bytes) -> None:
        events, self._rest = sse.cut(self._rest + chunk)
        if events:
            self._ready = events
            self._complete = sse.ends_stream(events)

    def _fail(self, message: str) -> Failed:
        error = Failed(502, message=message)
        self._end(error.status)
        return error

    def _end(self, status: int) -> None:
        if self._ended is not None:
            return
        self._ended = status
        self._drop_replica()
        self._line.leave(self._number)
        self._metrics.in_flight.labels(self.source).dec()
        self._metrics.requests.labels(self.source, str(status)).inc()

    def _drop_replica(self) -> None:
        """Let go of the replica and its connection, which aborts whatever is not complete."""
        if self._exchange is not None:
            self._exchange.close()
            self._exchange = None
        if self._replica is not None:
            self._replica.in_flight -= 1
            self._replica = None
        self._ready = self._rest = b""
        self._complete = False


def _error(status: int, body: bytes, retry_after: str | None = None) -> FromReplica:
    """A 4xx is the caller's to mend; anything above is the replica's."""
    return (Refused if status < 500 else Failed)(status, body, retry_after)


def _stream_error(payload: dict[str, Any]) -> FromReplica:
    """The error that a replica sent as an event, after a status of 200."""
    code = payload["error"].get("code") if isinstance(payload["error"], dict) else None
    status = code if isinstance(code, int) and 400 <= code < 600 else 502
    return _error(status, json.dumps(payload).encode())
