"""Runs a simulated replica as a process: its command line, its start-up, its socket, and its end."""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import sys
from datetime import date
from pathlib import Path
from time import monotonic
from types import FrameType

import uvicorn

from inference.engine import calibrate
from inference.engine import profile as profiles
from inference.engine.answers import Entry, read_entries
from inference.engine.app import DEFAULT_PROFILE, Engine, Settings
from inference.engine.generation import Broken
from inference.engine.profile import Profile, ProfileError
from inference.engine.scheduler import Batch

EXAMPLES = """examples:
  crowdspike engine --qa answers.json
  crowdspike engine --profile l4-mistral-7b-awq --port 8101 --qa answers.json --max-num-seqs 8
  crowdspike engine profiles
  crowdspike engine calibrate --help
"""
TICK_S = 0.1
STREAMS = 32
CONTEXT_TOKENS = 150  # a short question and its answer
PHASES = ("imports", "weights", "compile")


class Server(uvicorn.Server):
    """uvicorn whose start takes as long as the profile says, times `startup_scale`, before it listens.

    Its end is vLLM's: from SIGTERM or SIGINT on it takes no new request. Answers under way get `shutdown_timeout_s` and
    end with an error when it is over; where it is 0 they end at once, with the finish reason `abort`.
    """

    def __init__(
        self, config: uvicorn.Config, engine: Engine, *, startup_scale: float = 0.0, shutdown_timeout_s: float = 0.0
    ) -> None:
        super().__init__(config)
        self._engine = engine
        self._startup_scale = startup_scale
        self._shutdown_timeout_s = shutdown_timeout_s

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
        for phase in PHASES:
            seconds = getattr(self._engine.profile, f"startup_{phase}_s").value
            await self._phase(phase, seconds, seconds * self._startup_scale)
        if self.should_exit:
            return
        await super().startup(sockets)
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            print(f"simulated vLLM replica on http://{host}:{port}", flush=True)

    async def _phase(self, name: str, profile_s: float, takes_s: float) -> None:
        if takes_s > 0 and not self.should_exit:
            print(f"start: {name}, {takes_s:.1f} s ({profile_s:g} s in the profile)", file=sys.stderr, flush=True)
            until_s = monotonic() + takes_s
            # A flag, as a signal handler can do no more; uvicorn looks at it as often.
            while not self.should_exit and (left_s := until_s - monotonic()) > 0:  # noqa: ASYNC110
                await asyncio.sleep(min(TICK_S, left_s))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._engine.drain()
        if self._shutdown_timeout_s > 0:
            until_s = monotonic() + self._shutdown_timeout_s
            while self._engine.unfinished and monotonic() < until_s:  # noqa: ASYNC110
                await asyncio.sleep(TICK_S)
        self._engine.end(Broken.FAILED if self._shutdown_timeout_s > 0 else Broken.ABORTED)
        await super().shutdown(sockets)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    add("--port", type=int, default=8100, help="port to listen on, 0 for a free one (%(default)s)")
    add("--profile", default=DEFAULT_PROFILE, help="GPU and model to behave like, or a .yaml file (%(default)s)")
    add("--qa", type=Path, help="JSON list of questions and answers to speak from")
    add("--model", default="mistral", help="model name to serve (%(default)s)")
    add("--max-num-seqs", type=_positive, help="requests computed at once (the profile's)")
    add("--max-num-batched-tokens", type=_positive, help="tokens computed in one step (the profile's)")
    add("--max-model-len", type=_positive, help="context length (the profile's)")
    add("--num-kv-blocks", type=_positive, help="KV-cache blocks (the profile's)")
    add("--max-num-queued-reqs", type=_positive, help="unfinished requests above which new ones get 503 (no limit)")
    add("--seed", type=int, default=0, help="of the step times' jitter (%(default)s)")
    add("--startup-scale", type=_factor, default=0.0, help="times the profile's start-up; 0 starts at once (0)")
    add("--shutdown-timeout", type=_factor, default=0.0, help="seconds that SIGTERM leaves running requests (0)")
    add("--with-parent", action="store_true", help="end when standard input does")
    parser.set_defaults(run=run)
    commands = parser.add_subparsers(metavar="COMMAND")
    text = "List the profiles."
    commands.add_parser("profiles", help=text, description=text).set_defaults(run=list_profiles)
    calibrate.add_arguments(commands.add_parser("calibrate", help=calibrate.TEXT, description=calibrate.TEXT))


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit status."""
    entries: tuple[Entry, ...] = ()
    if args.qa is not None:
        try:
            entries = read_entries(args.qa.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            print(f"{args.qa}: {error}", file=sys.stderr)
            return 2
    try:
        settings = _settings(args)
    except ProfileError as error:
        print(error, file=sys.stderr)
        return 2
    engine = Engine(settings, entries)
    config = _config(engine, args.host, args.port)
    server = Server(config, engine, startup_scale=args.startup_scale, shutdown_timeout_s=args.shutdown_timeout)
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(_serve(server, args.with_parent))
    return 0


def list_profiles(args: argparse.Namespace) -> int:
    """Every profile that comes along, with its speed by its formula."""
    for name in profiles.names():
        profile = profiles.load(name)
        speed = f"{tokens_per_s(profile):,.0f} tokens/s at {STREAMS} streams of {CONTEXT_TOKENS} tokens"
        print(f"{name}\n  {profile.about.strip()}\n  About {speed}.\n")
    return 0


def tokens_per_s(profile: Profile) -> float:
    """What STREAMS requests that decode get out of it together."""
    return STREAMS / profile.mean_step_s(Batch(decode_seqs=STREAMS, context_tokens=STREAMS * CONTEXT_TOKENS))


def _settings(args: argparse.Namespace) -> Settings:
    """Raises ProfileError."""
    given = {name: getattr(args, name, None) for name in profiles.COUNTS}
    values = {name: value for name, value in given.items() if value is not None}
    profile = profiles.load(args.profile).with_values(values, "the command line", date.today().isoformat())
    capacity = profile.capacity
    if capacity.usable_blocks * capacity.kv_block_size < capacity.max_model_len:
        held = capacity.usable_blocks * capacity.kv_block_size
        raise ProfileError(
            f"{capacity.num_kv_blocks} KV blocks hold {held} tokens, less than one request of "
            f"{capacity.max_model_len}: give --num-kv-blocks more or --max-model-len less"
        )
    return Settings(profile, args.model, args.max_num_queued_reqs, args.seed)


async def _serve(server: Server, with_parent: bool) -> None:
    if with_parent:
        server.end_with_stdin()
    await server.serve()


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


def _factor(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1e6:
        raise argparse.ArgumentTypeError("must be 0 or more")
    return value
