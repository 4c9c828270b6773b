"""A place in a manifest: a YAML node with the path that leads to it, read as the type that Kubernetes wants there.

Nodes keep the file and the line they were written in, also when a patch has put them elsewhere, so that every error can
say where.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import yaml

Known = TypeVar("Known", bound=str)
KINDS = {"str": "text", "int": "a whole number", "float": "a number", "bool": "true or false", "null": "empty"}
UNITS = {
    **{"n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1.0},
    **{unit: 1000.0**power for power, unit in enumerate(("k", "M", "G", "T", "P", "E"), 1)},
    **{unit: 1024.0**power for power, unit in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), 1)},
}
SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
QUANTITY = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:([eE][+-]?\d+)|([numkMGTPE]|[KMGTPE]i)?)")
DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h))+")
GIB = 1024.0**3


class ManifestError(Exception):
    """A manifest that can't be used. `line` counts from 1, 0 where the file itself is the matter; `field` is a path
    such as `spec.triggers[1].name`; `message` says what is wrong and what would be right."""

    def __init__(self, file: str, line: int, field: str, message: str) -> None:
        where = f"{file}:{line}" if line else file
        super().__init__(f"{where}: {field}: {message}" if field else f"{where}: {message}")
        self.file, self.line, self.field, self.message = file, line, field, message


@dataclass(frozen=True, slots=True)
class Place:
    node: yaml.Node
    field: str = ""

    def wrong(self, message: str) -> ManifestError:
        mark = self.node.start_mark
        return ManifestError(mark.name, mark.line + 1, self.field, message)

    def entries(self) -> dict[str, Place]:
        """What a group of keys holds. Raises for anything else."""
        if not isinstance(self.node, yaml.MappingNode):
            raise self.wrong(f"is {self._kind}; a group of keys is wanted")
        found: dict[str, Place] = {}
        for key, value in self.node.value:
            if key.value in found:
                raise Place(key, self.field).wrong(f"{key.value!r} comes twice; keep one")
            found[key.value] = Place(value, f"{self.field}.{key.value}" if self.field else key.value)
        return found

    def get(self, key: str) -> Place | None:
        """The place of a key; None where it is absent or empty."""
        place = self.entries().get(key)
        return None if place is None or place.node.tag == "tag:yaml.org,2002:null" else place

    def need(self, path: str, wanted: str) -> Place:
        """The place at the end of a dotted path, which must be there; `wanted` says what it holds."""
        place = self
        for key in path.split("."):
            found = place.get(key)
            if found is None:
                raise place.wrong(f"{key} is missing; give {wanted}")
            place = found
        return place

    def find(self, path: str) -> Place | None:
        """The place at the end of a dotted path, None where it leads nowhere."""
        place: Place | None = self
        for key in path.split("."):
            place = place.get(key) if place else None
        return place

    def only(self, known: Sequence[str], hints: dict[str, str] | None = None) -> None:
        """Raises for a key that is not known: the API server would drop it without a word, or it is not simulated."""
        for key, place in self.entries().items():
            if key not in known:
                close = difflib.get_close_matches(key, known, n=1)
                advice = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
                raise place.wrong(f"is not known here; {(hints or {}).get(key, advice)}")

    def items(self) -> list[Place]:
        if not isinstance(self.node, yaml.SequenceNode):
            raise self.wrong(f"is {self._kind}; a list is wanted")
        return [Place(node, f"{self.field}[{index}]") for index, node in enumerate(self.node.value)]

    def text(self) -> str:
        """Text. Numbers and true or false must be in quotes where Kubernetes wants text."""
        if not isinstance(self.node, yaml.ScalarNode):
            raise self.wrong(f"is {self._kind}; text is wanted")
        if self.node.tag != "tag:yaml.org,2002:str":
            raise self.wrong(f"{self.node.value} is {self._kind}; text is wanted, so put it in quotes")
        return str(self.node.value)

    def one_of(self, known: Sequence[Known]) -> Known:
        text = self.text()
        for word in known:
            if word == text:
                return word
        raise self.wrong(f"{text!r} is not known; one of {', '.join(known)} is wanted")

    def whole(self, low: int, high: int = 2**31 - 1) -> int:
        """A whole number, not in quotes."""
        if self.node.tag != "tag:yaml.org,2002:int":
            raise self.wrong(f"is {self._kind}; a whole number is wanted")
        try:
            number = int(self.node.value, 10)
        except ValueError:
            raise self.wrong(f"{self.node.value!r} is not a plain whole number") from None
        if not low <= number <= high:
            raise self.wrong(f"{number} is out of range; {low} to {high} is wanted")
        return number

    def number(self) -> float:
        """A number in quotes, as KEDA wants them."""
        text = self.text()
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise self.wrong(f'{text!r} is not a number; for instance "25" is wanted')
        return number

    def flag(self) -> bool:
        """ "true" or "false" in quotes, as KEDA wants them."""
        return self.one_of(("true", "false")) == "true"

    def quantity(self) -> float:
        """A Kubernetes quantity in its base unit: `500m` is 0.5, `12Gi` is 12 × 1024³."""
        text = self._scalar()
        found = QUANTITY.fullmatch(text)
        if found is None:
            raise self.wrong(f"{text!r} is not a quantity; for instance 500m, 3 or 12Gi is wanted")
        number, exponent, unit = found.groups()
        return float(number + (exponent or "")) * UNITS[unit or ""]

    def duration_s(self) -> float:
        """A duration such as `30s`, `5m` or `1h30m`, in seconds."""
        text = self._scalar()
        if not DURATION.fullmatch(text):
            raise self.wrong(f"{text!r} is not a duration; for instance 30s, 5m or 720h is wanted")
        return sum(float(n) * SECONDS[unit] for n, unit in re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h)", text))

    @property
    def _kind(self) -> str:
        if isinstance(self.node, yaml.MappingNode):
            return "a group of keys"
        if isinstance(self.node, yaml.SequenceNode):
            return "a list"
        return KINDS.get(self.node.tag.rpartition(":")[2], "text")

    def _scalar(self) -> str:
        if not isinstance(self.node, yaml.ScalarNode):
            raise self.wrong(f"is {self._kind}; a single value is wanted")
        return str(self.node.value)
