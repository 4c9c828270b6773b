"""Runs a simulated replica as a process: its command line, its socket, and an end without delay."""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import sys
from pathlib import Path
from types import FrameType

import uvicorn

from inference.engine.answers import Entry, read_entries
from inference.engine.app import Engine, Settings
from inference.engine.seats import Pace

EXAMPLES = """examples:
  crowdspike engine --qa answers.json
  crowdspike engine --port 8101 --qa answers.json --ttft-ms 200 --itl-ms 30 --max-num-seqs 8
"""


class Server(uvicorn.Server):
    """uvicorn, but on SIGTERM and SIGINT it drops open streams and returns, as a pod that is taken away does."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.should_exit = True

    def end_with_stdin(self) -> None:
        """End when standard input ends: whoever holds its other side may be killed and say nothing."""

        def read() -> None:
            if not os.read(sys.stdin.fileno(), 4096):
                asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
                self.should_exit = True

        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), read)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        print(f"simulated vLLM replica on http://{host}:{port}", flush=True)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await super().shutdown(sockets)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=8100, help="port to listen on, 0 for a free one (%(default)s)")
    parser.add_argument("--qa", type=Path, help="JSON list of questions and answers to speak from")
    parser.add_argument("--model", default="mistral", help="model name to serve (%(default)s)")
    parser.add_argument("--ttft-ms", type=_milliseconds, default=80.0, help="time to first token (%(default)g)")
    parser.add_argument("--itl-ms", type=_milliseconds, default=20.0, help="time between tokens (%(default)g)")
    parser.add_argument("--max-num-seqs", type=_positive, default=32, help="requests served at once (%(default)s)")
    parser.add_argument("--with-parent", action="store_true", help="end when standard input does")
    parser.add_argument("--max-model-len", type=_positive, default=4096, help="context length (%(default)s)")


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit status."""
    entries: tuple[Entry, ...] = ()
    if args.qa is not None:
        try:
            entries = read_entries(args.qa.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            print(f"{args.qa}: {error}", file=sys.stderr)
            return 2
    settings = Settings(
        model=args.model,
        pace=Pace(args.ttft_ms / 1000, args.itl_ms / 1000),
        max_num_seqs=args.max_num_seqs,
        max_model_len=args.max_model_len,
    )
    config = _config(Engine(settings, entries), args.host, args.port)
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(_serve(Server(config), args.with_parent))
    return 0


async def _serve(server: Server, with_parent: bool) -> None:
    if with_parent:
        server.end_with_stdin()
    await server.serve()


async def serve(settings: Settings, entries: tuple[Entry, ...] = (), host: str = "127.0.0.1", port: int = 8100) -> None:
    """Serve in the running loop until the process gets SIGTERM or SIGINT, or the task is cancelled."""
    await Server(_config(Engine(settings, entries), host, port)).serve()


def _config(engine: Engine, host: str, port: int) -> uvicorn.Config:
    return uvicorn.Config(
        engine,
        host=host,
        port=port,
        loop="auto",
        http="httptools",
        ws="none",
        lifespan="off",
        access_log=False,
        log_level="warning",
        server_header=True,
        timeout_graceful_shutdown=1,
    )


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def _milliseconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < 3_600_000:
        raise argparse.ArgumentTypeError("must be 0 or more")
    return value
