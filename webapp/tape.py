"""A room's whole log, and the room as it was at any moment of it."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from inference.cluster.chain import Chain, ChainWatch, Completion
from inference.cluster.snapshot import Happening
from webapp.live.fleet import chain_point
from webapp.live.history import LENGTH_S, History, point
from webapp.log.segments import SegmentTail, read_from
from webapp.log.store import NotFound, Store
from webapp.record_clock import RecordClock
from webapp.room.events import Control, Response, decode_control, decode_response
from webapp.room.info import RoomInfo
from webapp.room.state import RoomState
from webapp.timeline import Moment, Timeline, read

PAUSE_S = 60.0
"""What is left out of the record is longer than this."""


class NoRecord(Exception):
    """There is no such room, or nothing of what is asked for was recorded. Says which."""


@dataclass(frozen=True, slots=True)
class Log:
    """`control` in its order, `responses` by their time."""

    info: RoomInfo
    control: tuple[Control, ...]
    responses: tuple[Response, ...]
    timeline: Timeline

    def state(self) -> RoomState:
        """The room at the end."""
        return Tape(self).state_at(float("inf"))

    def clock(self) -> RecordClock:
        """Of everything that happened."""
        return RecordClock.of(self.times_s, PAUSE_S)

    @property
    def times_s(self) -> list[float]:
        """When something happened, in order."""
        events_s = (event.at_ms / 1000 for event in (*self.control, *self.responses))
        return sorted([*events_s, *(moment.at_s for moment in self.timeline.moments)])


async def load(store: Store, code: str) -> Log:
    """Reads everything. Raises NoRecord when there is no such room, and StoreError."""
    try:
        info = RoomInfo.from_json(json.loads(await store.get(f"rooms/{code}/room.json")))
    except NotFound:
        raise NoRecord(f"There is no room {code} in this store.") from None
    control = [decode_control(body) for _, body in await read_from(store, f"rooms/{code}/control/", 0)]
    tail = SegmentTail(store, f"rooms/{code}/responses/")
    responses: list[Response] = []
    while lines := await tail.poll():
        responses += map(decode_response, lines)
    responses.sort(key=lambda response: response.at_ms)
    return Log(info, tuple(control), tuple(responses), await read(store, code))


class Tape:
    """The log, wound to and fro. Onwards it goes by what is new; backwards it starts over."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self._rewind()

    def _rewind(self) -> None:
        self._at_s = float("-inf")
        self._state = RoomState(self.log.info, moderation=self.log.info.talk.moderation)
        self._watch = ChainWatch()
        self._control = self._responses = self._told = self._moments = 0
        timeline = self.log.timeline
        news: list[Happening | Completion] = [*timeline.happenings, *timeline.completions]
        self._news = sorted(news, key=lambda one: one.at_s)

    def _wind(self, at_s: float) -> None:
        if at_s < self._at_s:
            self._rewind()
        self._at_s = at_s
        log = self.log
        while self._control < len(log.control) and log.control[self._control].at_ms <= at_s * 1000:
            self._state.apply(log.control[self._control])
            self._control += 1
        while self._responses < len(log.responses) and log.responses[self._responses].at_ms <= at_s * 1000:
            self._state.add(log.responses[self._responses])
            self._responses += 1
        moments = log.timeline.moments
        while self._moments < len(moments) and moments[self._moments].at_s <= at_s:
            self._tell(moments[self._moments])
            self._moments += 1

    def _tell(self, moment: Moment) -> None:
        while self._told < len(self._news) and self._news[self._told].at_s <= moment.at_s:
            match self._news[self._told]:
                case Happening() as happening:
                    self._watch.happening(happening)
                case Completion(url, at_s):
                    self._watch.completed(url, at_s)
            self._told += 1
        if moment.cluster is not None:
            self._watch.point(chain_point(moment.cluster, moment.vitals, moment.at_s))

    def state_at(self, at_s: float) -> RoomState:
        """To be read before the tape is wound on."""
        self._wind(at_s)
        return self._state

    def chain_at(self, at_s: float) -> Chain | None:
        self._wind(at_s)
        return self._watch.chain

    def history_at(self, at_s: float) -> History:
        """The twenty minutes before."""
        moments = self.log.timeline.moments
        history = History()
        for moment in moments[_after(moments, at_s - LENGTH_S) : _after(moments, at_s)]:
            if moment.cluster is not None:
                history.add(point(moment.cluster, moment.vitals, moment.at_s))
        return history


def _after(moments: Sequence[Moment], at_s: float) -> int:
    """The index of the first moment after `at_s`."""
    return bisect_right(moments, at_s, key=lambda moment: moment.at_s)
