"""The few ASGI steps that the simulated replica and the gateway share: a bounded body, a JSON answer, a client
that leaves. Plain ASGI, because a framework's handling costs more than the rest of such a request."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]


class BodyTooLarge(Exception):
    """The client sends more than the limit."""


class ClientLeft(Exception):
    """The client closed the connection before the answer ended."""


def dumps(value: Any) -> bytes:
    """Compact UTF-8 JSON, as vLLM writes it."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")


async def read_body(receive: Receive, limit_bytes: int) -> bytes:
    """The whole request body. Raises BodyTooLarge past `limit_bytes`, ClientLeft when the client goes."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeft
        part = message.get("body", b"")
        size += len(part)
        if size > limit_bytes:
            raise BodyTooLarge
        parts.append(part)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


async def respond(
    send: Send,
    status: int,
    body: bytes,
    content_type: bytes | None = b"application/json",
    headers: Headers | None = None,
) -> None:
    """One whole answer."""
    fields = [(b"content-length", str(len(body)).encode()), *(headers or ())]
    if content_type is not None:
        fields.append((b"content-type", content_type))
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def while_connected(receive: Receive) -> AsyncIterator[None]:
    """Run the block, and end it with ClientLeft at once when the client goes. To be entered after the body is read."""
    work = asyncio.current_task()
    assert work is not None

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        work.cancel()

    watcher = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if not watcher.done() or work.uncancel() > 0:
            raise  # somebody else cancelled us
        raise ClientLeft from None
    finally:
        watcher.cancel()
