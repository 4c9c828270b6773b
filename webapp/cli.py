"""The `crowdspike` command."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path

from pydantic import ValidationError

from inference.engine import server as engine
from webapp import demo, export
from webapp.context import now_ms
from webapp.live_room import LiveRoom
from webapp.log.open import open_store
from webapp.log.store import NotFound, StoreError
from webapp.room.names import normal_code
from webapp.room.state import RoomInfo
from webapp.routes.static import LibrariesMissing
from webapp.server import PortTaken, listen, new_loop, serve, set_up_logging
from webapp.settings import Settings
from webapp.talk.check import check
from webapp.talk.model import Talk
from webapp.talk.parse import TalkError, load_talk
from webapp.talk.samples import talk_paths


class Refused(Exception):
    """What the person must put right."""


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    try:
        return args.run(args)
    except (Refused, PortTaken, demo.ReplicaFailed, TalkError, StoreError, LibrariesMissing) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="crowdspike", description="Your audience is the load test.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run, text: str, example: str, into=commands) -> argparse.ArgumentParser:
        sub = into.add_parser(
            name,
            help=text,
            description=text,
            epilog=f"examples:\n{example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(run=run)
        return sub

    sub = command(
        "demo",
        _demo,
        "A whole talk on this machine: one simulated replica, the web app, a room.",
        "  crowdspike demo\n  INFERENCE_URL=http://gpu-box:8000 crowdspike demo --talk my-talk.yaml --port 9000",
    )
    _serving(sub, host="0.0.0.0")
    sub = command(
        "serve",
        _serve,
        "The web app alone, for a real audience; rooms are opened in the console.",
        "  crowdspike serve --store s3://my-bucket/talks --inference-url http://vllm:8000 --public-url https://quiz.example\n"
        "  crowdspike serve --store ./data --talk my-talk.yaml",
    )
    _serving(sub, host="127.0.0.1")
    sub = command(
        "engine",
        engine.run,
        "A simulated vLLM replica.",
        "  crowdspike engine --port 8100 --qa questions.json",
    )
    engine.add_arguments(sub)
    talk = commands.add_parser("talk", help="Talk files.").add_subparsers(required=True, metavar="COMMAND")
    sub = command(
        "check",
        lambda args: check(args.files),
        "Says what a talk file holds, or everything that is wrong with it.",
        "  crowdspike talk check my-talk.yaml",
        into=talk,
    )
    sub.add_argument("files", nargs="+", type=Path, metavar="FILE")
    sub = command(
        "export",
        _export,
        "Every response of a room, on standard output.",
        "  crowdspike export KWXM --format csv > answers.csv\n"
        "  crowdspike export KWXM --format jsonl --store s3://my-bucket/talks",
    )
    sub.add_argument("code", help="the room's code")
    sub.add_argument("--format", choices=sorted(export.FORMATS), default="csv")
    _store(sub)
    return parser


def _store(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--store", help="a folder or s3://bucket/prefix (CROWDSPIKE_STORE, ./data)")
    parser.add_argument("--s3-endpoint-url", help="an S3-compatible server (CROWDSPIKE_S3_ENDPOINT_URL)")


def _serving(parser: argparse.ArgumentParser, host: str) -> None:
    _store(parser)
    parser.add_argument("--host", default=host, help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on (%(default)s)")
    parser.add_argument("--talk", type=Path, action="append", metavar="FILE", help="a talk to offer; may be repeated")
    parser.add_argument("--inference-url", help="OpenAI-compatible servers, separated by commas (INFERENCE_URL)")
    parser.add_argument("--public-url", help="where phones reach this server (CROWDSPIKE_PUBLIC_URL)")


def _settings(args: argparse.Namespace) -> Settings:
    given = {k: v for k, v in vars(args).items() if k in Settings.model_fields and v is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        problems = [f"{e['loc'][0]}: {e['msg'].removeprefix('Value error, ')}" for e in error.errors()]
        raise Refused("\n".join(problems)) from None


def _talks(args: argparse.Namespace) -> list[Talk]:
    """The talks given first, then the bundled ones. Raises TalkError."""
    return [load_talk(path) for path in (*(args.talk or ()), *talk_paths())]


def _demo(args: argparse.Namespace) -> int:
    set_up_logging()
    return demo.run(_settings(args), _talks(args), args.host, args.port, listen(args.host, args.port))


def _serve(args: argparse.Namespace) -> int:
    set_up_logging()
    settings, talks = _settings(args), _talks(args)
    sock = listen(args.host, args.port)

    async def started(app) -> None:
        where = settings.public_url or f"http://{args.host}:{sock.getsockname()[1]}"
        replicas = ", ".join(settings.inference_urls) or "none: replies will wait until one is configured"
        print(f"Console   {where}/present?token={app.parts.presenter_token}", flush=True)
        print(f"Replicas  {replicas}\nStore     {settings.store}", flush=True)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(serve(settings, talks, sock, started))
    return 0


def _export(args: argparse.Namespace) -> int:
    settings = _settings(args)
    code = normal_code(args.code)
    if code is None:
        raise Refused(f"{args.code!r} is not a room code: four letters, such as KWXM.")
    state = asyncio.run(_read_room(settings, code))
    sys.stdout.writelines(export.FORMATS[args.format](state))
    return 0


async def _read_room(settings: Settings, code: str):
    store = open_store(settings.store, settings.s3_endpoint_url)
    try:
        info = RoomInfo.from_json(json.loads(await store.get(f"rooms/{code}/room.json")))
        room = LiveRoom(store, info, "", now_ms)
        await room.catch_up()
        return room.state
    except NotFound:
        raise Refused(f"There is no room {code} in {settings.store}.") from None
    finally:
        await store.close()


if __name__ == "__main__":
    sys.exit(main())
