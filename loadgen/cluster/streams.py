"""Scripted streams through the gateway, which say that they are scripted: how each ended, and when its tokens came."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from inference.openloop.stream import Stream

SOURCE = "k6"
PROMPT = "What does a crowd of phones cost a server?"


class Streams:
    """`open` are under way, `ended` are over, in the order in which they ended; `sent` counts both."""

    def __init__(self, server: str, tokens: int) -> None:
        parts = urlsplit(server)
        self._address = parts.hostname, parts.port
        self._request = _request(parts.netloc, tokens)
        self._tokens = tokens
        self._again = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self.open: set[Stream] = set()
        self.ended: list[Stream] = []

    @property
    def sent(self) -> int:
        return len(self.open) + len(self.ended)

    @property
    def unserved(self) -> list[Stream]:
        """Those that ended without a token."""
        return [stream for stream in self.ended if not stream.token_s]

    @property
    def broken(self) -> list[Stream]:
        """Those that ended after their first token and before their last."""
        return [stream for stream in self.ended if stream.token_s and stream.error]

    @property
    def short(self) -> list[Stream]:
        """Those that ended as if they were whole, and have other tokens than were asked for."""
        return [stream for stream in self.ended if not stream.error and len(stream.token_s) != self._tokens]

    @property
    def speaking(self) -> int:
        """How many have had their first token and are under way."""
        return sum(bool(stream.token_s) for stream in self.open)

    def send(self, count: int) -> None:
        for _ in range(count):
            stream = Stream(self._request, self._end)
            self.open.add(stream)
            task = asyncio.create_task(self._connect(stream))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    @asynccontextmanager
    async def users(self, count: int) -> AsyncIterator[None]:
        """While the block runs, so many at a time: each user asks again as soon as there is an answer, or none."""
        self._again = True
        self.send(count)
        try:
            yield
        finally:
            self._again = False

    async def all_ended(self, within_s: float) -> None:
        """Raises TimeoutError."""
        async with asyncio.timeout(within_s):
            while self.open:
                await self._changed.wait()

    def drop(self) -> None:
        """Leave all that are under way."""
        self._again = False
        for stream in list(self.open):
            stream.end("dropped")

    async def _connect(self, stream: Stream) -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: stream, *self._address)
        except OSError as error:
            stream.end(f"cannot connect: {error.strerror or error}")

    def _end(self, stream: Stream) -> None:
        self.open.discard(stream)
        self.ended.append(stream)
        if self._again:
            self.send(1)
        self._changed.set()
        self._changed = asyncio.Event()


def _request(host: str, tokens: int) -> bytes:
    """For exactly so many tokens, each counted in its event."""
    body = json.dumps(
        {
            "model": "mistral",
            "prompt": PROMPT,
            "max_tokens": tokens,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        }
    ).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\nx-load-source: {SOURCE}"
    return f"{head}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body
