"""One JSON line for each request that ended: who asked, which replica, how long it took; never what was said."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import TextIO

from webapp.gateway.record import Record

log = logging.getLogger("crowdspike.gateway")

MODEL_CHARS = 128
_encode = json.JSONEncoder(separators=(",", ":")).encode  # made once; ASCII, whatever the client named its model


def line(record: Record, at: datetime) -> str:
    """The request as one line; `at` is when it ended."""
    return _encode(
        {
            "ts": at.isoformat(timespec="milliseconds"),
            "request_id": record.request_id,
            "path": record.path,
            "source": record.source,
            "key": record.key,
            "model": record.model[:MODEL_CHARS],  # the client chose it
            "replica": record.replica,
            "status": record.status,
            "retries": record.retries,
            "waited_ms": round(record.waited_s * 1000, 1),
            "ttft_ms": None if record.ttft_s is None else round(record.ttft_s * 1000, 1),
            "e2e_ms": round(record.e2e_s * 1000, 1),
            "prompt_tokens": record.prompt_tokens,
            "completion_tokens": record.completion_tokens,
            "error": record.error,
        }
    )


def write(record: Record) -> None:
    """One of the gateway's `on_end`."""
    if log.isEnabledFor(logging.INFO):
        text = line(record, datetime.now(UTC))
        # Made here, since `log.info` would walk the stack for the caller's name, which nobody prints.
        log.handle(logging.LogRecord(log.name, logging.INFO, __file__, 0, text, (), None))


def set_up(stream: TextIO | None = None) -> None:
    """Lines go to `stream` (standard output) as they are, apart from the program's other messages."""
    handler = logging.StreamHandler(stream or sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.handlers = [handler]
    log.propagate = False
    log.setLevel(logging.INFO)
