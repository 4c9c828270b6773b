"""HTTP/1.1 as a load generator needs it: cheap, one connection for each request under way, and honest about loss.

A client knows several servers and moves to the next when one cannot be reached, as a load balancer would move it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

IDLE_MAX = 2
CONNECT_TIMEOUT_S = 5.0


class Lost(Exception):
    """No whole answer came: no connection, a connection that broke, or too late."""


class Refused(Exception):
    """A stream that was answered with something else than 200."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


@dataclass(frozen=True, slots=True)
class Answer:
    """`head` is the status line and the header fields as they came."""

    head: bytes
    body: bytes = b""

    @property
    def status(self) -> int:
        return int(self.head[9:12])

    def header(self, name: str) -> str | None:
        found = _field(name).search(self.head)
        return found[1].decode("latin-1") if found else None


@dataclass(frozen=True, slots=True)
class Event:
    """A server-sent event. `id` is empty when the event has none."""

    name: str
    data: str
    id: str


class Client:
    """One visitor's connections. `servers` are base URLs, `http://host:port`; `timeout_s` is for one request."""

    def __init__(self, servers: Sequence[str], turn: int = 0, timeout_s: float = 8.0) -> None:
        self._servers = [_address(url) for url in servers]
        self._turn = turn
        self._timeout_s = timeout_s
        self._idle: list[_Connection] = []

    async def request(self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b"") -> Answer:
        """Raises Lost. A GET on a connection that the server has closed meanwhile is made again on a fresh one."""
        turn, reused = self._turn, bool(self._idle)
        try:
            async with asyncio.timeout(self._timeout_s):
                connection = self._idle.pop() if self._idle else await self._connect()
                try:
                    answer = await connection.exchange(_head(method, path, connection.host, headers, body))
                except BaseException:
                    connection.close()
                    raise
        except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError) as error:
            if reused and method == "GET" and not isinstance(error, TimeoutError):
                self.close()
                return await self.request(method, path, headers, body)
            self._move_on(turn)
            raise Lost(f"{method} {path}: {type(error).__name__} {error}") from error
        if connection.open and len(self._idle) < IDLE_MAX:
            self._idle.append(connection)
        else:
            connection.close()
        return answer

    async def events(self, path: str, headers: dict[str, str]) -> AsyncIterator[Event]:
        """A stream of server-sent events until the server ends it. Raises Lost or Refused."""
        turn = self._turn
        try:
            connection = await self._connect()
            try:
                async for event in connection.events(_head("GET", path, connection.host, headers, b"")):
                    yield event
            finally:
                connection.close()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError) as error:
            self._move_on(turn)
            raise Lost(f"GET {path}: {type(error).__name__} {error}") from error

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    async def _connect(self) -> _Connection:
        host, port = self._servers[self._turn % len(self._servers)]
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(host, port)
        return _Connection(reader, writer, f"{host}:{port}")

    def _move_on(self, turn: int) -> None:
        """Leaves the server of `turn`, unless another request has done so."""
        if turn == self._turn:
            self._turn += 1
            self.close()


class _Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str) -> None:
        self.host = host
        self.open = True
        self._reader = reader
        self._writer = writer

    async def exchange(self, request: bytes) -> Answer:
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        answer = Answer(head)
        self.open = (answer.header("connection") or "").lower() != "close"
        if answer.status in (204, 304):
            return answer
        length = answer.header("content-length")
        if length is not None:
            return Answer(head, await self._reader.readexactly(int(length)))
        return Answer(head, b"".join([chunk async for chunk in self._chunks()]))

    async def events(self, request: bytes) -> AsyncIterator[Event]:
        self._writer.write(request)
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            answer = Answer(await self._reader.readuntil(b"\r\n\r\n"))
        if answer.status != 200:
            raise Refused(answer.status)
        rest = b""
        async for chunk in self._chunks():
            *blocks, rest = (rest + chunk).split(b"\n\n")
            for block in blocks:
                fields = dict(line.split(": ", 1) for line in block.decode().split("\n") if line[:1] != ":")
                if fields:
                    yield Event(fields.get("event", "message"), fields.get("data", ""), fields.get("id", ""))

    async def _chunks(self) -> AsyncIterator[bytes]:
        while size := int(await self._reader.readuntil(b"\r\n"), 16):
            yield (await self._reader.readexactly(size + 2))[:-2]
        await self._reader.readuntil(b"\r\n")

    def close(self) -> None:
        self.open = False
        self._writer.close()


def _head(method: str, path: str, host: str, headers: dict[str, str] | None, body: bytes) -> bytes:
    fields = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    length = f"content-length: {len(body)}\r\n" if body or method == "POST" else ""
    return f"{method} {path} HTTP/1.1\r\nhost: {host}\r\n{fields}{length}\r\n".encode() + body


@lru_cache
def _field(name: str) -> re.Pattern[bytes]:
    return re.compile(rb"\r\n" + name.encode() + rb": *([^\r\n]*)", re.IGNORECASE)


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    assert parts.hostname, f"not a server's address: {url}"
    return parts.hostname, parts.port or 80
