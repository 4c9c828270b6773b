"""What is wrong with a talk file, and where. Pure data; `place.py` finds it, `check.py` prints it.

TalkError            a talk cannot be read; has every `Problem` that was found
Malformed            text that is not the YAML we read; becomes one `Problem` (never leaves this package)
Unreadable           a file that cannot be taken in; becomes one `Problem` (never leaves this package)
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake. `line` and `column` count from 1 and are 0 where the file itself is the matter; `field` is a path
    such as `activities[3].options[1]`, empty at the top of the file."""

    source: str
    line: int
    column: int
    field: str
    message: str

    def __str__(self) -> str:
        where = f"{self.source}:{self.line}:{self.column}" if self.line else self.source
        return f"{where}: {self.field}: {self.message}" if self.field else f"{where}: {self.message}"


class TalkError(Exception):
    """A talk that cannot be read. `errors` in the order of the file, at most 100; `str` gives one line for each."""

    def __init__(self, errors: tuple[Problem, ...]) -> None:
        assert errors, "a TalkError says what is wrong"
        super().__init__("\n".join(map(str, errors)))
        self.errors = errors


class Malformed(Exception):
    """Text that is not the YAML we read, with the line and column (from 1) where reading stopped."""

    def __init__(self, line: int, column: int, message: str) -> None:
        super().__init__(message)
        self.line, self.column, self.message = line, column, message


class Unreadable(Exception):
    """A file that cannot be taken in; `str` says why and what would do."""


def quoted(text: str) -> str:
    """`text` on one line, in quotes, without control characters and at most 40 characters long."""
    return repr(text if len(text) <= 40 else text[:39] + "…")
