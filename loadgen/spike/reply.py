"""Reads one streamed completion as its bytes come in: when its headers, its tokens and its end were there. No I/O.

Both readers use it, the Locust users and the probe beside k6: feed it what a connection gave, with the time of that.
The HTTP is llhttp's work (httptools); of each server-sent event a few fields are read, at some microseconds an event.
"""

from __future__ import annotations

import json
from typing import Any

import httptools

from loadgen.spike.plan import Prompt
from loadgen.spike.point import Point

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
ERROR_CHARS = 200
BODY_BYTES = 1 << 20
"""A line, or a body that is no stream, may have so many; servers that send more are left."""
_OTHER_TEXTS = ("reasoning", "reasoning_content", "tool_calls")
_parse = json.JSONDecoder().decode  # json.loads looks for the encoding of bytes first, which takes half as long again


class Reply:
    """All times are those that were passed in. `status` 0: none came. `first_s` is the first event with text in it (an
    event with only the role is no token). `gaps_ms` are the times between deliveries: an event with text, or with a
    higher count of tokens where the server states it in each (`continuous_usage_stats`). Token counts are the server's
    `usage`. `ended_s` is when it was over: `[DONE]`, an error, the end of the connection. `error` is empty when it was
    answered in full. `done`: nothing more will be read, and when `reusable` the connection may take the next request.
    """

    def __init__(self) -> None:
        self.status = 0
        self.headers_s: float | None = None
        self.first_s: float | None = None
        self.ended_s: float | None = None
        self.gaps_ms: list[float] = []
        self.prompt_tokens: int | None = None
        self.completion_tokens: int | None = None
        self.error = ""
        self.done = False
        self.reusable = False
        self._parser = httptools.HttpResponseParser(self)
        self._now_s = 0.0
        self._last_s = 0.0
        self._content_type = b""
        self._framed = False
        self._streams = False
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, data: bytes, now_s: float) -> None:
        """What the connection gave, of any length."""
        if self.done:
            self.reusable = False  # it says more than was asked for
            return
        self._now_s = now_s
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self.fail(f"not HTTP: {error}", now_s)

    def eof(self, now_s: float) -> None:
        """The server has closed the connection."""
        if self.done:
            self.reusable = False
            return
        self._now_s = now_s
        if not self.status:
            self.fail("connection closed before an answer", now_s)
        elif self._framed and self.ended_s is None:
            self.fail("connection closed within the answer", now_s)
        else:
            self._over()

    def fail(self, error: str, now_s: float) -> None:
        """The connection or our patience has ended. Nothing has failed when the answer was over before."""
        self._end(error, now_s)
        self._close()

    def point(self, n: int, by: str, *, due_s: float | None, sent_s: float, cell: int | None = None) -> Point:
        return Point(
            n=n,
            by=by,
            due_s=due_s,
            sent_s=sent_s,
            headers_s=self.headers_s,
            first_s=self.first_s,
            first_by="" if self.first_s is None else "token",
            ended_s=self.ended_s,
            status=self.status,
            error=self.error,
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            gaps_ms=tuple(self.gaps_ms),
            cell=cell,
        )

    # What the parser calls.

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name == b"content-type":
            self._content_type = value.lower()
        elif name in (b"content-length", b"transfer-encoding"):
            self._framed = True

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200:  # those below announce another
            self.status, self.headers_s = status, self._now_s
            self._streams = status == 200 and self._content_type.startswith(b"text/event-stream")

    def on_body(self, body: bytes) -> None:
        rest = self._rest + body if self._rest else body
        if not self._streams:
            self._rest = rest[:BODY_BYTES]
            return
        *lines, self._rest = rest.split(b"\n")
        for line in lines:
            self._line(line)
        if len(self._rest) > BODY_BYTES:
            self._rest = b""
            self._end("an event without an end", self._now_s)

    def on_message_complete(self) -> None:
        if self.status:
            self.reusable = self._parser.should_keep_alive()
            self._over()

    # Server-sent events, as the WHATWG has them, without ids and names.

    def _line(self, line: bytes) -> None:
        if line.endswith(b"\r"):
            line = line[:-1]
        if line.startswith(b"data:"):
            self._data.append(line[5:])
        elif not line and self._data:
            data, self._data = b"\n".join(self._data).strip(), []
            self._event(data)

    def _event(self, data: bytes) -> None:
        if self.ended_s is not None:
            return
        if data == b"[DONE]":
            self._end("", self._now_s)
            return
        try:
            event = _parse(data.decode())
            if event.get("error"):
                self._refused_late(event)
                return
            choices = event.get("choices")
            self._count(event.get("usage"), bool(choices) and _says(choices[0]))
        except (ValueError, TypeError, KeyError, IndexError, AttributeError):
            self._end("an event that is no completion's", self._now_s)

    def _count(self, usage: dict[str, Any] | None, says: bool) -> None:
        delivered = says
        if usage:
            tokens = usage.get("completion_tokens")
            delivered = says or (self.first_s is not None and (tokens or 0) > (self.completion_tokens or tokens or 0))
            self.prompt_tokens, self.completion_tokens = usage.get("prompt_tokens"), tokens
        if delivered:
            if self.first_s is None:
                self.first_s = self._now_s
            else:
                self.gaps_ms.append((self._now_s - self._last_s) * 1000)
            self._last_s = self._now_s

    def _refused_late(self, event: dict[str, Any]) -> None:
        """An error in the stream. Before the first token its code is the status: vLLM may refuse so after a 200."""
        code = event["error"].get("code") if isinstance(event["error"], dict) else None
        if self.first_s is None and isinstance(code, int) and 400 <= code < 600:
            self.status = code
        self._end(_message(event) or "error event", self._now_s)

    def _over(self) -> None:
        """The body is complete."""
        if self._streams:
            self._line(self._rest)
            self._end("" if b"".join(self._data).strip() == b"[DONE]" else "stream ended early", self._now_s)
        elif self.ended_s is None:
            self._whole(self._rest)
        self._close()

    def _whole(self, body: bytes) -> None:
        """A body that is no stream: an error, or the whole text at once, of which no token's time is known."""
        try:
            answer = json.loads(body)
        except ValueError:
            answer = None
        if self.status != 200:
            self._end(f"{self.status} {_message(answer)}".strip(), self._now_s)
        elif isinstance(answer, dict) and answer.get("choices"):
            usage = answer.get("usage") or {}
            self.prompt_tokens, self.completion_tokens = usage.get("prompt_tokens"), usage.get("completion_tokens")
            self._end("", self._now_s)
        else:
            self._end(_message(answer) or f"no completion but {self._content_type.decode('latin-1')}", self._now_s)

    def _end(self, error: str, now_s: float) -> None:
        """Only the first counts."""
        if self.ended_s is None:
            self.ended_s, self.error = now_s, " ".join(error.split())[:ERROR_CHARS]

    def _close(self) -> None:
        self.done = True
        self._parser = None  # it holds us, and we it
        self._rest, self._data = b"", []


def _says(choice: dict[str, Any]) -> bool:
    delta = choice.get("delta")
    if not delta:
        return bool(choice.get("text"))
    return bool(delta.get("content")) or any(delta.get(name) for name in _OTHER_TEXTS)


def _message(body: Any) -> str:
    """Of an error as OpenAI, FastAPI and problem+json have them; empty when there is none."""
    if not isinstance(body, dict):
        return ""
    error = body.get("error")
    said = error.get("message") if isinstance(error, dict) else error
    said = said or body.get("message") or body.get("detail") or body.get("title") or ""
    return said if isinstance(said, str) else json.dumps(said)


def request(
    host: str,
    model: str,
    prompt: Prompt,
    *,
    source: str,
    path: str = CHAT,
    api_key: str = "",
    ignore_eos: bool = False,
    keep_alive: bool = True,
) -> bytes:
    """The bytes that ask for a stream with its `usage`; `host` with its port. `source` is the `x-load-source`. With
    `ignore_eos`, which vLLM knows, exactly `max_tokens` come."""
    asked = {"prompt": prompt.text} if path == COMPLETIONS else {"messages": [{"role": "user", "content": prompt.text}]}
    stream = {"stream": True, "stream_options": {"include_usage": True}}
    exactly = {"ignore_eos": True} if ignore_eos else {}
    body = json.dumps({"model": model, **asked, "max_tokens": prompt.max_tokens, **stream, **exactly}).encode()
    lines = [
        f"POST {path} HTTP/1.1",
        f"host: {host}",
        "content-type: application/json",
        "accept: text/event-stream",
        f"x-load-source: {source}",
        f"content-length: {len(body)}",
        *([f"authorization: Bearer {api_key}"] if api_key else []),
        *([] if keep_alive else ["connection: close"]),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body
