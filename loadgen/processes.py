"""Starts the parts that are put under load as processes of their own, waits until they answer, and ends them."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

TOKEN = "loadgen-presenter"
READY_WITHIN_S = 40.0
END_WITHIN_S = 10.0


class NotReady(Exception):
    """A process ended, or did not answer in time; the text ends with its log."""


class Process:
    """A server on 127.0.0.1. What it prints goes to the file `log`; with a `core` it runs on that one alone."""

    def __init__(
        self,
        command: list[str],
        port: int,
        ready_path: str,
        log: Path,
        environment: Mapping[str, str] | None = None,
        core: int | None = None,
    ) -> None:
        self.port = port
        self._ready_path = ready_path
        self._log = log
        ours = {k: v for k, v in os.environ.items() if k != "INFERENCE_URL" and not k.startswith("CROWDSPIKE_")}
        with log.open("ab") as file, on_core(core):
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**ours, "PYTHONUNBUFFERED": "1", **(environment or {})},
                # Ctrl-C in the terminal is for us, and we end it in order. Not a session of its own: Linux divides the
                # CPUs among sessions first, and a real vLLM then stood still for seconds beside a busy client.
                process_group=0,
            )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def log(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    def wait_ready(self, within_s: float = READY_WITHIN_S) -> None:
        """Raises NotReady."""
        give_up_at = time.monotonic() + within_s
        while not self._answers():
            if not self.running or time.monotonic() > give_up_at:
                what = "does not answer" if self.running else f"ended with status {self._process.returncode}"
                raise NotReady(f"{self._process.args}: {what}\n{self.log()[-2000:]}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
        try:
            connection.request("GET", self._ready_path)
            return connection.getresponse().status < 400
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def send(self, sig: signal.Signals) -> None:
        self._process.send_signal(sig)

    def kill(self) -> None:
        """kill -9."""
        self._process.kill()
        self._process.wait()

    def wait(self, within_s: float) -> int:
        """The exit status. Raises subprocess.TimeoutExpired."""
        return self._process.wait(within_s)

    def end(self) -> None:
        """SIGTERM, and kill -9 when that does not help."""
        self._process.terminate()
        try:
            self._process.wait(END_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.kill()


def web_app(
    log: Path,
    store: str,
    *,
    port: int | None = None,
    talk: Path | None = None,
    inference_url: str = "",
    options: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    core: int | None = None,
) -> Process:
    """The web app, whose presenter token is `TOKEN`; not ready yet. `options` as `crowdspike serve --help` has them."""
    port = port or free_port()
    command = [sys.executable, "-m", "webapp.cli", "serve", "--port", str(port), "--store", store]
    command += ["--talk", str(talk)] if talk else []
    command += ["--inference-url", inference_url] if inference_url else []
    command += options
    return Process(command, port, "/healthz", log, {"CROWDSPIKE_PRESENTER_TOKEN": TOKEN, **(environment or {})}, core)


def engine(log: Path, *options: str) -> Process:
    """A simulated replica; not ready yet. `options` as `crowdspike engine --help` lists them."""
    port = free_port()
    return Process([sys.executable, "-m", "inference.engine", "--port", str(port), *options], port, "/health", log)


@contextmanager
def on_core(core: int | None) -> Iterator[None]:
    """What is started in the block inherits this core, and knows of no other."""
    if core is None:
        yield
        return
    ours = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, ours)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]
