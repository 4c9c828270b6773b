"""Writes the timeline: each second, for every room that somebody watches or takes part in, a line to its log."""

from __future__ import annotations

from collections.abc import Callable

from inference.cluster.chain import Completion
from inference.cluster.cluster import Cluster
from webapp.gateway.record import Record
from webapp.live.vitals import Vitals
from webapp.live_room import LiveRoom
from webapp.rooms import Rooms
from webapp.timeline import Encoder

USED_WITHIN_MS = 10_000


class Recorder:
    """One for a process. `clock` gives milliseconds since the epoch; `simulated` says that the model is.

    `ended` is one of the gateway's `on_end`. To be ticked once a second, after all else that reads the vitals.
    """

    def __init__(
        self,
        rooms: Rooms,
        vitals: Vitals,
        cluster: Cluster | None,
        clock: Callable[[], int],
        simulated: bool = False,
    ) -> None:
        self._rooms = rooms
        self._vitals = vitals
        self._cluster = cluster
        self._clock = clock
        self._simulated = simulated
        self._encoders: dict[LiveRoom, Encoder] = {}
        self._first: dict[str, Completion] = {}

    def ended(self, record: Record) -> None:
        """Notes the first request that a replica has answered since it became ready."""
        if record.replica is not None and record.status < 400 and record.replica not in self._first:
            self._first[record.replica] = Completion(record.replica, self._clock() / 1000)

    def tick(self) -> None:
        now_ms = self._clock()
        live = [room for room in self._rooms.live if _is_live(room, now_ms)]
        self._encoders = {
            room: self._encoders.get(room) or Encoder(room.writer, self._simulated)
            for room in self._rooms.live
            if room in self._encoders or room in live
        }
        cluster = self._cluster.snapshot() if self._cluster else None
        if cluster is not None:
            ready = {pod.url for pod in cluster.pods if pod.phase == "ready"}
            self._first = {url: first for url, first in self._first.items() if url in ready}
        if not live:
            return
        vitals = self._vitals.read()
        for room in live:
            room.record(self._encoders[room].line(now_ms, vitals, cluster, self._first.values()))


def _is_live(room: LiveRoom, now_ms: int) -> bool:
    return room.state.archived_ms is None and (room.watchers > 0 or now_ms - room.used_ms < USED_WITHIN_MS)
