"""An S3 server (moto) on a free port, which can be told to fail as the real one and the network do."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterable
from typing import Any

from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import make_server

DROP = "drop"  # close the connection instead of answering
DROP_AFTER = "drop after"  # carry the request out, then close the connection


class _Silent(MotoRequestHandler):
    """Says nothing on the terminal."""

    def log(self, *args: Any) -> None:
        pass


class FaultyS3:
    """Each entry of `faults` meets one request: DROP, DROP_AFTER or (status, S3 error code). `seen` counts all."""

    def __init__(self) -> None:
        self.faults: list[str | tuple[int, str]] = []
        self.seen = 0
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._one_at_a_time = threading.Lock()
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True, request_handler=_Silent)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        with self._one_at_a_time:  # S3 decides a conditional PUT atomically; moto looks first and then stores
            self.seen += 1
            fault = self.faults.pop(0) if self.faults else None
            if fault is None:
                return list(self._moto(environ, start_response))
            if fault == DROP_AFTER:
                list(self._moto(environ, lambda *_: lambda _: None))
        if isinstance(fault, str):
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            raise ConnectionResetError
        status, code = fault
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}, told to</Message></Error>".encode()
        start_response(f"{status} {code}", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
        return [body]
