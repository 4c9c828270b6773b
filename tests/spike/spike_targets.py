"""Targets for the load readers, in the test's own loop: a quick stream, and one behind a certificate of its own."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from loadgen.gateway.stub import Stub


@asynccontextmanager
async def listening(
    protocol: type[asyncio.Protocol] = Stub, context: ssl.SSLContext | None = None
) -> AsyncIterator[str]:
    """Its address, `http(s)://127.0.0.1:port`. Connections that are open at the end are left to end by themselves."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: protocol(loop), "127.0.0.1", 0, ssl=context)
    try:
        yield f"{'https' if context else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


def own_certificate(folder: Path) -> ssl.SSLContext:
    """A server's, which nobody else has signed."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    command += ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return context


class Silent(asyncio.Protocol):
    """Takes connections and never answers."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        pass


class Busy(asyncio.Protocol):
    """Refuses everything."""

    BODY = b'{"error":{"message":"queue full","code":503}}'

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        pass

    def connection_made(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        head = f"HTTP/1.1 503 Service Unavailable\r\ncontent-length: {len(self.BODY)}\r\n\r\n"
        self._transport.write(head.encode() + self.BODY)
