"""The server of the senders' bench: on its first port answers come in one piece, on its second as the gateway's stub
streams them. `GET /asked` says how many POSTs a port has had.

python -m loadgen.bench_loadgen.stub PLAIN_PORT STREAM_PORT
"""

from __future__ import annotations

import argparse
import asyncio
import re
import signal
import sys

import uvloop

from loadgen.gateway import wire
from loadgen.gateway.stub import Stub

ASKED = "/asked"

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


def _whole(content_type: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


_ROLE, *_TOKENS = wire.events()
ANSWER = _whole("text/event-stream", _ROLE + _TOKENS[-1] + wire.usage_event() + wire.DONE)
"""A stream of one token that is there at once: our scripts ask for streams, and take it for a whole answer."""


class Counted(Stub):
    """Streams, and counts what it was asked for in `asked`, a list of one number."""

    def __init__(self, loop: asyncio.AbstractEventLoop, asked: list[int]) -> None:
        super().__init__(loop)
        self._asked = asked

    def connection_made(self, transport: asyncio.Transport) -> None:
        self._out = transport
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self._asked[0] += data.startswith(b"POST ")
        if data.startswith(f"GET {ASKED} ".encode()):
            self._out.write(_whole("text/plain", str(self._asked[0]).encode()))
        else:
            super().data_received(data)


class Plain(Counted):
    """Answers at once, in one piece."""

    _post = b""

    def data_received(self, data: bytes) -> None:
        if data.startswith(b"GET "):
            super().data_received(data)
            return
        self._post += data
        head_end = self._post.find(b"\r\n\r\n") + 4
        if head_end < 4 or len(self._post) < head_end + int(_LENGTH.search(self._post)[1]):
            return
        self._post = b""
        self._asked[0] += 1
        self._out.write(ANSWER)


async def serve(plain: int, stream: int) -> None:
    """Listens on 127.0.0.1 until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for sig in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sig, stop.set)
    counts = {kind: [0] for kind in (Plain, Counted)}
    servers = [
        await loop.create_server(lambda kind=kind: kind(loop, counts[kind]), "127.0.0.1", port, backlog=2048)
        for kind, port in ((Plain, plain), (Counted, stream))
    ]
    await stop.wait()
    for server in servers:
        server.close()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m loadgen.bench_loadgen.stub")
    parser.add_argument("ports", type=int, nargs=2, metavar="PORT")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(*parser.parse_args().ports))
    return 0


if __name__ == "__main__":
    sys.exit(main())
