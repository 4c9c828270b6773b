"""A place in a talk file: a node, the path that leads to it, and the list where its problems go.

Each reading method returns a value of the right type whatever the file says; what is wrong goes onto the list, so that
one pass finds all of it. The value of a wrong place is a stand-in that nobody may use.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Sequence as Listed
from dataclasses import dataclass

from webapp.talk.problems import Problem, quoted
from webapp.talk.yaml_marks import Mapping, Node, Scalar, Sequence

MAX_PROBLEMS = 100
YES = frozenset(("true", "yes", "on"))
NO = frozenset(("false", "no", "off"))
KINDS = {Scalar: "text", Sequence: "a list", Mapping: "a group of keys"}


@dataclass(frozen=True, slots=True)
class Place:
    node: Node
    field: str
    source: str
    problems: list[Problem]

    def wrong(self, message: str, at: Node | None = None) -> None:
        """Notes a problem here, or at another node that belongs to this place."""
        if len(self.problems) < MAX_PROBLEMS:
            node = at or self.node
            self.problems.append(Problem(self.source, node.line, node.column, self.field, message))

    def at(self, name: str, node: Node) -> Place:
        """The place of the key `name` within this one."""
        return Place(node, f"{self.field}.{name}" if self.field else name, self.source, self.problems)

    def text(self, most: int, indented: bool = False) -> str:
        """The text as written, without white space around it (`indented`: before its first line it stays); 1 to `most`
        characters."""
        if not isinstance(self.node, Scalar):
            self.wrong(f"is {KINDS[type(self.node)]}, not text; text with ': ' or brackets in it needs quotes")
            return ""
        text = self.node.text.strip("\n").rstrip() if indented else self.node.text.strip()
        if not text:
            self.wrong("is empty; give text, or leave it out (text that begins with # needs quotes)")
        elif len(text) > most:
            self.wrong(f"is {len(text)} characters long; give at most {most}")
        elif bad := next((c for c in text if unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t"), ""):
            self.wrong(f"has the control character {quoted(bad)}; take it out")
        else:
            return text
        return ""

    def whole(self, low: int, high: int, unit: str = "") -> int:
        """A whole number from `low` to `high`; `unit` is only for the message."""
        wanted = f"give {low} to {high}{unit and ' ' + unit}"
        text = self.text(most=500)
        if not text:
            return low
        if not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
            self.wrong(f"{quoted(text)} is not a whole number; {wanted}")
            return low
        number = int(text)
        if not low <= number <= high:
            short, long = ("short", "long") if unit == "seconds" else ("small", "large")
            self.wrong(f"{number} is too {short if number < low else long}; {wanted}")
        return number

    def flag(self) -> bool:
        """True or false, in YAML's usual words for them."""
        text = self.text(most=500).lower()
        if text and text not in YES | NO:
            self.wrong(f"{quoted(text)} is neither; give true or false")
        return text in YES

    def items(self, low: int, high: int, noun: str) -> list[Place]:
        """The places of a list of `low` to `high` items; of a list that is too long, the first `high`."""
        wanted = f"give {low} to {high} {noun}"
        if not isinstance(self.node, Sequence):
            self.wrong(f"is {KINDS[type(self.node)]}, not a list; {wanted}, each on a line that begins with '- '")
            return []
        count = len(self.node.items)
        if not low <= count <= high:
            self.wrong(f"has {count or 'no'} {noun}; {wanted}")
        nodes = self.node.items[:high]
        return [Place(n, f"{self.field}[{i}]", self.source, self.problems) for i, n in enumerate(nodes)]

    def keys(self) -> tuple[Scalar, ...]:
        """The keys here, known or not; none where this is no group of keys."""
        return tuple(key for key, _ in self.node.entries) if isinstance(self.node, Mapping) else ()

    def unknown(self, key: Scalar, known: Listed[str], hint: str = "") -> None:
        """Notes a key that may not stand here, with the one that was likely meant; without any, `hint`."""
        close = difflib.get_close_matches(key.text.lower(), known, n=1, cutoff=0.55)
        advice = f"did you mean {close[0]}?" if close else hint or f"known here: {', '.join(known)}"
        self.wrong(f"unknown key {quoted(key.text)}; {advice}", at=key)

    def fields(self, known: Listed[str], hint: str = "") -> Fields:
        """What the `known` keys here hold. Unknown and repeated keys are problems; `hint` says what would be right."""
        found: dict[str, Place] = {}
        first: dict[str, int] = {}
        if not isinstance(self.node, Mapping):
            wanted = hint or f"give keys, such as `{known[0]}: …`"
            self.wrong(f"is {KINDS[type(self.node)]}, not a group of keys; {wanted}")
            return Fields(self, found)
        for key, value in self.node.entries:
            if key.text in first:
                self.wrong(f"{quoted(key.text)} comes twice, first in line {first[key.text]}; keep one", at=key)
                continue
            first[key.text] = key.line
            if key.text in known:
                found[key.text] = self.at(key.text, value)
            else:
                self.unknown(key, known, hint)
        return Fields(self, found)


@dataclass(frozen=True, slots=True)
class Fields:
    """The known keys of one place. A key that is absent has its default; without a default that is a problem."""

    place: Place
    found: dict[str, Place]

    def get(self, name: str) -> Place | None:
        return self.found.get(name)

    def need(self, name: str, wanted: str) -> Place | None:
        """The place of a key that must be there; `wanted` says what it holds."""
        if name not in self.found and isinstance(self.place.node, Mapping):
            self.place.at(name, self.place.node).wrong(f"is missing; give {wanted}")
        return self.found.get(name)

    def text(self, name: str, most: int, default: str | None = None) -> str:
        place = self.get(name) if default is not None else self.need(name, f"`{name}: text`")
        return place.text(most) if place else default or ""

    def whole(self, name: str, low: int, high: int, default: int, unit: str = "") -> int:
        place = self.get(name)
        return place.whole(low, high, unit) if place else default

    def flag(self, name: str, default: bool) -> bool:
        place = self.get(name)
        return place.flag() if place else default

    def items(self, name: str, low: int, high: int) -> list[Place]:
        """The places of a list; without the key none, which is a problem unless `low` is 0."""
        place = self.get(name) if low == 0 else self.need(name, f"{low} to {high} {name}")
        return place.items(low, high, name) if place else []

    def texts(self, name: str, low: int, high: int, most: int) -> tuple[str, ...]:
        return tuple(item.text(most) for item in self.items(name, low, high))
