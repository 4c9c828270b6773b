"""A room's load runs in the words of the stage. Pure. Never a target: an address may be a secret."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from webapp.room import spikes
from webapp.room.events import SpikeArmed
from webapp.room.spikes import Spike
from webapp.spikes.choice import PRESETS, TOOLS, span

FEED_ROWS = 8
SHOWN_AFTER_MS = 60_000
"""A run whose end nobody has recorded is shown no longer."""
ENDED = {
    "pass": "passed",
    "fail": "missed its thresholds",
    "invalid": "is invalid: the generator was the limit",
    "stopped": "was stopped",
    "failed": "did not run",
    "lost": "was lost",
}
"""What goes on after its name, by verdict."""
LOAD = {"amplify": "amplified questions", "audience": "scripted phones"}


@dataclass(frozen=True, slots=True)
class SpikeMark:
    """`what` names it, `load` says whose it is; seconds count down to `deadline_ms`, and then it is `ending`."""

    what: str
    load: str
    fired_ms: int
    deadline_ms: int
    ending: bool


def name(armed: SpikeArmed) -> str:
    """Spike · k6 · 40 requests/s for 60 s."""
    preset = PRESETS.get(armed.scenario)
    title = preset.title if preset else armed.scenario.capitalize()
    tool = TOOLS.get(armed.tool, armed.tool)
    return f"{title} · {tool} · {armed.peak} {armed.unit} for {span(armed.duration_s)}"


def verdict_words(spike: Spike) -> str:
    return ENDED.get(spike.ended.verdict, spike.ended.verdict) if spike.ended else ""


def spike_mark(known: Mapping[str, Spike], now_ms: int) -> SpikeMark | None:
    """The run that loads the fleet now; None when none does."""
    spike = spikes.active(known)
    if spike is None or spike.fired is None or now_ms > spike.until_ms + SHOWN_AFTER_MS:
        return None
    deadline_ms = spike.planned_end_ms
    ending = spike.stopped_ms is not None or now_ms >= deadline_ms
    load = LOAD.get(spike.armed.scenario, "scripted load")
    return SpikeMark(name(spike.armed), load, spike.fired.at_ms, deadline_ms, ending)


def with_spikes(document: dict[str, Any], known: Mapping[str, Spike], edge_s: float | None, now_ms: int) -> dict:
    """The `cluster` part of the stage's snapshot, with the begins and ends of load runs among its decisions."""
    told = [line for spike in known.values() for line in _lines(spike, edge_s, now_ms)]
    if not told:
        return document
    feed = sorted([*told, *document["feed"]], key=lambda line: line["ago_s"])
    return {**document, "feed": feed[: max(len(document["feed"]), FEED_ROWS)]}


def _lines(spike: Spike, edge_s: float | None, now_ms: int) -> list[dict[str, Any]]:
    happened = []
    if spike.fired:
        happened.append((spike.fired.at_ms, f"Load begins: {name(spike.armed)}"))
    if spike.fired and spike.ended:
        happened.append((spike.ended.at_ms, f"Load ends: the run {verdict_words(spike)}"))
    return [
        {
            "seq": 0,
            "kind": "load",
            "text": text,
            "t_s": round(at_ms / 1000 - edge_s) if edge_s is not None and at_ms / 1000 >= edge_s else None,
            "ago_s": max(0, (now_ms - at_ms) // 1000),
        }
        for at_ms, text in happened
        if at_ms <= now_ms
    ]
