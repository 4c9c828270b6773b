"""`crowdspike rehearse`: its options, its files, what it prints."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, fields
from pathlib import Path
from typing import Any

from inference.cluster import manifests
from inference.cluster.autoscaling.promql import QueryError
from inference.engine import profile as profiles
from webapp.rehearse.figures import TARGET_S, Figures, figures
from webapp.rehearse.plot import svg
from webapp.rehearse.rehearsal import Point, Run, rehearse
from webapp.rehearse.script import Pace, script
from webapp.rehearse.table import table, verdicts
from webapp.talk.parse import load_talk
from webapp.talk.samples import sample_talk


class CannotWrite(Exception):
    """A file that was asked for."""


REFUSALS = (manifests.ManifestError, profiles.ProfileError, QueryError, CannotWrite)
"""What a person must put right, besides a talk file."""
MOST_PHONES = 5000
DIGITS = 6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    pace = Pace()
    parser.add_argument("--talk", type=Path, metavar="FILE", help="the talk (the bundled one)")
    parser.add_argument("--phones", type=_phones, default=400, metavar="N", help="how many join (%(default)s)")
    parser.add_argument("--minutes", type=_minutes, default=pace.minutes, help="how long the talk is (%(default)g)")
    parser.add_argument(
        "--lobby-minutes",
        type=_minutes,
        default=pace.lobby_minutes,
        help="from the code on the screen to the first activity (%(default)g)",
    )
    parser.add_argument("--answer-tokens", type=_tokens, metavar="N", help="of each reply (those of prepared answers)")
    parser.add_argument("--profile", help="how fast a replica is (as its node's GPU)")
    parser.add_argument(
        "--manifests",
        type=Path,
        action="append",
        metavar="FOLDER",
        help="a configuration to compare; may be repeated (the base and its crowd-aware overlay)",
    )
    parser.add_argument("--seed", type=int, default=1, help="of all chance (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write figures and time series here")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw them here")


def run(args: argparse.Namespace) -> int:
    """Raises TalkError or one of REFUSALS."""
    talk = load_talk(args.talk) if args.talk else sample_talk()
    profile = profiles.load(args.profile) if args.profile else None
    base = manifests.defaults()
    folders = args.manifests or [base, base.parent / "overlays" / "crowd-aware"]
    specs = {name: manifests.load(folder) for name, folder in zip(_names(folders), folders, strict=True)}
    pace = Pace(minutes=args.minutes, lobby_minutes=args.lobby_minutes)
    play = script(talk, args.phones, pace, args.seed, args.answer_tokens)
    runs = {name: rehearse(play, spec, profile, args.seed) for name, spec in specs.items()}
    found = {name: figures(one) for name, one in runs.items()}
    heading = (
        f"{talk.title}: {args.phones} phones, {play.ends_s / 60:.0f} minutes, "
        f"{f'{profile.name}, ' if profile else ''}seed {args.seed}; simulated"
    )
    requests = next(iter(found.values())).requests
    print(f"{heading}\n{requests} requests, the same for each configuration\n\n{table(found)}\n")
    print("\n".join(verdicts(found)), end="\n" if len(found) > 1 else "")
    if args.json:
        _write(args.json, _json(heading, args, runs, found))
    if args.plot:
        _write(args.plot, svg(runs, heading))
    return 0


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CannotWrite(f"{path} can't be written: {error.strerror}") from error


def _json(heading: str, args: argparse.Namespace, runs: Mapping[str, Run], found: Mapping[str, Figures]) -> str:
    """Figures and, by columns, a value a second."""
    names = [field.name for field in fields(Point)]
    configurations = [
        {
            "name": name,
            "figures": _rounded(asdict(found[name])),
            "points": {
                column: [_rounded(value) for value in values]
                for column, values in zip(names, zip(*map(astuple, run.points), strict=True), strict=True)
            },
        }
        for name, run in runs.items()
    ]
    given = {"phones": args.phones, "minutes": args.minutes, "lobby_minutes": args.lobby_minutes, "seed": args.seed}
    given |= {"profile": args.profile, "answer_tokens": args.answer_tokens, "ttft_target_s": TARGET_S}
    return json.dumps({"title": heading, **given, "configurations": configurations}, ensure_ascii=False) + "\n"


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    return round(value, DIGITS) if isinstance(value, float) else value


def _names(folders: Sequence[Path]) -> list[str]:
    """The folders' own names; as they were given where two have the same."""
    own = [folder.resolve().name for folder in folders]
    return own if len(set(own)) == len(own) else [f"{i}: {folder}" for i, folder in enumerate(folders, 1)]


def _phones(text: str) -> int:
    if not text.isdecimal() or int(text) > MOST_PHONES:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to {MOST_PHONES}")
    return int(text)


def _tokens(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = -1.0
    if not 0 <= minutes <= 600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of minutes from 0 to 600")
    return minutes
