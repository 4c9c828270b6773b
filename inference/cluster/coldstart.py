"""How long a node takes to come and to go, and an image to be fetched: a file of figures, each with its source.

What the engine itself does before it is ready (imports, weights, compile) is not here: it reports those steps.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, fields, replace
from pathlib import Path

import yaml

from inference.engine.profile import Figure

FILE = Path(__file__).parent / "coldstart.yaml"


class ColdStartError(ValueError):
    """A file of cold start figures that can't be used; says which field."""


@dataclass(frozen=True, slots=True)
class ColdStart:
    """The figures, in seconds; fields are those of the file."""

    node_ready_least_s: Figure
    node_ready_most_s: Figure
    image_s: Figure
    node_termination_s: Figure

    @classmethod
    def load(cls, path: Path = FILE) -> ColdStart:
        """The figures that come along, or those of another file. Raises OSError, ColdStartError."""
        return parse(path.read_text(encoding="utf-8"))

    def faster(self, speed_up: float) -> ColdStart:
        """The same, `speed_up` times as fast. Raises ValueError unless that is above 0."""
        if not 0 < speed_up < float("inf"):
            raise ValueError(f"speed_up must be above 0, not {speed_up}")
        if speed_up == 1:
            return self
        figures = {field.name: getattr(self, field.name) for field in fields(self)}
        return ColdStart(
            **{
                name: replace(figure, value=figure.value / speed_up, source=f"{figure.source}, {speed_up:g}× as fast")
                for name, figure in figures.items()
            }
        )

    def node_ready_s(self, rng: random.Random) -> float:
        """From ordered to ready, for one node."""
        return rng.uniform(self.node_ready_least_s.value, self.node_ready_most_s.value)


def parse(text: str) -> ColdStart:
    """Figures from the text of a file. Raises ColdStartError."""
    data = yaml.safe_load(text)
    names = [field.name for field in fields(ColdStart)]
    if not isinstance(data, dict) or set(data) != set(names):
        raise ColdStartError(f"expected exactly these fields: {', '.join(names)}")
    for name, entry in data.items():
        if not isinstance(entry, dict) or set(entry) != {"value", "source", "date"}:
            raise ColdStartError(f"{name}: must be {{value: …, source: …, date: …}}")
        if isinstance(entry["value"], bool) or not isinstance(entry["value"], int | float) or entry["value"] < 0:
            raise ColdStartError(f"{name}: value must be a number of seconds, not {entry['value']!r}")
        if not str(entry["source"] or "").strip():
            raise ColdStartError(f"{name}: source must say where the value comes from")
    figures = {name: Figure(float(e["value"]), str(e["source"]), str(e["date"])) for name, e in data.items()}
    if figures["node_ready_least_s"].value > figures["node_ready_most_s"].value:
        raise ColdStartError("node_ready_least_s must not be above node_ready_most_s")
    return ColdStart(**figures)
