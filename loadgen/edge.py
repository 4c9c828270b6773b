"""`make bench-edge`: thousands of state polls a second through an HTTP cache, and how few of them reach the web app.

The polls are an open model: each is due at a fixed moment, and its time counts from there, so that a slow answer does
not hide the ones behind it.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import uvloop

from loadgen import machine
from loadgen.http import Answer, Lost
from loadgen.presenter import CallFailed, Presenter
from loadgen.processes import TOKEN, NotReady, Process, free_port
from loadgen.stand import stand

ROOT = Path(__file__).resolve().parent.parent
TEMPLATE = ROOT / "infra/nginx/edge.conf"
LATE_AFTER_S = 5.0
"""When the last poll is due, how long its answer may still take."""


@contextmanager
def edge(origin: str, core: int | None = None) -> Iterator[Process]:
    """nginx as the edge in front of `origin`, a base URL; ready. Raises NotReady, also when there is no nginx."""
    program = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
    if program is None:
        raise NotReady("nginx is not installed; scripts/apt-install nginx-light does that")
    with tempfile.TemporaryDirectory(prefix="crowdspike-edge-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # started by root, nginx works as another user
        port = free_port()
        config = TEMPLATE.read_text()
        for key, value in {"DIR": name, "PORT": str(port), "ORIGIN": urlsplit(origin).netloc}.items():
            config = config.replace(f"@{key}@", value)
        (folder / "edge.conf").write_text(config)
        command = [program, "-p", name, "-c", f"{name}/edge.conf"]
        process = Process(command, port, "/healthz", folder / "nginx.log", core=core)
        try:
            process.wait_ready()
            yield process
        finally:
            process.end()


@dataclass
class Polls:
    """What the polls of one run met. `late_ms`: from when each was due until its answer was there."""

    due: int = 0
    answered: int = 0
    refused: int = 0
    lost: int = 0
    late_ms: list[float] = field(default_factory=list)


class _Poller(asyncio.Protocol):
    """One connection that sends the same request whenever it is due and the answer before is there."""

    def __init__(self, request: bytes, polls: Polls, first_at: float, every_s: float, end_at: float) -> None:
        self.done = asyncio.get_running_loop().create_future()
        self._request = request
        self._polls = polls
        self._due_at = first_at
        self._every_s = every_s
        self._end_at = end_at
        self._buffer = b""

    def connection_made(self, transport: asyncio.Transport) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self._loop.call_at(self._due_at, self._send)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, end, body = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return
        answer = Answer(head + end)
        if answer.status != 304 and len(body) < int(answer.header("content-length") or 0):
            return
        self._buffer = b""
        self._polls.answered += 1
        self._polls.refused += answer.status not in (200, 304)
        self._polls.late_ms.append((self._loop.time() - self._due_at) * 1000)
        self._due_at += self._every_s
        if self._due_at < self._end_at:
            self._loop.call_at(self._due_at, self._send)
        else:
            self._finish()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self._polls.lost += 1
            self._finish()

    def _send(self) -> None:
        if not self._transport.is_closing():
            self._polls.due += 1
            self._transport.write(self._request)

    def _finish(self) -> None:
        self._transport.close()
        if not self.done.done():
            self.done.set_result(None)


async def poll(url: str, path: str, per_s: float, for_s: float, connections: int, headers: str = "") -> Polls:
    """Polls `path` at `per_s` over `connections` for `for_s` seconds. Answers that never came are in `due` only."""
    parts = urlsplit(url)
    request = f"GET {path} HTTP/1.1\r\nhost: {parts.netloc}\r\n{headers}\r\n".encode()
    loop = asyncio.get_running_loop()
    polls, every_s = Polls(), connections / per_s
    start_at = loop.time() + 0.5
    pollers = [
        (
            await loop.create_connection(
                lambda i=i: _Poller(request, polls, start_at + every_s * i / connections, every_s, start_at + for_s),
                parts.hostname,
                parts.port,
            )
        )[1]
        for i in range(connections)
    ]
    await asyncio.wait([poller.done for poller in pollers], timeout=for_s + LATE_AFTER_S)
    return polls


def _workers(pid: int) -> list[int]:
    """The processes that nginx's first one has started (proc(5))."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def bench(origin: Process, cache: Process, per_s: float, for_s: float, connections: int) -> str:
    presenter = Presenter([origin.url], TOKEN)
    code = await presenter.make_room()
    await presenter.control(code, "next")
    loop = asyncio.get_running_loop()
    before, cpu_before_s, started = await presenter.state_polls(), machine.cpu_s(origin.pid), loop.time()
    async with machine.watching([origin.pid, cache.pid, *_workers(cache.pid)]) as watch:
        polls = await poll(cache.url, f"/r/{code}/state", per_s, for_s, connections)
    took_s = loop.time() - started
    reached = await presenter.state_polls() - before
    cpu_s = machine.cpu_s(origin.pid) - cpu_before_s
    presenter.close()
    return "\n".join(
        [
            f"asked for        {per_s:.0f} polls/s for {for_s:g} s over {connections} connections, no pipelining",
            f"reached          {polls.answered / for_s:.0f} polls/s: {polls.answered} answered, "
            f"{polls.refused} refused, {polls.due - polls.answered} unanswered, {polls.lost} connections lost",
            f"latency ms       {machine.quantiles(polls.late_ms)}   (from when each poll was due)",
            f"web app          {reached} polls reached it in {took_s:.1f} s ({reached / took_s:.1f}/s), "
            f"{cpu_s / took_s:.1%} of a core",
            watch.report(),
        ]
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m loadgen.edge", description=__doc__.partition("\n")[0])
    parser.add_argument("--rate", type=float, default=5000, help="polls a second (%(default)g)")
    parser.add_argument("--seconds", type=float, default=10, help="for how long (%(default)g)")
    parser.add_argument("--connections", type=int, default=200, help="(%(default)s)")
    args = parser.parse_args()
    if not (shutil.which("nginx") or shutil.which("/usr/sbin/nginx")):
        subprocess.run([ROOT / "scripts/apt-install", "nginx-light"], check=True)
    print(f"One web app behind nginx on {machine.description()}")
    print("Web app and nginx on one core, the polls come from another.\n", flush=True)
    machine.allow_connections(3 * args.connections)
    try:
        with (
            stand() as where,
            edge(where.web.url, where.core) as cache,
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            print(runner.run(bench(where.web, cache, args.rate, args.seconds, args.connections)))
    except (NotReady, Lost, CallFailed) as error:
        print(f"The run did not end: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
