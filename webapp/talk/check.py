"""`crowdspike talk check`: says of each talk file what it holds, or everything that is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from webapp.talk.colour import contrast, ink
from webapp.talk.model import Kind, Quiz, Talk
from webapp.talk.parse import TalkError, load_talk


def check(paths: Iterable[Path]) -> int:
    """Prints a line for each good talk and for each problem of a bad one. Returns the exit code: 1 if any is bad."""
    bad = False
    for path in paths:
        try:
            print(f"{path}: {summary(load_talk(path))}")
        except TalkError as error:
            print(error)
            bad = True
    return 1 if bad else 0


def summary(talk: Talk) -> str:
    """A talk in one line: its title, what it holds, how long its questions take, how its colour reads."""
    kinds = [activity.kind for activity in talk.activities]
    parts = [f"{kinds.count(kind)} {kind}" for kind in Kind if kind in kinds]
    if talk.qa:
        parts.append(f"{len(talk.qa)} qa")
    seconds = sum(a.time_limit_s for a in talk.activities if isinstance(a, Quiz))
    if seconds:
        parts.append(f"{seconds // 60} min {seconds % 60:02d} s of quiz time")
    text, accent = ink(talk.theme.accent), talk.theme.accent
    parts.append(f"text {text} on {accent} has {contrast(text, accent):.1f}:1")
    return f"{talk.title} ({', '.join(parts)})"
