"""One streamed completion as a load generator reads it: when each token came, at a few microseconds an event.

Nothing is parsed but what is needed: the status, and the last `completion_tokens` of what has arrived together. The
server states that count in each event (`continuous_usage_stats`), so that an event of several tokens counts as several.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable

from inference.engine.simulation import Arrival

_COUNT = b'"completion_tokens":'
_FIRST_ID, _LAST_ID = 100, 999  # words of every tokenizer, even of a very small one


class Stream(asyncio.Protocol):
    """Sends `request` when connected and calls `ended` once. `token_s` are the tokens' times and `sent_s` is the
    request's, all by time.monotonic(); `error` says why there is no whole answer, and is empty otherwise."""

    __slots__ = ("_accepted", "_ended", "_over", "_request", "_rest", "_transport", "error", "sent_s", "token_s")

    def __init__(self, request: bytes, ended: Callable[[Stream], None]) -> None:
        self.token_s: list[float] = []
        self.sent_s: float | None = None
        self.error = ""
        self._request = request
        self._ended = ended
        self._accepted = self._over = False
        self._rest = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        transport.write(self._request)
        self.sent_s = time.monotonic()

    def data_received(self, data: bytes) -> None:
        now_s = time.monotonic()
        if self._rest:
            data = self._rest + data
        if not self._accepted and len(data) >= 12:
            if data[9:12] != b"200":
                self.end(f"status {data[9:12].decode('ascii', 'replace')}")
                return
            self._accepted = True
        whole = data.rfind(b"\n\n") + 1
        at = data.rfind(_COUNT, 0, whole)
        if at >= 0:
            at += len(_COUNT)
            digits = data[at : at + 8]
            count = int(digits[: _length(digits)])
            self.token_s.extend([now_s] * (count - len(self.token_s)))
        self._rest = data[whole:]
        if b'data: {"error"' in data:
            self.end("error event")
        elif b"data: [DONE]" in data:
            self.end("")

    def connection_lost(self, error: Exception | None) -> None:
        self.end("connection lost")

    def end(self, error: str) -> None:
        """Leave; only the first call counts."""
        if not self._over:
            self._over = True
            self.error = error
            if self._transport is not None:
                self._transport.close()
            self._ended(self)


def request(host: str, model: str, arrival: Arrival, salt: random.Random, api_key: str | None = None) -> bytes:
    """POST /v1/completions for exactly the tokens of `arrival`. The prompt's are drawn from `salt`: prompts that differ
    from run to run are in nobody's prefix cache."""
    body = json.dumps(
        {
            "model": model,
            "prompt": salt.choices(range(_FIRST_ID, _LAST_ID + 1), k=arrival.prompt_tokens),
            "max_tokens": arrival.output_tokens,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        },
        separators=(",", ":"),
    ).encode()
    key = f"authorization: Bearer {api_key}\r\n" if api_key else ""
    head = f"POST /v1/completions HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n{key}"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


def _length(digits: bytes) -> int:
    return len(digits) - len(digits.lstrip(b"0123456789"))
