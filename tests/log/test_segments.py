"""That a reader of the log misses nothing, whatever fails between."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webapp.log.memory import Fault, MemoryStore
from webapp.log.segments import READS_AT_ONCE, LogDamaged, SegmentTail, append_cas, new_writer_id, read_from
from webapp.log.store import Store, StoreUnavailable

PREFIX = "rooms/KWXM/responses/"
CONTROL = "rooms/KWXM/control/"


def segment(writer: str, seq: int) -> str:
    return f"{PREFIX}{writer}/{seq:08d}.jsonl"


def failing(*keys: str):
    """A hook that fails what touches one of `keys`."""

    async def hook(method: str, key: str) -> Fault | None:
        return Fault.REFUSED if key in keys else None

    return hook


class HidingStore(MemoryStore):
    """Its first listing under a prefix leaves out `hidden`, as a folder being written to may."""

    def __init__(self, hidden: str) -> None:
        super().__init__()
        self._hidden = {hidden}

    async def list(self, prefix: str, after: str = "") -> list[str]:
        keys = await super().list(prefix, after)
        shown = [key for key in keys if key not in self._hidden]
        if len(shown) < len(keys):
            self._hidden.clear()
        return shown


async def test_a_tail_gives_each_line_of_the_others_once_in_order(store: Store) -> None:
    await store.put(segment("w2", 1), b"d\ne\n")
    await store.put(segment("w1", 1), b"a\nb\n")
    await store.put(segment("w1", 2), b"c\n")
    await store.put(segment("mine", 1), b"not this\n")
    tail = SegmentTail(store, PREFIX, skip_writer="mine")
    assert await tail.poll() == [b"a", b"b", b"c", b"d", b"e"]
    assert await tail.poll() == []
    await store.put(segment("w1", 3), b"f\n")
    await store.put(segment("w0", 1), b'{"text":"\r\x0b\xc2\x85"}\n')
    assert await tail.poll() == [b'{"text":"\r\x0b\xc2\x85"}', b"f"]
    assert await tail.poll() == []


async def test_a_room_without_segments_has_no_lines(store: Store) -> None:
    assert await SegmentTail(store, PREFIX).poll() == []


async def test_a_segment_that_cannot_be_read_is_read_later_and_blocks_no_other_writer() -> None:
    store = MemoryStore()
    for seq in (1, 2, 3):
        await store.put(segment("w1", seq), f"one {seq}\n".encode())
        await store.put(segment("w2", seq), f"two {seq}\n".encode())
    tail = SegmentTail(store, PREFIX)
    store.hook = failing(segment("w1", 2))
    assert await tail.poll() == [b"one 1", b"two 1", b"two 2", b"two 3"]
    with pytest.raises(StoreUnavailable):
        await tail.poll()
    store.hook = None
    assert await tail.poll() == [b"one 2", b"one 3"]


async def test_a_listing_that_fails_is_no_empty_room() -> None:
    store = MemoryStore()
    await store.put(segment("w1", 1), b"a\n")
    tail = SegmentTail(store, PREFIX)
    for key in (PREFIX, f"{PREFIX}w1/"):
        store.hook = failing(key)
        with pytest.raises(StoreUnavailable):
            await tail.poll()
    store.hook = None
    assert await tail.poll() == [b"a"]


async def test_a_cancelled_poll_loses_nothing() -> None:
    store = MemoryStore()
    for writer in ("w1", "w2"):
        await store.put(segment(writer, 1), f"{writer}\n".encode())
    held = asyncio.Event()

    async def hold_w2(method: str, key: str) -> None:
        if (method, key) == ("get", segment("w2", 1)):
            held.set()
            await asyncio.Event().wait()

    store.hook = hold_w2
    tail = SegmentTail(store, PREFIX)
    poll = asyncio.create_task(tail.poll())
    await held.wait()
    poll.cancel()
    await asyncio.wait([poll])
    store.hook = None
    assert await tail.poll() == [b"w1", b"w2"]


@pytest.mark.parametrize("hidden", [1, 2, 3])
async def test_a_listing_that_missed_a_file_skips_nothing(hidden: int) -> None:
    store = HidingStore(segment("w1", hidden))
    for seq in (1, 2, 3):
        await store.put(segment("w1", seq), f"{seq}\n".encode())
    tail = SegmentTail(store, PREFIX)
    assert await tail.poll() + await tail.poll() == [b"1", b"2", b"3"]


async def test_a_lost_segment_is_logged_and_does_not_hide_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryStore()
    for seq in (1, 4, 5):
        await store.put(segment("w1", seq), f"{seq}\n".encode())
    tail = SegmentTail(store, PREFIX)
    assert await tail.poll() == [b"1", b"4", b"5"]
    assert "segments 2 to 3" in caplog.text
    await store.put(segment("w1", 6), b"6\n")
    assert await tail.poll() == [b"6"]


async def test_reads_at_once_are_bounded() -> None:
    store = MemoryStore()
    for seq in range(1, 101):
        await store.put(segment(f"w{seq % 3}", seq), f"{seq}\n".encode())
    now, most = 0, 0

    async def count(method: str, key: str) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        for _ in range(3):
            await asyncio.sleep(0)
        now -= 1

    store.hook = count
    assert len(await SegmentTail(store, PREFIX).poll()) == 100
    assert most == READS_AT_ONCE


async def test_control_events_are_numbered_by_who_came_first(store: Store) -> None:
    assert await append_cas(store, CONTROL, 1, b"open") is True
    assert await append_cas(store, CONTROL, 1, b"close") is False
    assert await append_cas(store, CONTROL, 1, b"open") is True
    assert await append_cas(store, CONTROL, 2, b"close") is True
    assert await read_from(store, CONTROL, 0) == [(1, b"open"), (2, b"close")]
    assert await read_from(store, CONTROL, 1) == [(2, b"close")]
    assert await read_from(store, CONTROL, 2) == []


async def test_an_append_whose_answer_got_lost_succeeds_when_tried_again() -> None:
    async def lose(method: str, key: str) -> Fault | None:
        return Fault.ANSWER_LOST if method == "create" else None

    store = MemoryStore(lose)
    with pytest.raises(StoreUnavailable):
        await append_cas(store, CONTROL, 1, b"ours")
    assert await append_cas(store, CONTROL, 1, b"ours") is True
    assert await append_cas(store, CONTROL, 1, b"theirs") is False


async def test_of_two_presenters_one_appends_each_event(store: Store) -> None:
    async def present(name: str) -> list[int]:
        return [seq for seq in range(1, 9) if await append_cas(store, CONTROL, seq, f"{name} {seq}".encode())]

    one, two = await asyncio.gather(present("one"), present("two"))
    assert sorted(one + two) == list(range(1, 9))
    events = await read_from(store, CONTROL, 0)
    assert [seq for seq, body in events if body.startswith(b"one")] == one


async def test_a_missing_control_event_is_damage() -> None:
    store = MemoryStore()
    for seq in (1, 2, 4):
        await store.put(f"{CONTROL}{seq:06d}.json", b"x")
    with pytest.raises(LogDamaged, match=r"000003\.json is missing"):
        await read_from(store, CONTROL, 0)
    with pytest.raises(LogDamaged):
        await read_from(store, CONTROL, 2)
    assert await read_from(store, CONTROL, 3) == [(4, b"x")]


async def test_a_listing_that_missed_a_control_event_is_no_damage() -> None:
    store = HidingStore(f"{CONTROL}000002.json")
    for seq in (1, 2, 3):
        await store.put(f"{CONTROL}{seq:06d}.json", str(seq).encode())
    assert await read_from(store, CONTROL, 0) == [(1, b"1"), (2, b"2"), (3, b"3")]


@given(st.lists(st.integers(0, 2**34), min_size=2, max_size=10))
def test_writer_ids_sort_by_time(seconds: list[int]) -> None:
    ids = [new_writer_id(second) for second in sorted(seconds)]
    assert [writer.split("-")[0] for writer in ids] == sorted(writer.split("-")[0] for writer in ids)
    assert {len(writer) for writer in ids} == {14}


def test_writer_ids_of_one_second_differ() -> None:
    assert len({new_writer_id(1_800_000_000.5) for _ in range(100)}) == 100
