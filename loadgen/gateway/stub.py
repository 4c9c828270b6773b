"""A replica that costs next to nothing: every byte is made beforehand. Answers both works, vLLM's health and metrics.

python -m loadgen.gateway.stub PORT…: one process listens on all of them, as one replica each.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import signal
import sys

import uvloop

from loadgen.gateway import wire

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_STREAM = re.compile(rb'"stream": ?true')
_USAGE = re.compile(rb'"include_usage": ?true')


def _whole(status: str, content_type: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


_ANSWER = _whole("200 OK", "application/json", wire.answer())
_NOT_FOUND = _whole("404 Not Found", "application/json", b'{"error":{"message":"no such path","code":404}}')
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
)
_ROLE, *_TOKENS = map(_chunk, wire.events())
_BEATS = (_ROLE + _TOKENS[0], *_TOKENS[1:])  # vLLM sends the role when the first token is there
_USAGE_EVENT = _chunk(wire.usage_event())
_END = _chunk(wire.DONE) + b"0\r\n\r\n"
_METRICS = "".join(
    f'# TYPE vllm:num_requests_{state} gauge\nvllm:num_requests_{state}{{engine="0",model_name="{wire.MODEL}"}} 0.0\n'
    for state in ("running", "waiting")
)
_CARD = f'{{"id":"{wire.MODEL}","object":"model","created":1795243040,"owned_by":"vllm","root":"{wire.MODEL}"}}'
_GETS = {
    b"/health": _whole("200 OK", "text/plain", b""),
    b"/v1/models": _whole("200 OK", "application/json", f'{{"object":"list","data":[{_CARD}]}}'.encode()),
    b"/metrics": _whole("200 OK", "text/plain; version=0.0.4", _METRICS.encode()),
}


class Stub(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._buffer = b""
        self._beat: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        if self._beat is not None:
            self._beat.cancel()

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        head_end = buffer.find(b"\r\n\r\n") + 4
        if head_end < 4:
            self._buffer = buffer
            return
        if buffer.startswith(b"GET "):
            self._buffer = b""
            self._transport.write(_GETS.get(buffer.split(b" ", 2)[1], _NOT_FOUND))
            return
        length = _LENGTH.search(buffer, 0, head_end)
        if length is None or len(buffer) < head_end + int(length[1]):
            self._buffer = buffer
            return
        self._buffer = b""
        if _STREAM.search(buffer, head_end):
            self._transport.write(_STREAM_HEAD)  # at once, as vLLM does; the first token comes a beat later
            self._with_usage = _USAGE.search(buffer, head_end) is not None
            self._sent = 0
            self._due_at = self._loop.time() + wire.EVERY_S
            self._beat = self._loop.call_at(self._due_at, self._send)
        else:
            self._transport.write(_ANSWER)

    def _send(self) -> None:
        data = _BEATS[self._sent]
        self._sent += 1
        if self._sent < len(_BEATS):
            self._transport.write(data)
            self._due_at += wire.EVERY_S
            self._beat = self._loop.call_at(self._due_at, self._send)
        else:
            self._beat = None
            self._transport.write(data + (_USAGE_EVENT if self._with_usage else b"") + _END)


async def serve(ports: list[int]) -> None:
    """Listens on 127.0.0.1 until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for sig in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sig, stop.set)
    servers = [await loop.create_server(lambda: Stub(loop), "127.0.0.1", port, backlog=2048) for port in ports]
    await stop.wait()
    for server in servers:
        server.close()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m loadgen.gateway.stub", description=__doc__.partition("\n")[0])
    parser.add_argument("ports", type=int, nargs="+", metavar="PORT")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(parser.parse_args().ports))
    return 0


if __name__ == "__main__":
    sys.exit(main())
