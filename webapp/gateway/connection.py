"""uvicorn's HTTP connection, with an end for clients that do not read: what they leave may not pile up here."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

STALLED_AFTER_S = 30.0
UNSENT_BYTES = 64 * 1024


class Connection(HttpToolsProtocol):
    """It is `scope["extensions"]["crowdspike.connection"]`, a `webapp.gateway.stream.Client`.

    One whose client has taken too little for `stalled_after_s` is dropped by itself.
    """

    stalled_after_s = STALLED_AFTER_S
    on_lost: Callable[[], object] | None = None
    lost = False
    _stalled: asyncio.TimerHandle | None = None

    def abort(self) -> None:
        """Drop it with a reset: to close it would wait for the client to read the rest, here or in the kernel."""
        sock = self.transport.get_extra_info("socket")
        if sock is not None and not self.transport.is_closing():
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def write(self, body: bytes) -> bool:
        """A part of a streamed body, without ASGI's message for it. False when the client has much to read yet."""
        assert self.cycle.chunked_encoding, "before the headers, or with a length"
        if not self.lost:
            self.transport.write(b"%x\r\n%b\r\n" % (len(body), body))
        return not self.flow.write_paused

    def hold_head(self) -> None:
        """The headers of this answer wait for the first part of its body, to be sent with it."""
        self.cycle.transport = _Held(self.cycle.transport, self.cycle)  # type: ignore[assignment]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        sock = transport.get_extra_info("socket")
        if sock is not None and hasattr(socket, "TCP_NOTSENT_LOWAT") and sock.family != socket.AF_UNIX:
            # The kernel would hold megabytes for each client before it let us notice.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_clock()
        self.lost = True
        super().connection_lost(exc)
        if self.on_lost is not None:
            self.on_lost()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled = self.loop.call_later(self.stalled_after_s, self.abort)

    def resume_writing(self) -> None:
        self._stop_clock()
        super().resume_writing()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {"crowdspike.connection": self}  # type: ignore[typeddict-item]

    def _stop_clock(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None


class _Held:
    """What a cycle writes to, for its first two writes: a system call costs as much as the rest of a short answer."""

    def __init__(self, transport: asyncio.Transport, cycle: RequestResponseCycle) -> None:
        self._transport = transport
        self._cycle = cycle
        self._head: bytes | None = None

    def write(self, data: bytes) -> None:
        if self._head is None:
            self._head = data
        else:
            self._cycle.transport = self._transport
            self._transport.write(self._head + data)
