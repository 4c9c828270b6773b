"""What may be done with a room's load runs. Pure: the room's state in, one control event or a refusal out."""

from __future__ import annotations

from webapp.room import spikes
from webapp.room.commands import CommandRefused
from webapp.room.events import SpikeArmed, SpikeEnded, SpikeFired, SpikeStopped
from webapp.room.spikes import Spike
from webapp.room.state import RoomState

DRAIN_S = 120
"""How long after its schedule a run may take to end: for answers under way, and to write what it measured."""


def arm(state: RoomState, armed: SpikeArmed) -> SpikeArmed:
    """One at a time. Raises CommandRefused."""
    if state.archived_ms is not None:
        raise CommandRefused("This room is archived: nothing more is sent from it.")
    under_way = spikes.active(state.spikes)
    if under_way is not None:
        does = "is under way" if under_way.fired else "stands ready"
        raise CommandRefused(f"A load run {does} in this room already. Stop it first.")
    return armed


def fire(state: RoomState, spike: str, id: str, now_ms: int) -> SpikeFired:
    """Raises CommandRefused."""
    found = _living(state, spike)
    if state.archived_ms is not None:
        raise CommandRefused("This room is archived: nothing more is sent from it.")
    if found.fired:
        raise CommandRefused("It has been fired already.")
    if found.stopped_ms is not None:
        raise CommandRefused("It was stopped. Arm another one.")
    until_ms = now_ms + (found.armed.duration_s + DRAIN_S) * 1000
    return SpikeFired(id=id, at_ms=now_ms, spike=spike, until_ms=until_ms)


def stop(state: RoomState, spike: str, id: str, now_ms: int) -> SpikeStopped:
    """In an archived room too. Raises CommandRefused."""
    if _living(state, spike).stopped_ms is not None:
        raise CommandRefused("It is being stopped.")
    return SpikeStopped(id=id, at_ms=now_ms, spike=spike)


def end(state: RoomState, ended: SpikeEnded) -> SpikeEnded:
    """In an archived room too. Raises CommandRefused where another process has recorded its end."""
    _living(state, ended.spike)
    return ended


def _living(state: RoomState, spike: str) -> Spike:
    found = state.spikes.get(spike)
    if found is None:
        raise CommandRefused("There is no such load run in this room.")
    if found.ended:
        raise CommandRefused("It has ended.")
    return found
