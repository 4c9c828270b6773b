"""`make bench-cluster`: the whole local cluster at once on this machine, and whether anything falls behind.

Ten simulated replicas with every seat taken, open stages, and a room of phones that polls and answers. The supervisor
is in the web process. Tokens are held against the profile; the generator says when it was itself the limit.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

import uvloop

from inference.engine import profile as profiles
from loadgen import machine
from loadgen.cluster.bench import Figures, Size, TooShort, bench
from loadgen.cluster.report import kept_up, report
from loadgen.cluster.stage import NotSeen
from loadgen.http import Lost
from loadgen.phones import Stuck
from loadgen.presenter import CallFailed
from loadgen.processes import NotReady, web_app
from loadgen.stand import TALK

PROFILE = "l4-mistral-7b-awq"
SPEED_UP = 40
END_WITHIN_S = 240.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m loadgen.cluster", description=__doc__.partition("\n")[0])
    parser.add_argument("--replicas", type=int, default=10, help="pods (%(default)s)")
    parser.add_argument("--streams", type=int, default=320, help="at once (%(default)s)")
    parser.add_argument("--phones", type=int, default=200, help="in the room (%(default)s)")
    parser.add_argument("--stages", type=int, default=3, help="that are watched (%(default)s)")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long is measured (%(default)g)")
    args = parser.parse_args()
    if sys.platform != "linux":
        print("This bench reads CPU time and memory from /proc: it needs Linux.", file=sys.stderr)
        return 2
    size = Size(args.replicas, args.streams, args.phones, args.stages, args.seconds)
    print(f"{size.replicas} replicas, {size.streams} streams, {size.phones} phones, {size.stages} stages", flush=True)
    print(f"on {machine.description()}\n", flush=True)
    machine.allow_connections(4 * (size.phones + size.streams))
    try:
        figures = _run(size)
    except (NotSeen, TooShort, Stuck, Lost, CallFailed, NotReady, TimeoutError) as error:
        print(f"The run did not end: {type(error).__name__} {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(report(figures))
    return 0 if kept_up(figures) else 1


def _run(size: Size) -> Figures:
    with tempfile.TemporaryDirectory(prefix="crowdspike-bench-") as name:
        folder = Path(name)
        talk = folder / "talk.yaml"
        talk.write_text(TALK)
        options = ("--cluster", "local", "--cluster-profile", PROFILE, "--cluster-speed-up", str(SPEED_UP))
        keys = {"CROWDSPIKE_API_KEYS": "off", "CROWDSPIKE_LOG_REQUESTS": "false"}
        web = web_app(folder / "web.log", str(folder / "store"), talk=talk, options=options, environment=keys)
        try:
            web.wait_ready()
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                return runner.run(asyncio.wait_for(bench(web, profiles.load(PROFILE), size), END_WITHIN_S))
        finally:
            web.end()


if __name__ == "__main__":
    sys.exit(main())
