"""The `crowdspike` command."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from inference.cluster.cluster import NoCluster
from inference.engine import server as engine
from loadgen.spike import command as spike
from webapp import demo, export, replay, tape
from webapp.context import now_ms
from webapp.gateway import keys
from webapp.live_room import LiveRoom
from webapp.log.open import open_store
from webapp.log.store import NotFound, Store, StoreError
from webapp.rehearse import command as rehearsal
from webapp.report import page as report
from webapp.room.info import RoomInfo
from webapp.room.names import normal_code
from webapp.routes.static import LibrariesMissing
from webapp.server import PortTaken, listen, new_loop, serve, set_up_logging
from webapp.settings import Settings
from webapp.talk.check import check
from webapp.talk.model import Talk
from webapp.talk.parse import TalkError, load_talk
from webapp.talk.samples import talk_paths
from webapp.templating import environment


class Refused(Exception):
    """What the person must put right."""


REFUSALS = (
    *(Refused, PortTaken, NoCluster, TalkError, StoreError, LibrariesMissing),
    *(keys.BadName, keys.NoSuchKey, tape.NoRecord),
    *rehearsal.REFUSALS,
    *spike.REFUSALS,
)


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    try:
        status = args.run(args)
        sys.stdout.flush()
        return status
    except REFUSALS as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever read it has seen enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


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
        "A whole talk on this machine: a simulated cluster, the web app, a room.",
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
    sub = command(
        "replay",
        _replay,
        "The stage of a room as it was, from its log alone: no replica, no phones, no network but the store.",
        "  crowdspike replay KWXM --speed 10\n  crowdspike replay KWXM --store s3://my-bucket/talks --loop --port 9000",
    )
    sub.add_argument("code", help="the room's code")
    sub.add_argument("--speed", type=_speed, default=10.0, metavar="N", help="times as fast as it was (%(default)g)")
    sub.add_argument("--loop", action="store_true", help="start again at the end; else the end stays on the screen")
    sub.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    sub.add_argument("--port", type=int, default=8000, help="port to listen on (%(default)s)")
    _store(sub)
    sub = command(
        "report",
        _report,
        "A room as one HTML file: load, scaling, delays, costs and answers. It needs nothing else to be read.",
        "  crowdspike report KWXM\n  crowdspike report KWXM --store s3://my-bucket/talks -o report.html",
    )
    sub.add_argument("code", help="the room's code")
    sub.add_argument("-o", "--output", type=Path, metavar="FILE", help="where to (report-CODE.html; - is stdout)")
    _store(sub)
    sub = command(
        "rehearse",
        rehearsal.run,
        "A whole talk against a simulated cluster on a fast clock: what each way to scale it would do and cost.",
        "  crowdspike rehearse --phones 400 --plot rehearsal.svg\n"
        "  crowdspike rehearse --talk my-talk.yaml --manifests infra/kustomize/base --manifests my-overlay --seed 7",
    )
    rehearsal.add_arguments(sub)
    text = "A load run with k6 or Locust, what came of it, and whether to believe it."
    spike.add_commands(commands.add_parser("spike", help=text, description=text), command)
    _keys(
        commands.add_parser("keys", help="API keys for /v1.").add_subparsers(required=True, metavar="COMMAND"), command
    )
    return parser


def _keys(into, command) -> None:
    sub = command(
        "add",
        _add_key,
        "Makes an API key and prints it, this once: the store keeps only its hash.",
        "  crowdspike keys add k6 --store s3://my-bucket/talks\n"
        "  KEY=$(crowdspike keys add analyst --requests-per-minute 60 --tokens-per-minute 20000)",
        into=into,
    )
    sub.add_argument("name", help="who uses it, as logs show it; never used again for another key")
    sub.add_argument("--requests-per-minute", type=_positive, metavar="N", help="in each web process (no limit)")
    sub.add_argument("--tokens-per-minute", type=_positive, metavar="N", help="prompts and answers together (no limit)")
    _store(sub)
    sub = command(
        "list",
        _list_keys,
        "The API keys, revoked ones too, by name.",
        "  crowdspike keys list --store s3://my-bucket/talks",
        into=into,
    )
    _store(sub)
    sub = command(
        "revoke",
        _revoke_key,
        "Ends an API key for good. Running servers take note within 10 seconds.",
        "  crowdspike keys revoke k6 --store s3://my-bucket/talks",
        into=into,
    )
    sub.add_argument("name")
    _store(sub)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


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
    cluster = parser.add_argument_group("cluster")
    kinds = ("none", "local", "kubernetes")
    cluster.add_argument("--cluster", choices=kinds, help="what is under the replicas (CROWDSPIKE_CLUSTER)")
    cluster.add_argument("--cluster-manifests", metavar="FOLDER", help="what the local one reads")
    cluster.add_argument("--cluster-profile", metavar="NAME", help="what its replicas behave like (their node's GPU)")
    cluster.add_argument("--cluster-speed-up", type=float, metavar="N", help="of its cold starts")
    cluster.add_argument("--cluster-namespace", metavar="NAME", help="of the real one's replicas")


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
        openai = (
            "a key is needed, see `crowdspike keys add --help`" if settings.api_keys == "required" else "open to all"
        )
        print(f"Replicas  {replicas}\nStore     {settings.store}\nAPI       {where}/v1 ({openai})", flush=True)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(serve(settings, talks, sock, started))
    return 0


def _speed(text: str) -> float:
    try:
        speed = float(text.removesuffix("×").removesuffix("x"))
    except ValueError:
        speed = 0.0
    if not 0 < speed <= replay.MAX_SPEED:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0 and up to {replay.MAX_SPEED:g}")
    return speed


def _code(args: argparse.Namespace) -> str:
    code = normal_code(args.code)
    if code is None:
        raise Refused(f"{args.code!r} is not a room code: four letters, such as KWXM.")
    return code


def _read_log(args: argparse.Namespace) -> tape.Log:
    async def read() -> tape.Log:
        async with _opened(_settings(args)) as store:
            return await tape.load(store, _code(args))

    return asyncio.run(read())


def _replay(args: argparse.Namespace) -> int:
    set_up_logging()
    log = _read_log(args)
    if not log.timeline.moments:
        raise Refused(f"Room {log.info.code} has no timeline: nothing was recorded while it was live.")
    sock = listen(args.host, args.port)

    def said() -> None:
        print(f"Stage     http://{args.host}:{sock.getsockname()[1]}/stage/{log.info.code}", flush=True)
        print("Keys      space pauses, ← and → 30 s, Home to the start, - and + the speed; Ctrl-C ends it", flush=True)

    replay.run(log, args.speed, args.loop, sock, said)
    return 0


def _report(args: argparse.Namespace) -> int:
    log = _read_log(args)
    html = report.page(log, environment(""))
    if str(args.output) == "-":
        sys.stdout.write(html)
        return 0
    path = args.output or Path(f"report-{log.info.code}.html")
    try:
        path.write_text(html, encoding="utf-8")
    except OSError as error:
        raise Refused(f"{path} can't be written: {error.strerror}.") from None
    print(path)
    return 0


def _export(args: argparse.Namespace) -> int:
    settings = _settings(args)
    code = _code(args)
    state = asyncio.run(_read_room(settings, code))
    sys.stdout.writelines(export.FORMATS[args.format](state))
    return 0


async def _read_room(settings: Settings, code: str):
    async with _opened(settings) as store:
        try:
            info = RoomInfo.from_json(json.loads(await store.get(f"rooms/{code}/room.json")))
            room = LiveRoom(store, info, "", now_ms)
            await room.catch_up()
            return room.state
        except NotFound:
            raise Refused(f"There is no room {code} in {settings.store}.") from None


def _add_key(args: argparse.Namespace) -> int:
    async def add() -> str:
        async with _opened(_settings(args)) as store:
            return await keys.add(store, args.name, now_ms(), args.requests_per_minute, args.tokens_per_minute)

    print(asyncio.run(add()))
    print("Keep it: it cannot be shown again. Send it as `Authorization: Bearer …`.", file=sys.stderr)
    return 0


def _list_keys(args: argparse.Namespace) -> int:
    async def read() -> list[keys.Key]:
        async with _opened(_settings(args)) as store:
            return await keys.read(store)

    for key in asyncio.run(read()):
        state = f"revoked {_date(key.revoked_ms)}" if key.revoked_ms else "good"
        limits = f"{key.requests_per_minute or 'any'} requests, {key.tokens_per_minute or 'any'} tokens a minute"
        print(f"{key.name:<24}  made {_date(key.created_ms)}  {state:<18}  {limits}")
    return 0


def _revoke_key(args: argparse.Namespace) -> int:
    async def revoke() -> None:
        async with _opened(_settings(args)) as store:
            await keys.revoke(store, args.name, now_ms())

    asyncio.run(revoke())
    print(f"Revoked. Running servers take note within {keys.REREAD_EVERY_S:.0f} s.")
    return 0


def _date(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).date().isoformat()


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[Store]:
    store = open_store(settings.store, settings.s3_endpoint_url)
    try:
        yield store
    finally:
        await store.close()


if __name__ == "__main__":
    sys.exit(main())
