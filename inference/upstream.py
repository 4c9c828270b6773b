"""HTTP/1.1 to one replica: keep-alive connections, each with one answer at a time (see inference.exchange)."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from time import monotonic
from urllib.parse import urlsplit

from inference.exchange import NEVER, ConnectFailed, Exchange, UpstreamError

__all__ = ["ConnectFailed", "Exchange", "Upstream", "UpstreamError"]

CONNECT_TIMEOUT_S = 3.0
# vLLM (uvicorn) closes an idle connection after 5 s; one reused at that moment would fail.
IDLE_S = 4.0
SILENCE_S = 120.0


class Upstream:
    """The connections to one replica. `url` may carry a path, which then comes before every path asked for.

    `api_key` goes along with every request as a bearer token.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        idle_s: float = IDLE_S,
        silence_s: float = SILENCE_S,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"not an http(s) URL: {url!r}")
        self.silence_s = silence_s
        self._delivered_at = 0.0
        self._idle_s = idle_s
        self._connect_timeout_s = connect_timeout_s
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._host = parts.hostname
        self._port = parts.port or (443 if self._tls else 80)
        self._base = parts.path.rstrip("/")
        self._netloc = parts.netloc.rpartition("@")[2]
        self._marks = f"host: {self._netloc}\r\naccept: */*\r\n"
        if api_key:
            self._marks += f"authorization: Bearer {api_key}\r\n"
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
        head = f"{method} {self._base}{path} HTTP/1.1\r\n{self._marks}"
        if method == "POST":
            head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
        for name, value in headers.items():
            head += f"{name}: {value}\r\n"
        exchange = self._reuse() or await self._connect()
        try:
            exchange.begin(
                f"{head}\r\n".encode("latin-1") + body,
                method == "POST",
                self.silence_s if silence_s is None else silence_s,
            )
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
            async with asyncio.timeout(self._connect_timeout_s):
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

    def begun(self, exchange: Exchange) -> None:
        self._busy.add(exchange)

    def keep(self, exchange: Exchange) -> None:
        if self._closed:
            exchange.abort()
            return
        self._free(exchange)
        self._idle.append(exchange)
        exchange.deadline = monotonic() + self._idle_s
        self.look_at(exchange.deadline)

    def _free(self, exchange: Exchange) -> None:
        if exchange in self._busy:
            self._busy.remove(exchange)
            if exchange.is_post:
                self._delivered_at = max(self._delivered_at, exchange.heard_at)

    def forget(self, exchange: Exchange) -> None:
        self._free(exchange)
        if exchange in self._idle:
            self._idle.remove(exchange)

    def look_at(self, at: float) -> None:
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
            self.look_at(due)
