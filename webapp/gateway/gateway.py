"""The gateway as the rest of the program sees it: `open` a request, get a ticket."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from prometheus_client import CollectorRegistry

from inference.pool import Pool
from webapp.gateway.line import Limits, Line
from webapp.gateway.metrics import SOURCES, Metrics
from webapp.gateway.ticket import CHAT, Request, Ticket


class Gateway:
    """One for each process, over a pool that the caller starts and closes. HTTP comes through `asgi.py`."""

    def __init__(self, pool: Pool, metrics: Metrics | None = None, limits: Limits | None = None) -> None:
        self.pool = pool
        self.metrics = metrics or Metrics(CollectorRegistry())
        self._line = Line(pool, limits or Limits())
        self.metrics.observe(waiting=lambda: self._line.waiting, replicas_ready=lambda: pool.ready_count)

    def open(
        self,
        body: dict[str, Any],
        source: str,
        request_id: str | None = None,
        *,
        path: str = CHAT,
        raw: bytes | None = None,
    ) -> Ticket:
        """Register a request, in line from now on. Read it to its end, or end it with `aclose()`.

        `body` is OpenAI's request; without `model` it goes to whatever model the replica serves. `raw` is the same
        body as bytes, when the caller has them, to be passed on as they are. An unknown `source` counts as `api`.
        """
        source = source if source in SOURCES else "api"
        return Ticket(self._line, self.metrics, Request(path, body, raw, source, request_id or uuid4().hex))
