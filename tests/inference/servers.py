"""Servers for the tests, all real and on loopback: an application under uvicorn, an engine process, and a replica
that follows a script byte by byte."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import uvicorn

from inference.engine import profile as profiles
from inference.engine.answers import Entry
from inference.engine.app import Engine, Settings
from inference.engine.profile import Profile
from inference.upstream import Upstream

LONG_ANSWER = " ".join(f"word{i}" for i in range(2000))
LONG = (Entry("Tell me a long story", LONG_ANSWER, ("story",)), Entry("What is a pod?", "A pod is a group.", ("pod",)))
STORY = [{"role": "user", "content": "story"}]
PATIENCE_S = 10


def profile(**values: float) -> Profile:
    """The instant one, with some figures replaced."""
    return profiles.load("instant").with_values(values, "chosen by a test", "2026-11-21")


FAST = profile()
STEADY = profile(step_base_ms=5)


def engine(profile: Profile = FAST, max_num_queued_reqs: int | None = None, **capacity: int) -> Engine:
    """A replica with some of the profile's capacity replaced."""
    given = profile.with_values(capacity, "chosen by a test", "2026-11-21")
    return Engine(Settings(given, max_num_queued_reqs=max_num_queued_reqs), LONG)


def profile_file(folder: Path, **values: float) -> str:
    """`profile` as a file for `--profile`."""
    path = folder / "profile.yaml"
    path.write_text(profiles.dump(profile(**values)))
    return str(path)


@asynccontextmanager
async def serving(app, port: int = 0, http: str | type[asyncio.Protocol] = "auto") -> AsyncIterator[str]:
    """The URL of an ASGI application under uvicorn in this loop, spoken to through uvicorn's protocol `http`."""
    config = uvicorn.Config(
        app, host="127.0.0.1", port=port, http=http, lifespan="off", log_level="warning", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server._serve())
    await until(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        for connection in list(server.server_state.connections):
            connection.transport.abort()
        server.should_exit = True
        await task


class EngineProcess:
    def __init__(self, process: asyncio.subprocess.Process, url: str) -> None:
        self.process = process
        self.url = url

    def send(self, sig: signal.Signals) -> None:
        self.process.send_signal(sig)


@asynccontextmanager
async def engine_process(*arguments: str) -> AsyncIterator[EngineProcess]:
    """`python -m inference.engine` on a free port."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "inference.engine", "--port", "0", *arguments),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), 30)
        yield EngineProcess(process, line.decode().strip().rpartition(" ")[2])
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class ScriptedReplica:
    """Healthy, serves `mistral`, has no /metrics; each POST follows `script`. `posts` counts them."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.posts = 0
        self.bodies: list[bytes] = []
        self.heads: list[bytes] = []

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                method, path, _ = head.decode().split(" ", 2)
                if method == "POST":
                    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                    self.heads.append(head)
                    self.bodies.append(await reader.readexactly(length))
                    self.posts += 1
                    await self.script(reader, writer)
                    return
                if path == "/v1/models":
                    writer.write(whole(200, b'{"object":"list","data":[{"id":"mistral"}]}'))
                else:
                    writer.write(whole(200 if path == "/health" else 404, b""))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def scripted(
    script: Script, host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[tuple[str, ScriptedReplica]]:
    """The URL of a replica that follows `script`, and the replica."""
    replica = ScriptedReplica(script)
    server = await asyncio.start_server(replica.handle, host, port)
    try:
        yield f"http://{host}:{server.sockets[0].getsockname()[1]}", replica
    finally:
        server.close()


def whole(status: int, body: bytes, *fields: bytes) -> bytes:
    lines = [b"HTTP/1.1 %d X" % status, b"content-type: application/json", b"content-length: %d" % len(body), *fields]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
STREAM_END = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def event(**delta: str) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": None}
    return b"data: " + json.dumps({"id": "x", "choices": [choice]}).encode() + b"\n\n"


ROLE = event(role="assistant", content="")


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


async def until(holds: Callable[[], bool]) -> None:
    """Wait for something that no event tells of."""
    async with asyncio.timeout(PATIENCE_S):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def get(url: str, path: str) -> tuple[int, bytes]:
    upstream = Upstream(url)
    exchange = await upstream.get(path)
    try:
        return exchange.status, await exchange.read()
    finally:
        exchange.abort()
