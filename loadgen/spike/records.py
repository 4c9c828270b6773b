"""Writes what a run leaves in its folder. A full disk ends no run: the first error is kept, and told at the end."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from io import BufferedWriter
from pathlib import Path

from loadgen.spike import folder
from loadgen.spike.point import Point
from loadgen.spike.server import ServerSample


class Records:
    """`problem` says what could not be written, and why; empty while all is well."""

    def __init__(self, path: Path) -> None:
        self.problem = ""
        self._path = path
        self._live: BufferedWriter | None = None

    def open(self) -> None:
        """Points are appended as they come, so that a run that is killed leaves what it had measured."""
        try:
            self._live = (self._path / folder.POINTS).open("ab")
        except OSError as error:
            self._failed(folder.POINTS, error)

    def add(self, point: Point) -> None:
        if self._live is None:
            return
        try:
            self._live.write(point.to_json().encode() + b"\n")
        except OSError as error:
            self._failed(folder.POINTS, error)

    def flush(self) -> None:
        if self._live is None:
            return
        try:
            self._live.flush()
        except OSError as error:
            self._failed(folder.POINTS, error)

    def close(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            with suppress(OSError):  # `flush` has told it
                live.close()

    def points(self, points: Iterable[Point]) -> None:
        """All of them, with what only the end tells, in place of those that came one by one."""
        self.flush()
        self.close()
        self.whole(folder.POINTS, "".join(point.to_json() + "\n" for point in points))

    def samples(self, samples: Iterable[ServerSample]) -> None:
        self.whole(folder.SERVER, "".join(sample.to_json() + "\n" for sample in samples))

    def whole(self, name: str, text: str) -> None:
        try:
            folder.write(self._path / name, text)
        except OSError as error:
            self._failed(name, error)

    def _failed(self, name: str, error: OSError) -> None:
        self.problem = self.problem or f"{self._path / name} could not be written: {error.strerror or error}."
        self.close()
