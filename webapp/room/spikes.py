"""The load runs of a room, as its log has them. Pure: events in, one `Spike` a run out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from webapp.room.events import SpikeArmed, SpikeEnded, SpikeEvent, SpikeFired, SpikeStopped


@dataclass(frozen=True, slots=True)
class Spike:
    """One load run. It is armed, fired or not, perhaps told to stop, and at last has ended."""

    armed: SpikeArmed
    fired: SpikeFired | None = None
    stopped_ms: int | None = None
    ended: SpikeEnded | None = None

    @property
    def id(self) -> str:
        return self.armed.spike

    @property
    def phase(self) -> Literal["armed", "running", "ended"]:
        if self.ended:
            return "ended"
        return "running" if self.fired else "armed"

    @property
    def until_ms(self) -> int:
        """When it is over, whatever happens."""
        return self.fired.until_ms if self.fired else self.armed.until_ms

    @property
    def planned_end_ms(self) -> int | None:
        """When its schedule ends; what is under way then has a little longer. None before it is fired."""
        return self.fired.at_ms + self.armed.duration_s * 1000 if self.fired else None


def apply(spikes: dict[str, Spike], event: SpikeEvent) -> None:
    """Takes in one event. What does not fit, as a second end, changes nothing."""
    spike = spikes.get(event.spike)
    match event:
        case SpikeArmed() if spike is None:
            spikes[event.spike] = Spike(event)
        case SpikeFired() if spike and not spike.fired and not spike.ended:
            spikes[event.spike] = replace(spike, fired=event)
        case SpikeStopped() if spike and spike.stopped_ms is None and not spike.ended:
            spikes[event.spike] = replace(spike, stopped_ms=event.at_ms)
        case SpikeEnded() if spike and not spike.ended:
            spikes[event.spike] = replace(spike, ended=event)


def active(spikes: Mapping[str, Spike]) -> Spike | None:
    """The one that has not ended: a room has one at a time."""
    return next((spike for spike in reversed(spikes.values()) if spike.ended is None), None)
