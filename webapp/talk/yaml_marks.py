"""YAML text to a tree that knows its lines and columns. Scalars stay the text that was written.

Nothing is resolved: `no`, `1.0`, `0x1F` and `12:30` are text, so a quiz option means what it says. Anchors, aliases and
tags, which talks have no use for, are refused; so the tree is never larger than the file.
"""

from __future__ import annotations

from dataclasses import dataclass

import yaml

from webapp.talk.problems import Malformed, quoted

MAX_NODES = 50_000
MAX_DEPTH = 20

# What PyYAML says, and what the writer of the file most likely has to change.
HINTS = (
    ("mapping values are not allowed here", 'text with ": " in it needs quotes; else check the indentation'),
    (r"found character '\t'", "use spaces, not tabs, to indent"),
    ("that cannot start any token", "text that begins with this character needs quotes"),
    ("while scanning a quoted scalar", "a quote that opens here is not closed"),
    ("expected <block end>", "check the indentation and the quotes of this line and the one above"),
    ("could not find expected ':'", "write `key: value`, or indent text that goes on from the line above"),
    ("sequence entries are not allowed here", "check the indentation of this line"),
    ("special characters are not allowed", "take out this control character"),
    (
        "while parsing a flow",
        "check commas and brackets; between brackets, text with any of , ? : [ ] { } needs quotes",
    ),
    ("while scanning an alias", "text that begins with * needs quotes"),
    ("while scanning an anchor", "text that begins with & needs quotes"),
    (" a tag", "text that begins with ! needs quotes"),
)


@dataclass(frozen=True, slots=True)
class Scalar:
    """A text as it was written; `line` and `column` count from 1. An absent value is an empty text."""

    line: int
    column: int
    text: str


@dataclass(frozen=True, slots=True)
class Sequence:
    line: int
    column: int
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Mapping:
    """Entries in the order of the file; a key may come twice, for the reader to complain about."""

    line: int
    column: int
    entries: tuple[tuple[Scalar, Node], ...]


Node = Scalar | Sequence | Mapping


def read_tree(text: str) -> Node:
    """The tree of the one document in `text`. Raises Malformed at the first thing that is not plain YAML."""
    try:
        loader = yaml.SafeLoader(text)
    except yaml.reader.ReaderError as error:
        raise _unprintable(text, error) from None
    try:
        return _Composer(loader).document()
    except yaml.MarkedYAMLError as error:
        raise _explained(error) from None
    except (ValueError, OverflowError):  # PyYAML lets them through, for instance from "\UFFFFFFFF"
        message = "not YAML: an escape or a number here is out of range"
        raise Malformed(loader.line + 1, loader.column + 1, message) from None
    finally:
        loader.dispose()


class _Composer:
    """Builds nodes from PyYAML's events, which come lazily: a file that is too deep is not read to its end."""

    def __init__(self, loader: yaml.SafeLoader) -> None:
        self._loader = loader
        self._nodes = 0

    def document(self) -> Node:
        self._loader.get_event()
        if self._loader.check_event(yaml.StreamEndEvent):
            raise Malformed(1, 1, "the file is empty; a talk begins with `title: …` and has `activities:`")
        self._loader.get_event()
        root = self._node(0)
        self._loader.get_event()
        if not self._loader.check_event(yaml.StreamEndEvent):
            raise _at(self._loader.get_event(), "a second document begins here; give one talk in a file")
        return root

    def _node(self, depth: int) -> Node:
        event = self._loader.get_event()
        self._nodes += 1
        if isinstance(event, yaml.AliasEvent):
            raise _at(event, f"{quoted('*' + event.anchor)} is a YAML alias; text that begins with * needs quotes")
        if event.anchor is not None:
            raise _at(event, f"{quoted('&' + event.anchor)} is a YAML anchor; text that begins with & needs quotes")
        if event.tag is not None:
            raise _at(event, f"{quoted(event.tag)} is a YAML tag; text that begins with ! needs quotes")
        if depth > MAX_DEPTH or self._nodes > MAX_NODES:
            raise _at(event, f"too much: at most {MAX_DEPTH} levels and {MAX_NODES} values are read")
        line, column = event.start_mark.line + 1, event.start_mark.column + 1
        if isinstance(event, yaml.ScalarEvent):
            return Scalar(line, column, event.value)
        if isinstance(event, yaml.SequenceStartEvent):
            return Sequence(line, column, self._items(depth + 1))
        return Mapping(line, column, self._entries(depth + 1))

    def _items(self, depth: int) -> tuple[Node, ...]:
        items = []
        while not self._loader.check_event(yaml.SequenceEndEvent):
            items.append(self._node(depth))
        self._loader.get_event()
        return tuple(items)

    def _entries(self, depth: int) -> tuple[tuple[Scalar, Node], ...]:
        entries = []
        while not self._loader.check_event(yaml.MappingEndEvent):
            key = self._node(depth)
            if not isinstance(key, Scalar):
                raise Malformed(key.line, key.column, "a key must be text; text that begins with { or [ needs quotes")
            entries.append((key, self._node(depth)))
        self._loader.get_event()
        return tuple(entries)


def _at(event: yaml.Event, message: str) -> Malformed:
    return Malformed(event.start_mark.line + 1, event.start_mark.column + 1, message)


def _explained(error: yaml.MarkedYAMLError) -> Malformed:
    said = " ".join(part for part in (error.context, error.problem) if part)
    hint = next((hint for words, hint in HINTS if words in said), "")
    began_earlier = any(words in said for words in ("quoted scalar", "stream end", "an alias", "an anchor", " a tag"))
    mark = error.context_mark if began_earlier and error.context_mark else error.problem_mark
    return Malformed(mark.line + 1, mark.column + 1, f"not YAML: {said}" + (f"; {hint}" if hint else ""))


def _unprintable(text: str, error: yaml.reader.ReaderError) -> Malformed:
    before = text[: error.position]
    column = len(before) - (before.rfind("\n") + 1) + 1
    character = text[error.position : error.position + 1]
    return Malformed(
        before.count("\n") + 1, column, f"the control character {quoted(character)} is not text; take it out"
    )
