"""A run's folder: what is in it, making it, holding it, writing to it whole or not at all, and reading it back."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from loadgen.spike.plan import BadPlan, Plan
from loadgen.spike.point import Point
from loadgen.spike.summary import BadSummary, Summary

PLAN, POINTS, SERVER, SUMMARY = "plan.json", "points.jsonl", "server.jsonl", "summary.json"
REPORT, LOG, LOCK = "report.html", "tool.log", "lock"
FILES = (PLAN, POINTS, SERVER, SUMMARY, REPORT, LOG, LOCK)


class BadFolder(Exception):
    """A folder that can't be used for a run, or holds none; the text says why."""


@dataclass(frozen=True, slots=True)
class Run:
    """What a folder holds of a run that has ended. `points` are read from the file, each time anew."""

    folder: Path
    plan: Plan
    summary: Summary

    def points(self) -> Iterator[Point]:
        """In the order in which they were written. A last line that broke off is left out. Raises BadFolder."""
        path = self.folder / POINTS
        try:
            with path.open("rb") as lines:
                for number, line in enumerate(lines, 1):
                    if not line.endswith(b"\n"):
                        return
                    yield _point(line, path, number)
        except OSError as error:
            raise BadFolder(f"{path} can't be read: {error.strerror}.") from None


def default(scenario: str, tool: str, at: datetime) -> Path:
    """`spikes/<UTC time>-<scenario>-<tool>`; `at` is in UTC."""
    return Path("spikes") / f"{at:%Y%m%dT%H%M%SZ}-{scenario}-{tool}"


def make(folder: Path) -> None:
    """Raises BadFolder where another run is, OSError where it can't be made."""
    if found := [name for name in FILES if (folder / name).exists()]:
        raise BadFolder(f"{folder} holds another run ({found[0]}). Name a new folder with --out.")
    folder.mkdir(parents=True, exist_ok=True)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """While a run lasts its folder is locked; the lock goes with the process, however that ends. Raises BadFolder where
    another process holds it, OSError."""
    with (folder / LOCK).open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadFolder(f"A run is going on in {folder}. Name a new folder with --out.") from None
        yield


def is_held(folder: Path) -> bool:
    """Whether the process that runs it lives."""
    try:
        with (folder / LOCK).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def write(path: Path, text: str) -> None:
    """The whole file or none of it: what was there stays until the new one is on the disk. Raises OSError."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with draft.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise


def read_run(folder: Path) -> Run:
    """Raises BadFolder: no folder of a run, a run that has not ended, files of another version."""
    try:
        plan = Plan.from_json(_text(folder, PLAN))
        return Run(folder, plan, Summary.from_json(_text(folder, SUMMARY)))
    except (BadPlan, BadSummary) as error:
        raise BadFolder(f"{folder}: {error}") from None


def _text(folder: Path, name: str) -> str:
    try:
        return (folder / name).read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        if name == SUMMARY:
            state = "is still going on" if is_held(folder) else "was broken off before its figures were written"
            raise BadFolder(f"{folder} has no {name}: the run {state}.") from None
        raise BadFolder(f"{folder} is no folder of a run: there is no {name} in it.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadFolder(f"{folder / name} can't be read: {error}") from None


def _point(line: bytes, path: Path, number: int) -> Point:
    try:
        return Point.from_json(line)
    except (ValueError, TypeError) as error:
        raise BadFolder(f"{path}:{number}: not a point: {error}") from None
