"""The gateway as the rest of the program sees it: `open` a request, get a ticket."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import getrandbits
from types import MappingProxyType
from typing import Any

from prometheus_client import CollectorRegistry

from inference.pool import Pool
from webapp.gateway.attempt import Request
from webapp.gateway.line import Limits, Line
from webapp.gateway.metrics import SOURCES, Metrics
from webapp.gateway.record import Record
from webapp.gateway.ticket import CHAT, Ticket

NO_TRACE: Mapping[str, str] = MappingProxyType({})


class Gateway:
    """One for each process, over a pool that the caller starts and closes. HTTP comes through `asgi.py`.

    Each of `on_end` is called with the record of every request that has ended, `on_first_token` with the TTFT of every
    stream in seconds; they must not block or raise.
    """

    def __init__(
        self,
        pool: Pool,
        metrics: Metrics | None = None,
        limits: Limits | None = None,
        on_end: Sequence[Callable[[Record], None]] = (),
        on_first_token: Callable[[float], None] = lambda ttft_s: None,
    ) -> None:
        self.pool = pool
        self._on_end = tuple(on_end)
        self._on_first_token = on_first_token
        self.metrics = metrics or Metrics(CollectorRegistry())
        self._line = Line(pool, limits or Limits())
        self.metrics.observe(waiting=lambda: self.waiting, replicas=self._line.states)

    @property
    def waiting(self) -> int:
        """Requests for which no replica has room."""
        return self._line.waiting

    def open(
        self,
        body: dict[str, Any],
        source: str,
        request_id: str | None = None,
        *,
        path: str = CHAT,
        raw: bytes | None = None,
        key: str | None = None,
        trace: Mapping[str, str] = NO_TRACE,
    ) -> Ticket:
        """Register a request, in line from now on. Read it to its end, or end it with `aclose()`.

        `body` is OpenAI's request; without `model` it goes to whatever model the replica serves. `raw` is the same
        body as bytes, when the caller has them, to be passed on as they are. An unknown `source` counts as `api`.
        `key` is the name of the API key. `trace` are headers to pass on as they came.
        """
        source = source if source in SOURCES else "api"
        request_id = request_id or new_request_id()
        headers = {**trace, "x-request-id": request_id, "x-load-source": source}
        request = Request(path, body, raw, source, request_id, key, headers)
        return Ticket(self._line, self.metrics, request, self.ended, self._on_first_token)

    def ended(self, record: Record) -> None:
        """Count a request that has ended. Tickets do so themselves; for those that were refused before they had one."""
        self.metrics.ended(record, self.pool.model_names)
        for tell in self._on_end:
            tell(record)


def new_request_id() -> str:
    """128 random bits that need not be secret: the system's own take a system call for each request."""
    return f"{getrandbits(128):032x}"
