"""What a presenter may choose: the scenarios that suit a stage, with figures to begin with. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from webapp.errors import BadForm

FIELDS = ("action", "request_id", "id", "scenario", "tool", "peak", "duration_s", "target", "confirmed")
TOOLS = {"k6": "k6", "locust": "Locust"}
OWN_KEY = ("audience", "amplify")
"""Scenarios that take part in a room: they are given the presenter's token, and have no target but our own."""


@dataclass(frozen=True, slots=True)
class Preset:
    """`words` go on with what it does; `unit` is what a peak counts, `option` the command's name for it."""

    scenario: str
    title: str
    words: str
    peak: int
    unit: str
    duration_s: int
    option: str = "--peak"

    @property
    def figures(self) -> str:
        return f"{self.peak} {self.unit}, {span(self.duration_s)}"


PRESETS = {
    preset.scenario: preset
    for preset in (
        Preset("spike", "Spike", "a step up and back", 40, "requests/s", 60),
        Preset("staged", "Staged", "warm-up, ramp, peak, cool-down", 20, "requests/s", 300),
        Preset("soak", "Soak", "steady load", 5, "requests/s", 600),
        Preset("audience", "Audience", "scripted phones join this room", 50, "phones", 180),
        Preset("amplify", "Amplify", "the room's questions again and again", 10, "copies", 120, "--copies"),
    )
}


@dataclass(frozen=True, slots=True)
class Limits:
    peak: int
    duration_s: int


@dataclass(frozen=True, slots=True)
class Choice:
    """`own` says that the target is this room's own gateway."""

    scenario: str
    tool: str
    peak: int
    duration_s: int
    target: str
    own: bool

    @property
    def preset(self) -> Preset:
        return PRESETS[self.scenario]

    def arguments(self, code: str, folder: Path) -> list[str]:
        """For `crowdspike spike`."""
        return [
            self.scenario,
            *("--target", self.target, "--tool", self.tool),
            *(self.preset.option, str(self.peak), "--duration", f"{self.duration_s}s"),
            *(("--room", code) if self.own else ()),
            *("--out", str(folder), "--control", "--paused", "--yes"),
        ]


def choose(form: Mapping[str, Any], own_target: str, limits: Limits) -> Choice:
    """What a form asks for: `scenario`, `tool`, and if they are to differ from the preset's `peak`, `duration_s` and
    `target`, which `confirmed` goes with unless it is our own. Raises BadForm, for a field of another name too: it
    would be a limit that does not hold."""
    if unknown := [name for name in form if name not in FIELDS]:
        raise BadForm(f"There is no field {unknown[0][:20]!r} here. There are {', '.join(FIELDS)}.")
    scenario, tool = str(form.get("scenario", "")), str(form.get("tool", "k6"))
    if scenario not in PRESETS:
        raise BadForm(f"scenario must be one of {', '.join(PRESETS)}, not {scenario[:20]!r}.")
    if tool not in TOOLS:
        raise BadForm(f"tool must be one of {', '.join(TOOLS)}, not {tool[:20]!r}.")
    preset = PRESETS[scenario]
    target = _target(str(form.get("target", ""))) or own_target
    if not target:
        raise BadForm("This server does not know its own address. Set CROWDSPIKE_SPIKE_TARGET, or name a target.")
    confirmed = str(form.get("confirmed", "")).lower() in ("1", "true", "on", "yes")
    if target != own_target and not confirmed:
        raise BadForm(f"{target} is not this room's own gateway. Confirm that you may put load on it, or leave it out.")
    if target != own_target and scenario in OWN_KEY:
        raise BadForm(f"{preset.title} takes part in this room, so it has no other target.")
    return Choice(
        scenario,
        tool,
        _number(form, "peak", preset.peak, limits.peak, preset.unit),
        _number(form, "duration_s", preset.duration_s, limits.duration_s, "seconds"),
        target,
        target == own_target,
    )


def span(seconds: float) -> str:
    """90 s, 5 min."""
    return f"{seconds / 60:g} min" if seconds >= 120 and seconds % 60 == 0 else f"{math.ceil(seconds)} s"


def _target(text: str) -> str:
    target = text.strip().rstrip("/").removesuffix("/v1")
    if target and not (target.startswith(("http://", "https://")) and len(target) <= 200 and target.isprintable()):
        raise BadForm("target must be http://host:port or https://host:port.")
    return target


def _number(form: Mapping[str, Any], name: str, preset: int, most: int, unit: str) -> int:
    text = str(form.get(name, "")).strip()
    if not text:
        return min(preset, most)
    if not (text.isascii() and text.isdigit() and len(text) < 8 and 1 <= int(text) <= most):
        raise BadForm(f"{name} must be a whole number from 1 to {most} ({unit}), not {text[:20]!r}.")
    return int(text)
