"""One try at a request on one replica: what it is sent, its first token, its further events."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from inference.exchange import ConnectionLost, Exchange, UpstreamError
from inference.histogram import Histogram
from inference.pool import Replica
from webapp.gateway import sse
from webapp.gateway.errors import Failed, FromReplica, Refused

# What comes after [DONE] is the end of the body; who does not send it has answered all the same.
END_WITHIN_S = 1.0
_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode  # made once


class Request(NamedTuple):
    """What to ask: `body` for `path`, or its bytes `raw` as they came; `headers` go along."""

    path: str
    body: dict[str, Any]
    raw: bytes | None
    source: str
    request_id: str
    key: str | None
    headers: Mapping[str, str]


class Answer(NamedTuple):
    """How a replica answers. A stream's bytes come from `more()`; any other answer is whole in `body`."""

    status: int
    content_type: str
    body: bytes | None


class Attempt:
    """Raises UpstreamError, and FromReplica where the replica itself says what is wrong."""

    def __init__(self, request: Request, replica: Replica, itl: Histogram) -> None:
        self._request = request
        self._replica = replica
        self._itl = itl
        self._exchange: Exchange | None = None
        self._held = b""  # events that came before begin() returned
        self._told_at = 0.0
        self._events = sse.Events(hide_usage=False)
        self.usage: sse.Usage | None = None

    @property
    def error(self) -> FromReplica | None:
        """What the replica said went wrong in the midst of its stream."""
        return None if self._events.error is None else _stream_error(self._events.error)

    @property
    def tokens(self) -> sse.Usage:
        """As the replica counted them, or else the events so far."""
        return self.usage or self._events.usage or sse.Usage(0, self._events.count)

    async def begin(self, within_s: float) -> Answer:
        """Send the request, and wait for the first token or the whole answer, each step `within_s` of silence."""
        payload, hide_usage = self._payload()
        self._events.hide_usage = hide_usage
        exchange = await self._replica.upstream.post(self._request.path, payload, self._request.headers, within_s)
        self._exchange = exchange
        content_type = exchange.headers.get("content-type", "application/json")
        if exchange.status >= 400:
            raise _error(exchange.status, await exchange.read(), exchange.headers.get("retry-after"))
        if not content_type.startswith("text/event-stream"):
            body = await exchange.read()
            self.usage = _usage(body)
            return Answer(exchange.status, content_type, body)
        await self._first_token(exchange)
        return Answer(exchange.status, content_type, None)

    def stream(self, silence_s: float, too_slow: Callable[[], None]) -> None:
        """The first token is here: from now on the replica may be silent for so long, and the reader must keep up."""
        assert self._exchange is not None
        self._exchange.expect(silence_s)
        self._exchange.drop_slow_reader(too_slow)

    async def more(self) -> bytes:
        """The next events of the stream, always whole; empty after the last."""
        if self._held:
            events, self._held = self._held, b""
            return events
        exchange = self._exchange
        assert exchange is not None
        while not self._events.complete:
            if data := exchange.take():
                if passed := self._take_in(data, exchange.heard_at):
                    return passed
            elif exchange.complete:
                raise ConnectionLost("the replica ended the stream too early")
            else:
                await exchange.wait()
        await _end(exchange)
        return b""

    async def forward(self, write: Callable[[bytes], bool]) -> bool:
        """As `more()` over and over, but each piece is given to `write` the moment it comes.

        True after the last; False as soon as `write` returns False, which asks for a pause.
        """
        exchange, events, room = self._exchange, self._events, True
        assert exchange is not None

        def pass_on(data: bytes) -> bool:
            nonlocal room
            if passed := self._take_in(data, exchange.heard_at):
                room = write(passed)
            return room and not events.complete

        if self._held:
            held, self._held = self._held, b""
            room = write(held)
        if data := exchange.take():
            pass_on(data)
        while room and not events.complete:
            if exchange.complete:
                raise ConnectionLost("the replica ended the stream too early")
            await exchange.push(pass_on)
        if not events.complete:
            return False
        await _end(exchange)
        return True

    def _take_in(self, data: bytes, at: float) -> bytes:
        """The events to pass on of what came at that time."""
        before = self._events.count
        passed = self._events.feed(data)
        if count := self._events.count - before:
            self._itl.observe(at - self._told_at)
            if count > 1:
                self._itl.observe(0.0, count - 1)
            self._told_at = at
        return passed

    def close(self) -> None:
        """Let go of the connection, which aborts whatever is not complete."""
        if self._exchange is not None:
            self._exchange.close()
            self._exchange = None
        self._held = b""

    async def _first_token(self, exchange: Exchange) -> None:
        while data := await exchange.chunk():
            passed = self._events.feed(data)
            self._held += passed
            tokens = 0
            for payload in sse.payloads(passed):
                if payload.get("error"):
                    raise _stream_error(payload)
                tokens += sse.has_token(payload)
            if tokens or self._events.complete:
                self._events.count = tokens  # the role is none
                self._told_at = exchange.heard_at
                return
        raise ConnectionLost("the replica ended the stream before its first token")

    def _payload(self) -> tuple[bytes, bool]:
        """The body to send, and whether the client does not expect the count of tokens that it asks for."""
        body, raw = self._request.body, self._request.raw
        count = bool(body.get("stream")) and body.get("stream_options") is None
        if raw is not None and body.get("model") and not count:
            return raw, False
        added: dict[str, Any] = {"stream_options": {"include_usage": True}} if count else {}
        if not body.get("model") and self._replica.model:
            added["model"] = self._replica.model
        return _encode(body | added).encode("utf-8", "replace"), count


async def _end(exchange: Exchange) -> None:
    """Let the body end after [DONE], so that the connection can be used again."""
    if not exchange.complete:
        exchange.expect(END_WITHIN_S)
        with suppress(UpstreamError):
            while await exchange.chunk():
                pass


def _usage(body: bytes) -> sse.Usage | None:
    try:
        return sse.usage_of(json.loads(body))
    except (ValueError, AttributeError):
        return None


def _error(status: int, body: bytes, retry_after: str | None = None) -> FromReplica:
    """A 4xx is the caller's to mend; anything above is the replica's."""
    return (Refused if status < 500 else Failed)(status, body, retry_after)


def _stream_error(payload: dict[str, Any]) -> FromReplica:
    """The error that a replica sent as an event, after a status of 200."""
    code = payload["error"].get("code") if isinstance(payload["error"], dict) else None
    status = code if isinstance(code, int) and 400 <= code < 600 else 502
    return _error(status, json.dumps(payload).encode())
