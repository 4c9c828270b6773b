"""Runs the web app under uvicorn, and ends it in order: streams first, then requests, then what is left to store."""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import socket
import sys
from collections.abc import Awaitable, Callable
from types import FrameType

import uvicorn

from webapp.app import Front, running_app
from webapp.gateway.connection import Connection
from webapp.settings import Settings
from webapp.talk.model import Talk

GRACE_S = 3


class PortTaken(Exception):
    """Another program listens there; the text says which port, and how to choose another."""


class Server(uvicorn.Server):
    """`bound` is set when requests are taken, or when that failed."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.bound = asyncio.Event()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """As uvicorn's, but the signal is not raised again after serving: there is more to put in order then."""
        super().handle_exit(sig, frame)
        self._captured_signals.clear()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        finally:
            self.bound.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        app = self.config.app
        assert isinstance(app, Front)
        app.parts.stopping.set()
        await super().shutdown(sockets)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises PortTaken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise PortTaken(
                f"Port {port} on {host} is taken by another program. Choose another: "
                f"`make demo PORT={port + 1}` or `crowdspike … --port {port + 1}`."
            ) from None
        if error.errno == errno.EACCES:
            raise PortTaken(f"Port {port} may not be used by this account. Choose one above 1023.") from None
        raise
    sock.listen(2048)
    sock.set_inheritable(True)
    return sock


def address(sock: socket.socket) -> str:
    """Where a listening socket is reached from its own machine."""
    host, port = sock.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def serve(
    settings: Settings,
    talks: list[Talk],
    sock: socket.socket,
    started: Callable[[Front], Awaitable[None]] | None = None,
) -> None:
    """Serves on `sock` until SIGINT or SIGTERM. `started` is awaited with the app once requests are taken."""
    async with running_app(settings, talks) as app:
        config = uvicorn.Config(
            app,
            loop="none",
            http=Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=75,  # longer than a load balancer's idle time, or it would reuse a closed connection
            timeout_graceful_shutdown=GRACE_S,
            backlog=2048,
            proxy_headers=True,
            forwarded_allow_ips=settings.trusted_proxies,
        )
        server = Server(config)
        calm_collector()
        task = asyncio.create_task(server.serve(sockets=[sock]))
        await server.bound.wait()
        app.parts.here = address(sock)
        if started is not None and server.started:
            await started(app)
        await task


def calm_collector() -> None:
    """What is loaded stays: the garbage collector need not walk it again for every few hundred new objects, which took
    a tenth of the gateway's time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


def new_loop() -> asyncio.AbstractEventLoop:
    """uvloop's event loop where there is one."""
    try:
        import uvloop  # not on every platform
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def set_up_logging() -> None:
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.getLogger("botocore").setLevel(logging.WARNING)
