"""One room in one web process: its state, kept up with the log, and everything that waits for it to change.

What comes from this process is applied when the log has it; what comes from other processes is tailed. So a state that
is read here is never ahead of the log.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

from webapp.errors import ActivityClosed, AlreadyAnswered, NoQuestionsLeft, NotSaved, Removed, RoomEnded
from webapp.log.committer import GroupCommitter, NotYetStored
from webapp.log.segments import SegmentTail, append_cas, read_from
from webapp.log.store import Store, StoreUnavailable
from webapp.room.commands import Action, decide
from webapp.room.events import (
    Answered,
    Asked,
    Control,
    Response,
    Surveyed,
    decode_control,
    decode_response,
    encode,
)
from webapp.room.info import RoomInfo
from webapp.room.state import Phase, RoomState
from webapp.talk.model import Ask
from webapp.views.console import Presence

log = logging.getLogger("crowdspike.room")

CAS_TRIES = 8
STORE_TRIES = 4


class LiveRoom:
    """`clock` gives milliseconds since the epoch. Use `load`, then `run` as a task, then `close`."""

    def __init__(
        self, store: Store, info: RoomInfo, writer: str, clock: Callable[[], int], ack_timeout_s: float = 3.0
    ) -> None:
        self.info = info
        self.writer = writer
        self.state = RoomState(info, moderation=info.talk.moderation)
        self.presence: dict[str, Presence] = {}
        self.used_ms = clock()
        self._store = store
        self._clock = clock
        self._prefix = f"rooms/{info.code}/"
        self._control_lock = asyncio.Lock()
        self._tail_lock = asyncio.Lock()
        self._answering: dict[tuple[str, str], str] = {}
        self._asking: dict[tuple[str, str], set[str]] = {}
        self._watchers: set[asyncio.Event] = set()
        self._beacons: dict[str, Presence] = {}
        self.responses = GroupCommitter(
            store, f"{self._prefix}responses/", writer, self._take_lines, ack_timeout_s=ack_timeout_s
        )
        self._tail = SegmentTail(store, f"{self._prefix}responses/", skip_writer=writer)
        self._timeline = GroupCommitter(store, f"{self._prefix}timeline/", writer)
        self._timeline_tail = SegmentTail(store, f"{self._prefix}timeline/", skip_writer=writer)
        self._recorded: list[bytes] = []
        self._recorded_count = 0

    # ---- keeping up with the log

    async def load(self) -> None:
        """Reads the whole log. Raises StoreError when it can't."""
        await asyncio.gather(self.catch_up(), self._timeline_tail.skip_existing())

    async def catch_up(self) -> None:
        """Everything that other processes have appended by now."""
        await self.catch_up_control()
        async with self._tail_lock:
            while lines := await self._tail.poll():
                self._take_lines(lines)

    async def catch_up_control(self) -> None:
        async with self._control_lock:
            await self._read_control()

    async def _read_control(self) -> None:
        for seq, body in await read_from(self._store, f"{self._prefix}control/", self.state.seq):
            if seq == self.state.seq + 1:
                self._apply(decode_control(body))

    def _apply(self, event: Control) -> None:
        self.state.apply(event)
        self.notify()

    def _take_lines(self, lines: list[bytes]) -> None:
        if any([self.state.add(decode_response(line)) for line in lines]):
            self.notify()

    async def run(self, interval_s: float) -> None:
        """Tails the log until cancelled. A store that fails is tried again; the room goes on with what it has."""
        ticks = 0
        while True:
            await asyncio.sleep(interval_s)
            try:
                await self.catch_up()
                ticks += 1
                if ticks % 10 == 0:
                    await asyncio.gather(self.share_presence(), self.store_recorded())
            except StoreUnavailable as error:
                log.warning("room %s cannot read its log: %s", self.info.code, error)
                await asyncio.sleep(1)

    async def close(self) -> None:
        await self.responses.close(2.0)
        with suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                await self.store_recorded()
        await self._timeline.close(0.5)

    # ---- the presenter

    async def command(self, action: Action) -> Control:
        """Carries out a presenter's action. Raises CommandRefused, or NotSaved when the log could not take it."""
        return await self.append_control(lambda state, now_ms: decide(state, action, now_ms))

    async def append_control(self, decider: Callable[[RoomState, int], Control]) -> Control:
        """Adds the event that `decider` makes of the state and the time; it is asked again when another came first.
        Raises what it raises, and NotSaved."""
        async with self._control_lock:
            for _ in range(CAS_TRIES):
                event = decider(self.state, self._clock())
                if await self._append_control(event):
                    self._apply(event)
                    return event
                await self._read_control()
        raise NotSaved("Other presenters were faster each time. Try again.")

    async def _append_control(self, event: Control) -> bool:
        """Whether the event is the next of the log; False when another came first."""
        body = encode(event)
        for _ in range(STORE_TRIES):
            try:
                return await append_cas(self._store, f"{self._prefix}control/", self.state.seq + 1, body)
            except StoreUnavailable as error:
                log.warning("room %s cannot write its control log: %s", self.info.code, error)
                await asyncio.sleep(0.3)
        raise NotSaved("The store does not answer. Look at the room before you try again.")

    # ---- the phones

    async def submit(self, response: Response) -> Response:
        """Stores a response; returns it, or the same one as stored earlier. Only then may the phone be told "saved".

        Raises ActivityClosed, AlreadyAnswered, NoQuestionsLeft, Removed, RoomEnded or NotSaved.
        """
        stored = self.state.responses.get(response.key)
        if stored is not None:
            return stored
        if not self.responses.has(response.key):  # else it was admitted when it came first, and waits for the store
            await self._admit(response)
        if isinstance(response, Answered):
            slot = (response.participant, response.activity)
            if self._answering.setdefault(slot, response.id) != response.id:
                raise AlreadyAnswered("Your first answer is being saved; only one counts.")
            await self.append(response)
            self._answering.pop(slot, None)
        elif isinstance(response, Asked):
            asking = self._asking.setdefault((response.participant, response.activity), set())
            asking.add(response.id)
            await self.append(response)
            asking.discard(response.id)
        else:
            await self.append(response)
        return self.state.responses[response.key]

    async def append(self, response: Response) -> None:
        """Stores a response without asking whether the room takes it. Raises NotSaved; it may still be stored later."""
        try:
            await self.responses.append(response.key, encode(response))
        except NotYetStored as error:
            raise NotSaved("The store does not answer. Your phone keeps this and sends it again.") from error

    async def _admit(self, response: Response) -> None:
        if self._refusal(response) is None:
            return
        # Another process may have opened the activity a moment ago.
        try:
            await self.catch_up_control()
        except StoreUnavailable as error:
            raise NotSaved("The store does not answer. Your phone keeps this and sends it again.") from error
        refusal = self._refusal(response)
        if refusal is not None:
            raise refusal

    def _refusal(self, response: Response) -> Exception | None:
        state = self.state
        if response.participant in state.removed:
            return Removed("The presenter removed you from this room.")
        if state.archived_ms is not None:
            return RoomEnded("This talk is over. Nothing more can be sent.")
        if not isinstance(response, Answered | Asked | Surveyed):
            return None
        if state.of(response.activity).window(response.at_ms) is None:
            if state.of(response.activity).phase(response.at_ms) is Phase.READY:
                return ActivityClosed("This is not open yet.")
            return ActivityClosed("Too late: this was closed before your response arrived.")
        if isinstance(response, Answered):
            kept = state.answer(response.activity, response.participant)
            if kept is not None:
                return AlreadyAnswered("You have answered already; the first answer counts.", kept=list(kept.choice))
        activity = state.talk.activity(response.activity)
        if isinstance(activity, Ask):
            stored = {q.id for q in state.asked.get(response.participant, ()) if q.activity == activity.id}
            mine = stored | self._asking.get((response.participant, activity.id), set())
            if len(mine - {response.id}) >= activity.max_questions:
                return NoQuestionsLeft(f"Each phone has {activity.max_questions} questions; yours are used.")
        return None

    # ---- who is here

    def beacon(self, participant: str, presence: Presence) -> None:
        """What a phone said of its link, for this process's console and, every few seconds, for the others'."""
        self._beacons[participant] = self.presence[participant] = presence
        self.notify()

    async def share_presence(self) -> None:
        """Takes in what other processes heard of phones, and tells them what was heard here since the last time."""
        for line in await self._timeline_tail.poll():
            snapshot = json.loads(line)
            for participant, seen in snapshot.get("phones", {}).items():
                theirs = Presence(*seen)
                ours = self.presence.get(participant)
                if ours is None or ours.seen_ms < theirs.seen_ms:
                    self.presence[participant] = theirs
        if self._beacons:
            phones = {p: [b.seen_ms, b.rtt_ms, b.misses] for p, b in self._beacons.items()}
            self._beacons = {}
            line = json.dumps({"type": "presence", "at_ms": self._clock(), "phones": phones}).encode()
            try:
                await self._timeline.append(f"presence:{self._clock()}", line)
            except NotYetStored:
                log.warning("room %s: presence not shared yet", self.info.code)

    # ---- the timeline

    def record(self, line: bytes) -> None:
        """Adds a line to the room's timeline. It is stored within some seconds, with others in one object: a timeline
        may lose its last moments, no answer depends on it."""
        self._recorded.append(line)

    async def store_recorded(self) -> None:
        lines, first = self._recorded, self._recorded_count
        self._recorded, self._recorded_count = [], first + len(lines)
        stored = (self._timeline.append(f"recorded:{n}", line) for n, line in enumerate(lines, first))
        late = [error for error in await asyncio.gather(*stored, return_exceptions=True) if error]
        if late:
            log.warning("room %s: %d seconds of its timeline are not stored yet", self.info.code, len(late))

    # ---- those who wait for a change

    def notify(self) -> None:
        for event in self._watchers:
            event.set()

    async def changes(self, every_s: float, stopping: asyncio.Event) -> AsyncIterator[None]:
        """Yields at once, then after each change, when the timer runs out, and at least every `every_s`."""
        event = asyncio.Event()
        self._watchers.add(event)
        try:
            while not stopping.is_set():
                yield
                try:
                    await asyncio.wait_for(event.wait(), min(every_s, self._deadline_in_s()))
                except TimeoutError:
                    continue
                event.clear()
        finally:
            self._watchers.discard(event)

    def _deadline_in_s(self) -> float:
        """Seconds until the open activity closes by itself, a moment after it; for ever when none is open."""
        now_ms = self._clock()
        windows = self.state.of(self.state.current).windows if self.state.current else []
        if not windows or windows[-1].end_ms is None or windows[-1].end_ms < now_ms:
            return math.inf
        return (windows[-1].end_ms - now_ms) / 1000 + 0.02

    @property
    def watchers(self) -> int:
        return len(self._watchers)
