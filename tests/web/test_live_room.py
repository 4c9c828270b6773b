"""One room in two processes: they agree on what the presenter did, and on who is here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.sample_room import TALK
from webapp.errors import NotSaved
from webapp.live_room import LiveRoom
from webapp.log.memory import Fault, MemoryStore
from webapp.room.commands import Action, CommandRefused
from webapp.room.events import Answered, Joined, Response
from webapp.room.info import RoomInfo
from webapp.views.console import Presence

INFO = RoomInfo("KWXM", TALK, 0, "00" * 32)
CONTROL = "rooms/KWXM/control/"


def clock() -> int:
    return 1_000_000


@asynccontextmanager
async def two_rooms(store: MemoryStore) -> AsyncIterator[tuple[LiveRoom, LiveRoom]]:
    rooms = LiveRoom(store, INFO, "writer-a", clock), LiveRoom(store, INFO, "writer-b", clock)
    for room in rooms:
        await room.load()
    yield rooms
    for room in rooms:
        await room.close()


async def test_two_presenters_who_press_at_once_move_the_talk_one_step() -> None:
    store = MemoryStore()
    async with two_rooms(store) as (a, b):
        actions = [room.command(Action(id, "next", at="lobby")) for id, room in (("one", a), ("two", b))]
        done = await asyncio.gather(*actions, return_exceptions=True)
        assert sorted(type(d).__name__ for d in done) == ["CommandRefused", "Moved"]
        await asyncio.gather(a.catch_up(), b.catch_up())
        assert a.state.current == b.state.current == TALK.activities[0].id
        assert len(await store.list(CONTROL)) == 1


async def test_two_presenters_without_a_position_take_turns() -> None:
    store = MemoryStore()
    async with two_rooms(store) as (a, b):
        await asyncio.gather(a.command(Action("one", "next")), b.command(Action("two", "next")))
        await asyncio.gather(a.catch_up(), b.catch_up())
        assert a.state.current == b.state.current == TALK.activities[1].id


async def test_action_whose_answer_was_lost_is_carried_out_once() -> None:
    lost = iter([Fault.ANSWER_LOST])

    async def hook(method: str, key: str) -> Fault | None:
        return next(lost, None) if method == "create" else None

    store = MemoryStore(hook)
    async with two_rooms(store) as (a, _):
        await a.command(Action("one", "next"))
        assert a.state.seq == 1
        assert len(await store.list(CONTROL)) == 1


async def test_action_that_the_store_refuses_is_not_said_to_be_done() -> None:
    async def hook(method: str, key: str) -> Fault | None:
        return Fault.REFUSED if method == "create" else None

    async with two_rooms(MemoryStore(hook)) as (a, _):
        with pytest.raises(NotSaved):
            await a.command(Action("one", "next"))
        assert a.state.seq == 0


async def test_refused_action_leaves_no_trace() -> None:
    store = MemoryStore()
    async with two_rooms(store) as (a, _):
        with pytest.raises(CommandRefused):
            await a.command(Action("one", "close"))
        assert await store.list(CONTROL) == []


async def test_answer_that_waited_for_the_store_is_not_called_late_when_it_comes_again() -> None:
    """It came in time, the store was down, the question closed, and the phone sends it again."""
    down = asyncio.Event()
    now_ms = 1_000_000

    async def hook(method: str, key: str) -> Fault | None:
        return Fault.REFUSED if method == "put" and down.is_set() else None

    room = LiveRoom(MemoryStore(hook), INFO, "writer-a", lambda: now_ms, ack_timeout_s=0.05)
    for action in ("next", "open"):
        await room.command(Action(action, action))
    quiz = TALK.activities[0]
    answer = {"id": "answer-1", "participant": "p1", "activity": quiz.id, "choice": ("b",)}
    down.set()
    with pytest.raises(NotSaved):
        await room.submit(Answered(**answer, at_ms=now_ms))
    await room.command(Action("close", "close"))
    now_ms += 10_000
    with pytest.raises(NotSaved):
        await room.submit(Answered(**answer, at_ms=now_ms))
    down.clear()
    stored = await _until_stored(room, Answered(**answer, at_ms=now_ms))
    assert stored.at_ms == 1_000_000
    assert room.state.answer(quiz.id, "p1") == stored
    await room.close()


async def _until_stored(room: LiveRoom, response: Answered) -> Response:
    for _ in range(100):
        try:
            return await room.submit(response)
        except NotSaved:
            continue
    raise AssertionError("it was never stored")


async def test_console_of_one_process_knows_the_phones_of_the_other() -> None:
    async with two_rooms(MemoryStore()) as (a, b):
        await a.append(Joined(id="join", participant="p1", at_ms=clock(), nickname="Calm Otter"))
        a.beacon("p1", Presence(clock(), 80, 1))
        await a.share_presence()
        await b.share_presence()
        assert b.presence == {"p1": Presence(clock(), 80, 1)}


async def test_later_word_of_a_phone_counts_whichever_process_heard_it() -> None:
    async with two_rooms(MemoryStore()) as (a, b):
        a.beacon("p1", Presence(clock(), 80, 1))
        b.beacon("p1", Presence(clock() + 5000, 40, 0))
        await a.share_presence()
        await b.share_presence()
        await a.share_presence()
        assert a.presence["p1"] == b.presence["p1"] == Presence(clock() + 5000, 40, 0)
