"""What k6 prints, read: its stream of points (`--out json=-`) and its words (`--log-format=json`). Pure.

Of a dozen lines a request k6 measures most by itself; only ours and the dropped iterations are parsed.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from loadgen.spike.point import Dropped, Report
from loadgen.spike.tools import lines

WORDS_CHARS = 500
_ASYNC = "Uncaught (in promise)"  # how k6 begins what an async function threw


class Stream:
    """The points, from k6's output as it comes in pieces."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Report]:
        *whole, self._rest = (self._rest + data).split(b"\n")
        # The scripts' counters carry their line under the key `crowdspike`.
        ours = (line for line in whole if b'"crowdspike":' in line or b'"dropped_iterations"' in line)
        return [report for line in ours if (report := _report(line)) is not None]


def _report(line: bytes) -> Report | None:
    """None for what is no point, or half a line of a k6 that was killed."""
    try:
        match json.loads(line):
            case {"type": "Point", "metric": "dropped_iterations", "data": {"time": at, "value": count}}:
                return Dropped(datetime.fromisoformat(at).timestamp(), int(count))
            case {"type": "Point", "data": {"metadata": {lines.KEY: said}}}:
                return lines.decode(said)
    except ValueError:
        pass
    return None


@dataclass(frozen=True, slots=True)
class Words:
    """A line of k6's log. `thrown`: the script threw this, with the place in its files."""

    level: str
    text: str
    thrown: bool = False

    def __str__(self) -> str:
        return f"{self.level}: {self.text}"


def words(line: bytes) -> Words | None:
    """None for an empty line, and for a failed request: k6 warns of each, and it is a point already."""
    text = line.decode(errors="replace").strip()
    try:
        said: Any = json.loads(text)
        level, message = str(said["level"]), str(said["msg"])
    except (ValueError, TypeError, KeyError):
        return Words("error", _short(text)) if text else None
    if message == "Request Failed":
        return None
    if "error" in said:
        message += f": {said['error']}"
    thrown = said.get("source") == "stacktrace" or said.get("hint") == "script exception" or message.startswith(_ASYNC)
    return Words(level, _short(message), level == "error" and thrown)


def _short(text: str) -> str:
    """On one line, with the scripts' names but not where they are on this machine."""
    return re.sub(r"file://\S*/", "", " ".join(text.split()))[:WORDS_CHARS]
