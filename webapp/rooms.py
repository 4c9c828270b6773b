"""The rooms of this web process: made, found in the store, kept up with the log while they are in use."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from random import SystemRandom

from webapp.errors import NotSaved, RoomUnknown
from webapp.live_room import LiveRoom
from webapp.log.segments import new_writer_id
from webapp.log.store import AlreadyExists, NotFound, Store, StoreError
from webapp.room.info import RoomInfo
from webapp.room.names import normal_code, room_code
from webapp.talk.model import Talk

log = logging.getLogger("crowdspike.rooms")

UNUSED_AFTER_S = 3600
UNKNOWN_MAX = 10_000
UNKNOWN_FOR_S = 5.0


@dataclass(frozen=True, slots=True)
class RoomRow:
    """A line in the presenter's list of rooms."""

    code: str
    title: str
    created_ms: int
    joined: int | None
    scripted: int
    archived: bool | None


class Rooms:
    """`clock` gives milliseconds since the epoch."""

    def __init__(self, store: Store, clock: Callable[[], int], tail_interval_s: float = 0.4) -> None:
        self.store = store
        self._clock = clock
        self._interval_s = tail_interval_s
        self._live: dict[str, LiveRoom] = {}
        self._tails: dict[str, asyncio.Task[None]] = {}
        self._loading: dict[str, asyncio.Lock] = {}
        self._unknown: dict[str, float] = {}
        self._random = SystemRandom()

    async def make(self, talk: Talk) -> LiveRoom:
        """A new room of the talk, under a code that no room has."""
        for _ in range(50):
            code = room_code(self._random)
            seed = self._random.randbytes(32).hex()
            info = RoomInfo(code, talk, self._clock(), seed)
            body = json.dumps(info.to_json(), ensure_ascii=False).encode()
            try:
                await self.store.create(f"rooms/{code}/room.json", body)
            except AlreadyExists:
                continue
            except StoreError as error:
                raise NotSaved("The store does not answer. No room was made; try again.") from error
            self._unknown.pop(code, None)
            return await self.get(code)
        raise NotSaved("No free room code was found. Try again.")

    def peek(self, code: str) -> LiveRoom | None:
        """The room if this process has it; marks it as used."""
        room = self._live.get(code)
        if room is not None:
            room.used_ms = self._clock()
        return room

    async def get(self, code: str) -> LiveRoom:
        """The room of this code. Raises RoomUnknown, or NotSaved when the store does not answer."""
        room = self.peek(code)
        if room is not None:
            return room
        now_s = asyncio.get_running_loop().time()
        if normal_code(code) != code or self._unknown.get(code, 0) > now_s:
            raise RoomUnknown(f"There is no room {code[:12]!r}. Check the four letters on the screen.")
        async with self._loading.setdefault(code, asyncio.Lock()):
            room = self.peek(code)
            if room is None:
                room = await self._load(code, now_s)
        self._loading.pop(code, None)
        return room

    async def _load(self, code: str, now_s: float) -> LiveRoom:
        try:
            info = RoomInfo.from_json(json.loads(await self.store.get(f"rooms/{code}/room.json")))
            # A writer's segments are numbered from 1, so each load is a writer of its own.
            room = LiveRoom(self.store, info, new_writer_id(self._clock() / 1000), self._clock)
            await room.load()
        except NotFound:
            if len(self._unknown) >= UNKNOWN_MAX:
                self._unknown.clear()
            self._unknown[code] = now_s + UNKNOWN_FOR_S
            raise RoomUnknown(f"There is no room {code!r}. Check the four letters on the screen.") from None
        except StoreError as error:
            log.warning("room %s cannot be read: %s", code, error)
            raise NotSaved("The store does not answer just now.") from error
        self._live[code] = room
        self._tails[code] = asyncio.create_task(self._keep(room))
        return room

    async def _keep(self, room: LiveRoom) -> None:
        """Keeps a room up with the log. What goes wrong is logged and tried again: a room must not go deaf."""
        while True:
            try:
                await room.run(self._interval_s)
            except Exception:
                log.exception("room %s: reading the log went wrong", room.info.code)
                await asyncio.sleep(1)

    @property
    def live(self) -> Collection[LiveRoom]:
        """The rooms that this process keeps up with."""
        return self._live.values()

    async def list(self) -> list[RoomRow]:
        """All rooms in the store, the newest first. Raises NotSaved when the store does not answer."""
        try:
            codes = await self.store.folders("rooms/")
            bodies = await asyncio.gather(*(self.store.get(f"rooms/{code}/room.json") for code in codes))
        except StoreError as error:
            raise NotSaved("The store does not answer just now.") from error
        rows = []
        for body in bodies:
            data = json.loads(body)
            live = self._live.get(data["code"])
            joined = len(live.state.people) if live else None
            scripted = live.state.scripted if live else 0
            archived = live.state.archived_ms is not None if live else None
            rows.append(RoomRow(data["code"], data["talk"]["title"], data["created_ms"], joined, scripted, archived))
        return sorted(rows, key=lambda row: -row.created_ms)

    async def drop_unused(self) -> None:
        """Lets go of rooms that nobody has used for an hour; they load again when somebody comes."""
        limit_ms = self._clock() - UNUSED_AFTER_S * 1000
        for code, room in list(self._live.items()):
            if room.used_ms < limit_ms and not room.watchers and not room.responses.pending:
                del self._live[code]
                await self._end(room)

    async def _end(self, room: LiveRoom) -> None:
        task = self._tails.pop(room.info.code)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await room.close()

    async def close(self) -> None:
        rooms = list(self._live.values())
        self._live.clear()
        await asyncio.gather(*(self._end(room) for room in rooms))
