"""Asks over gevent's sockets, one request at a time on each connection, and keeps connections for the next."""

from __future__ import annotations

import select
import time
from urllib.parse import urlsplit

from gevent import Timeout, monkey, socket, ssl

from loadgen.spike.probe import no_connection, tls, too_late
from loadgen.spike.reply import Reply

IDLE_S = 3.0
"""A connection that has rested for longer is not used again: servers close theirs, some after 5 s."""
TAIL_S = 1.0
"""After `[DONE]`, how long the end of the HTTP message may take, before the connection is given up."""
READ_BYTES = 65536
_poll = monkey.get_original("select", "poll") if hasattr(select, "poll") else None


class Connections:
    """To one server, `http(s)://host[:port]`, whose name is looked up once. Raises OSError when that fails."""

    def __init__(self, target: str, timeout_s: float, insecure: bool = False) -> None:
        parts = urlsplit(target)
        if not parts.hostname or parts.scheme not in ("http", "https"):
            raise ValueError(f"--host {target!r}: give http://… or https://…")
        self.host = parts.netloc
        self._name = parts.hostname
        self._tls = tls(insecure) if parts.scheme == "https" else None
        self._timeout_s = timeout_s
        port = parts.port or (443 if self._tls else 80)
        found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
        self._addresses = [(family, address) for family, _, _, _, address in found]
        self._idle: list[tuple[socket.socket, float]] = []

    def ask(self, asked: bytes) -> Reply:
        """The reply, read to its end or to what came instead of one. Its times are Unix times."""
        reply = Reply()
        connection = None
        try:
            with Timeout(self._timeout_s):
                connection = self._rested() or self._connect()
                connection.sendall(asked)
                while not reply.done:
                    data = connection.recv(READ_BYTES)
                    if data:
                        reply.feed(data, time.time())
                    else:
                        reply.eof(time.time())
                    if reply.ended_s is not None:
                        connection.settimeout(TAIL_S)
        except Timeout:
            reply.fail(too_late(self._timeout_s), time.time())
        except OSError as error:
            reply.fail(no_connection(error), time.time())
        finally:
            self._keep(connection, reply)
        return reply

    def close(self) -> None:
        while self._idle:
            self._idle.pop()[0].close()

    def _rested(self) -> socket.socket | None:
        while self._idle:
            connection, since_s = self._idle.pop()
            if time.monotonic() - since_s < IDLE_S and not _readable(connection):
                return connection
            connection.close()
        return None

    def _connect(self) -> socket.socket:
        """The first address that takes it. Raises OSError."""
        for left, (family, address) in reversed(list(enumerate(reversed(self._addresses)))):
            connection = socket.socket(family, socket.SOCK_STREAM)
            try:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.connect(address)
                return self._tls.wrap_socket(connection, server_hostname=self._name) if self._tls else connection
            except BaseException as error:
                connection.close()
                if not left or not isinstance(error, OSError) or isinstance(error, ssl.SSLError):
                    raise
        raise AssertionError("there is an address, and the last raises")

    def _keep(self, connection: socket.socket | None, reply: Reply) -> None:
        if connection is None:
            return
        if reply.reusable:
            connection.settimeout(None)
            self._idle.append((connection, time.monotonic()))
        else:
            connection.close()


def _readable(connection: socket.socket) -> bool:
    """A resting connection from which something can be read has been closed by the server."""
    if _poll is None:
        return False
    poll = _poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))
