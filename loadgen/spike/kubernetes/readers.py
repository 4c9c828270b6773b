"""What a tool's pod prints, read: its reports, and its words, which come in one log on a cluster. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from loadgen.spike.point import Report, Trouble
from loadgen.spike.tools.k6 import ENDINGS, TROUBLES
from loadgen.spike.tools.k6_lines import Stream, words
from loadgen.spike.tools.lines import decode
from loadgen.spike.tools.tool import Ending

_MEASURED = (b'{"metric":', b'{"type":"Metric"')
_RAISED = re.compile(r"(?:\w+\.)*\w*(?:Error|Exception|Exit)\b.*|locust: error: .*|.*/ERROR/.*")


@dataclass(frozen=True, slots=True)
class Said:
    """A line for `tool.log`."""

    text: str


class Reader(Protocol):
    """Of one pod. `last_words` says what went wrong, as far as it said so."""

    endings: Mapping[int, Ending]
    last_words: str

    def read(self, line: bytes) -> Iterator[Report | Said]: ...


class K6Reader:
    # A runner that is interrupted was so by its node or by a person, not by whoever looks on here.
    endings: Mapping[int, Ending] = {**ENDINGS, 105: "failed"}

    def __init__(self) -> None:
        self.last_words = ""
        self._stream = Stream()
        self._thrown: set[str] = set()

    def read(self, line: bytes) -> Iterator[Report | Said]:
        if line.startswith(_MEASURED):
            yield from self._stream.feed(line + b"\n")
            return
        if (said := words(line)) is None:
            return
        yield Said(str(said))
        if said.level in ("error", "fatal"):
            self.last_words = said.text
        if said.thrown and said.text not in self._thrown and len(self._thrown) < TROUBLES:
            self._thrown.add(said.text)
            yield Trouble(said.text)


class LocustReader:
    endings: Mapping[int, Ending] = {0: "done", **dict.fromkeys((1, 2, 3), "script")}

    def __init__(self) -> None:
        self.last_words = ""

    def read(self, line: bytes) -> Iterator[Report | Said]:
        if (report := decode(line)) is not None:
            yield report
        elif text := line.decode(errors="replace").strip():
            yield Said(text)
            if _RAISED.fullmatch(text):
                self.last_words = text
