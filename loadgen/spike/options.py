"""The options of `crowdspike spike SCENARIO`: how they are written, and the `Options` that a plan is made of."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path

from loadgen.spike.plan import Slo
from loadgen.spike.scenarios import Options, Scenario

PLACES = ("here", "kubernetes")
TOOLS = ("k6", "locust")
UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_Adds = Callable[[argparse._ArgumentGroup], object]
_LENGTH = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)")


def add_arguments(parser: argparse.ArgumentParser, scenario: Scenario) -> None:
    """Those that all have, and those that this one takes."""
    parser.add_argument("--target", metavar="URL", help="an OpenAI-compatible server or a crowdspike: http://host:port")
    parser.add_argument("--tool", choices=TOOLS, default="k6", help="what makes the load (%(default)s)")
    work = parser.add_argument_group("the load")
    for name in _SPECIAL:
        if name in scenario.takes:
            _SPECIAL[name](work)
    work.add_argument("--duration", type=length_s, metavar="TIME", help="in all, as 90s, 5m or 1h")
    work.add_argument("--seed", type=int, default=1, metavar="N", help="of what is asked (%(default)s)")
    work.add_argument("--room", type=room_code, metavar="CODE", help="a room whose cluster is recorded too")
    verdict = parser.add_argument_group("the verdict")
    slo = Slo()
    verdict.add_argument("--slo-ttft", type=length_s, metavar="TIME", default=slo.ttft_s, help="target (1s)")
    verdict.add_argument("--slo-tpot", type=length_s, metavar="TIME", default=slo.tpot_s, help="target (50ms)")
    verdict.add_argument(
        "--threshold",
        action="append",
        default=[],
        metavar="T",
        help="such as 'ttft_p95_ms<1000'; may be repeated (failed_share<=0.01, and half of what is planned served)",
    )
    _running(parser.add_argument_group("the run"))
    _on_cluster(parser.add_argument_group("on kubernetes"))


def _running(run: argparse._ArgumentGroup) -> None:
    run.add_argument("--out", type=Path, metavar="DIR", help="the run's folder (spikes/TIME-SCENARIO-TOOL)")
    run.add_argument("--paused", action="store_true", help="get ready, and wait for Enter")
    run.add_argument("--yes", action="store_true", help="the target may be outside of this machine's private networks")
    run.add_argument("--insecure", action="store_true", help="take any certificate")
    run.add_argument("--on", choices=PLACES, default="here", help="where the tool runs (%(default)s)")
    run.add_argument("--plan-only", action="store_true", help="print the plan, send nothing")
    run.add_argument("--dry-run", action="store_true", help="say what would be sent; on kubernetes, the manifests")
    run.add_argument("--control", action="store_true", help="for programs: commands in, JSON lines out")


def _on_cluster(place: argparse._ArgumentGroup) -> None:
    place.add_argument("--parallelism", type=count, metavar="N", help="k6 runners, or Locust workers (1)")
    place.add_argument("--namespace", metavar="NS", help="where to make them (the kubeconfig's)")
    place.add_argument("--image", help="of the tool (its official one)")
    place.add_argument("--keep", action="store_true", help="leave what was made there after its end")


def options(args: argparse.Namespace) -> Options:
    given = {name: getattr(args, name) for name in _SPECIAL if getattr(args, name, None) is not None}
    return Options(
        tool=args.tool,
        duration_s=args.duration,
        seed=args.seed,
        slo=Slo(args.slo_ttft, args.slo_tpot),
        thresholds=tuple(args.threshold),
        room=args.room or "",
        **given,
    )


def length_s(text: str) -> float:
    """Seconds of `90s`, `5m`, `1.5h`, `50ms`."""
    found = _LENGTH.fullmatch(text.strip())
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: write a number with its unit, as 50ms, 90s, 5m or 1h")
    return float(found[1]) * UNITS_S[found[2]]


def number(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 < found < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return found


def count(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def counts(text: str) -> tuple[int, ...]:
    return tuple(count(one.strip()) for one in text.split(","))


def bounds(text: str) -> tuple[int, int]:
    """`16:400`, or `64` for always the same."""
    low, _, high = text.partition(":")
    return count(low), count(high or low)


def room_code(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z]{4}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a room code: four letters, such as KWXM")
    return text.upper()


def names(text: str) -> tuple[str, ...]:
    found = tuple(one.strip() for one in text.split(",") if one.strip())
    if not found:
        raise argparse.ArgumentTypeError("name one model or more, separated by commas")
    return found


def _one(flag: str, read: Callable[[str], object], metavar: str, text: str) -> _Adds:
    name = _FIELDS.get(flag, flag[2:].replace("-", "_"))
    return lambda group: group.add_argument(flag, dest=name, type=read, metavar=metavar, help=text)


def _switch(flag: str, text: str) -> _Adds:
    return lambda group: group.add_argument(flag, action="store_true", help=text)


_FIELDS = {"--timeout": "timeout_s", "--batch": "batches"}
_SPECIAL = {
    "peak": _one("--peak", number, "N", "at its highest: requests a second; users with --closed, phones in audience"),
    "closed": _switch("--closed", "users who wait for their answer, so that a slow server gets less to do"),
    "copies": _one("--copies", count, "N", "how often each question is sent (5)"),
    "batches": _one("--batch", counts, "N,…", "requests that a user sends at once (1,4)"),
    "concurrency": _one("--concurrency", counts, "N,…", "users (1,8)"),
    "models": _one("--models", names, "M,…", "models (the server's first)"),
    "model": _one("--model", str, "M", "the model to ask (the server's first)"),
    "prompt_tokens": _one("--prompt-tokens", bounds, "A:B", "length of prompts, roughly (16:400)"),
    "max_tokens": _one("--max-tokens", bounds, "A:B", "longest answer that each asks for (64:200)"),
    "ignore_eos": _switch("--ignore-eos", "answers go on to that length; vLLM only"),
    "cache_busting": _switch("--cache-busting", "no two prompts begin alike, against prefix caches"),
    "max_in_flight": _one("--max-in-flight", count, "N", "more than so many at once are dropped, and said so (500)"),
    "timeout_s": _one("--timeout", length_s, "TIME", "longest wait for one answer (120s)"),
}
"""The options that only some scenarios take, by their field."""
