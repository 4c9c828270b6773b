"""The console's panel of load runs: what can be chosen, how the run goes, what came of those before. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from loadgen.spike.progress import Progress
from webapp.room import spikes
from webapp.room.spikes import Spike
from webapp.room.state import RoomState
from webapp.spikes.choice import PRESETS, TOOLS, Limits, Preset, span
from webapp.views.spike_mark import name, verdict_words

PAST_ROWS = 5
BADGES = {"pass": "right", "fail": "wrong", "stopped": "plain"}
BY = {"token": "by token", "held headers": "by held headers", "probe": "by the probe"}


@dataclass(frozen=True, slots=True)
class ToolRow:
    """`why_not` is empty where it can be used."""

    name: str
    title: str
    why_not: str


@dataclass(frozen=True, slots=True)
class Now:
    """The run that has not ended. `state` is one word, `says` a sentence; `share` of its time, 0 to 100, None until it
    runs. `figures` are pairs of label and value, empty where another web process runs it."""

    id: str
    what: str
    target: str
    state: str
    says: str
    share: int | None
    figures: tuple[tuple[str, str], ...]
    trouble: str
    can_fire: bool
    can_stop: bool


@dataclass(frozen=True, slots=True)
class Past:
    id: str
    what: str
    began: str
    verdict: str
    badge: str
    headline: str
    kept: bool


@dataclass(frozen=True, slots=True)
class SpikePanel:
    """`now` is None when something can be chosen; `why_not` says why nothing can."""

    now: Now | None
    past: tuple[Past, ...]
    presets: tuple[Preset, ...]
    tools: tuple[ToolRow, ...]
    limits: Limits
    target: str
    why_not: str


def spike_panel(
    state: RoomState,
    now_ms: int,
    progress: Progress | None,
    missing: Mapping[str, str],
    limits: Limits,
    target: str,
) -> SpikePanel:
    """`progress` is the active run's, where this process has it; `missing` says by tool why it can't be used, empty
    where it can; `target` is our own."""
    spike = spikes.active(state.spikes)
    ended = [one for one in reversed(state.spikes.values()) if one.ended]
    tools = tuple(ToolRow(tool, title, missing.get(tool, "")) for tool, title in TOOLS.items())
    why_not = ""
    if state.archived_ms is not None:
        why_not = "This room is archived: nothing more is sent from it."
    elif all(tool.why_not for tool in tools):
        why_not = "Neither load tool is here."
    elif not target:
        why_not = "This server does not know its own address: set CROWDSPIKE_SPIKE_TARGET."
    return SpikePanel(
        now=_now(spike, now_ms, progress) if spike else None,
        past=tuple(_past(one) for one in ended[:PAST_ROWS]),
        presets=tuple(PRESETS.values()),
        tools=tools,
        limits=limits,
        target=target,
        why_not=why_not,
    )


def _now(spike: Spike, now_ms: int, progress: Progress | None) -> Now:
    stopping = spike.stopped_ms is not None
    ready = progress is None or progress.state == "armed"
    share = None
    if stopping:
        state, says = "Ending", "It is being stopped. What was measured is kept."
    elif spike.fired is None and ready:
        state, says = "Armed", "Everything is loaded and waits. Fire when you are ready."
    elif spike.fired is None:
        state, says = "Arming", "The tool is being loaded."
    else:
        length_ms = spike.armed.duration_s * 1000
        gone_ms = min(length_ms, max(0, now_ms - spike.fired.at_ms))
        share = round(100 * gone_ms / length_ms)
        done = now_ms >= spike.planned_end_ms
        state = "Ending" if done else "Running"
        says = f"{gone_ms // 1000} of {span(spike.armed.duration_s)}"
        if done:
            says += ". Answers under way are waited for, then the report is written."
    if progress is None:
        says += " Another web process runs it: live figures are shown there."
    return Now(
        id=spike.id,
        what=name(spike.armed),
        target=spike.armed.target,
        state=state,
        says=says,
        share=share,
        figures=_figures(progress) if progress and spike.fired else (),
        trouble=progress.trouble if progress else "",
        can_fire=spike.fired is None and not stopping and ready,
        can_stop=not stopping,
    )


def _figures(progress: Progress) -> tuple[tuple[str, str], ...]:
    ttft = "–" if progress.ttft_p95_s is None else f"{progress.ttft_p95_s:.2f} s"
    by = BY.get(progress.ttft_by, "")
    return (
        (f"Offered, {progress.unit}", f"{progress.level:.3g}"),
        ("Sent a second", f"{progress.sent_per_s:.1f}"),
        ("Served a second", f"{progress.served_per_s:.1f}"),
        ("Errors a second", f"{progress.errors_per_s:.1f}"),
        (f"First token p95{', ' + by if by else ''}", ttft),
        ("In flight", f"{progress.in_flight:,}"),
        ("Served", f"{progress.served:,}"),
        ("Failed or refused", f"{progress.failed + progress.refused:,}"),
        ("Never sent", f"{progress.dropped:,}"),
    )


def _past(spike: Spike) -> Past:
    ended = spike.ended
    assert ended is not None
    began_ms = spike.fired.at_ms if spike.fired else spike.armed.at_ms
    return Past(
        id=spike.id,
        what=name(spike.armed),
        began=datetime.fromtimestamp(began_ms / 1000, UTC).strftime("%H:%M UTC"),
        verdict=verdict_words(spike),
        badge=BADGES.get(ended.verdict, "warn"),
        headline=ended.headline,
        kept=ended.kept,
    )
