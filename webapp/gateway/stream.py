"""Sends a ticket's answer to the client that asked, for as long as that client reads it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from inference.asgi import ClientLeft, Headers, Receive, Send, respond, while_connected
from webapp.gateway import sse
from webapp.gateway.errors import GatewayError
from webapp.gateway.ticket import Ticket


class Client(Protocol):
    """The connection of the client, where the server shows it: `scope["extensions"]["crowdspike.connection"]`."""

    loop: asyncio.AbstractEventLoop
    lost: bool
    on_lost: Callable[[], object] | None
    """Called when the client has gone."""

    def abort(self) -> None:
        """Drop it, whatever it has not read."""

    def hold_head(self) -> None:
        """Send the next headers together with the body that follows at once."""

    def write(self, body: bytes) -> bool:
        """Send a part of the body, as `send()` would. False when the client has much to read yet."""


async def send_answer(
    ticket: Ticket, receive: Receive, send: Send, marks: Headers, client: Client | None = None
) -> None:
    """Wait for the answer and send it; the ticket has ended when this returns or raises.

    `marks` are headers to put on it. Raises GatewayError while nothing is sent yet; ClientLeft when the client goes,
    or is sent away since it does not read.
    """
    work = asyncio.current_task(client and client.loop)  # to find the loop takes a system call (Python 3.11)
    assert work is not None
    ticket.on_too_slow = work.cancel if client is None else client.abort
    try:
        if client is None:
            async with while_connected(receive):
                await _send(ticket, send, marks, None, work)
        else:
            # Cheaper than a task that waits for `receive()`.
            client.on_lost = work.cancel
            if client.lost:
                raise ClientLeft
            await _send(ticket, send, marks, client, work)
    except asyncio.CancelledError:
        if not (ticket.too_slow if client is None else client.lost) or work.uncancel() > 0:
            raise  # somebody else cancelled us
        raise ClientLeft from None
    finally:
        if client is not None:
            client.on_lost = None
        await ticket.aclose()


async def _send(ticket: Ticket, send: Send, marks: Headers, client: Client | None, work: asyncio.Task[Any]) -> None:
    answer = await ticket.begin(work)
    content_type = answer.content_type.encode("latin-1")
    if answer.body is not None:
        if client is not None:
            client.hold_head()
        await respond(send, answer.status, answer.body, content_type, marks)
        return
    fields = [(b"content-type", content_type), (b"cache-control", b"no-store"), (b"x-accel-buffering", b"no"), *marks]
    await send({"type": "http.response.start", "status": answer.status, "headers": fields})
    try:
        if client is None:
            while events := await ticket.read():
                await send({"type": "http.response.body", "body": events, "more_body": True})
        else:
            while not await ticket.forward(client.write):
                await send({"type": "http.response.body", "body": b"", "more_body": True})  # waits until it has read
    except GatewayError as error:
        # Too late for a status: the stream says it, and ends as a stream should.
        last = b"data: " + error.body() + b"\n\n" + sse.DONE
        await send({"type": "http.response.body", "body": last, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
