"""What a sender may rely on when its line was acknowledged, and when it was not."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from webapp.log.committer import SEGMENT_MAX_BYTES, GroupCommitter, NotYetStored
from webapp.log.memory import Fault, MemoryStore
from webapp.log.store import StoreMisconfigured

PREFIX = "rooms/KWXM/responses/"


class Gate:
    """A store hook that holds each PUT until let through, with a fault or without."""

    def __init__(self) -> None:
        self.arrived: asyncio.Queue[str] = asyncio.Queue()
        self._answers: asyncio.Queue[Fault | Exception | None] = asyncio.Queue()

    def answer(self, fault: Fault | Exception | None = None) -> None:
        self._answers.put_nowait(fault)

    async def __call__(self, method: str, key: str) -> Fault | None:
        self.arrived.put_nowait(key)
        fault = await self._answers.get()
        if isinstance(fault, Exception):
            raise fault
        return fault


async def at_once(seconds: float) -> None:
    await asyncio.sleep(0)


def committer(store: MemoryStore, *on_committed, **options) -> GroupCommitter:
    return GroupCommitter(store, PREFIX, "w1", *on_committed, **{"sleep": at_once, **options})


def start(log: GroupCommitter, *keys: str) -> list[asyncio.Task[None]]:
    return [asyncio.create_task(log.append(key, f'"{key}"'.encode())) for key in keys]


def stored_lines(store: MemoryStore) -> list[bytes]:
    return [line for key in sorted(store.objects) for line in store.objects[key].removesuffix(b"\n").split(b"\n")]


async def test_many_lines_at_once_are_one_put() -> None:
    store = MemoryStore()
    log = committer(store)
    keys = [f"k{number}" for number in range(500)]
    await asyncio.gather(*start(log, *keys))
    body = b"".join(f'"{key}"\n'.encode() for key in keys)
    assert store.writes == [(f"{PREFIX}w1/00000001.jsonl", body)]
    assert (log.pending, log.seq, log.failing_since) == (0, 1, None)
    assert log.last_put_ms is not None


async def test_a_line_is_acknowledged_only_after_its_put() -> None:
    gate = Gate()
    committed: list[bytes] = []
    log = committer(MemoryStore(gate), committed.extend)
    (sender,) = start(log, "a")
    await gate.arrived.get()
    assert not sender.done() and committed == [] and log.pending == 1
    gate.answer()
    await sender
    assert log.pending == 0


async def test_the_room_knows_a_line_before_its_sender_does() -> None:
    events: list[str] = []
    log = committer(MemoryStore(), lambda lines: events.extend(f"room {line!r}" for line in lines))

    async def send(key: str) -> None:
        await log.append(key, key.encode())
        events.append(f"sender {key}")

    await asyncio.gather(send("a"), send("b"))
    assert events == ["room b'a'", "room b'b'", "sender a", "sender b"]


async def test_a_failing_room_does_not_stop_the_log(caplog: pytest.LogCaptureFixture) -> None:
    def fail(lines: list[bytes]) -> None:
        raise RuntimeError("a bug in the room")

    store = MemoryStore()
    log = committer(store, fail)
    await log.append("a", b"1")
    await log.append("b", b"2")
    assert stored_lines(store) == [b"1", b"2"]
    assert "a bug in the room" in caplog.text


async def test_a_line_that_comes_during_a_put_goes_into_the_next_segment() -> None:
    gate = Gate()
    store = MemoryStore(gate)
    log = committer(store)
    first = start(log, "a", "b")
    await gate.arrived.get()
    second = start(log, "c", "d")
    gate.answer()
    await asyncio.gather(*first)
    assert await gate.arrived.get() == f"{PREFIX}w1/00000002.jsonl"
    gate.answer()
    await asyncio.gather(*second)
    assert [body for _, body in store.writes] == [b'"a"\n"b"\n', b'"c"\n"d"\n']


async def test_the_window_opens_with_the_first_line_and_counts_the_put_before() -> None:
    gate, time_s, slept = Gate(), 100.0, []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    log = committer(MemoryStore(gate), now=lambda: time_s, sleep=sleep, window_s=0.5)
    tasks = start(log, "a")
    await gate.arrived.get()
    tasks += start(log, "b")
    await asyncio.sleep(0)
    time_s += 0.375
    gate.answer()
    await gate.arrived.get()
    tasks += start(log, "c")
    await asyncio.sleep(0)
    time_s += 2
    gate.answer()
    await gate.arrived.get()
    gate.answer()
    await asyncio.gather(*tasks)
    assert slept == [0.5, 0.125]
    assert log.last_put_ms == 0


async def test_a_line_not_stored_in_time_is_told_so_and_stored_once_all_the_same() -> None:
    gate = Gate()
    store = MemoryStore(gate)
    log = committer(store, ack_timeout_s=0.01)
    (sender,) = start(log, "a")
    with pytest.raises(NotYetStored):
        await sender
    assert (log.pending, store.writes) == (1, [])
    (again,) = start(log, "a")
    await gate.arrived.get()
    for fault in (Fault.REFUSED, Fault.ANSWER_LOST, StoreMisconfigured("rights"), OSError("a bug"), None):
        gate.answer(fault)
    assert await log.close(deadline_s=10) == 0
    await asyncio.gather(again, return_exceptions=True)
    assert set(store.writes) == {(f"{PREFIX}w1/00000001.jsonl", b'"a"\n')}
    assert (log.pending, log.seq) == (0, 1)


async def test_a_key_sent_again_while_pending_joins() -> None:
    gate = Gate()
    store = MemoryStore(gate)
    log = committer(store)
    tasks = [asyncio.create_task(log.append("a", line)) for line in (b"first", b"second")]
    await gate.arrived.get()
    tasks.append(asyncio.create_task(log.append("a", b"third")))
    await asyncio.sleep(0)
    assert log.pending == 1
    gate.answer()
    await asyncio.gather(*tasks)
    assert stored_lines(store) == [b"first"]


async def test_failing_since_is_kept_while_the_store_fails() -> None:
    gate, time_s = Gate(), 5.0
    log = committer(MemoryStore(gate), now=lambda: time_s)
    (sender,) = start(log, "a")
    await gate.arrived.get()
    gate.answer(Fault.REFUSED)
    await gate.arrived.get()
    time_s = 6.0
    gate.answer(Fault.REFUSED)
    await gate.arrived.get()
    assert log.failing_since == 5.0
    gate.answer()
    await sender
    assert log.failing_since is None


async def test_tries_come_ever_slower_up_to_a_second() -> None:
    slept: list[float] = []
    faults = iter([Fault.REFUSED] * 7)

    async def refuse(method: str, key: str) -> Fault | None:
        return next(faults, None)

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    await committer(MemoryStore(refuse), sleep=sleep, window_s=0).append("a", b"1")
    assert len(slept) == 7
    for seconds, most in zip(slept, [0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0], strict=True):
        assert most / 2 <= seconds <= most


async def test_too_much_pending_is_refused_at_once() -> None:
    gate = Gate()
    store = MemoryStore(gate)
    log = committer(store, max_pending=3)
    tasks = start(log, "a", "b", "c")
    await gate.arrived.get()
    with pytest.raises(NotYetStored):
        await log.append("d", b"d")
    tasks += start(log, "c")  # joins: it takes no room
    gate.answer()
    await asyncio.gather(*tasks)
    gate.answer()
    await log.append("d", b"d")
    assert stored_lines(store) == [b'"a"', b'"b"', b'"c"', b"d"]


async def test_a_sender_that_went_away_does_not_take_its_line_along() -> None:
    gate = Gate()
    store = MemoryStore(gate)
    log = committer(store)
    gone, stays = start(log, "gone", "stays")
    await gate.arrived.get()
    gone.cancel()
    await asyncio.wait([gone])
    assert gone.cancelled()
    gate.answer()
    await stays
    assert stored_lines(store) == [b'"gone"', b'"stays"']


async def test_what_piled_up_goes_out_in_pieces() -> None:
    gate = Gate()
    store = MemoryStore(gate)
    log = committer(store)
    tasks = start(log, "first")
    await gate.arrived.get()
    line = b"x" * (SEGMENT_MAX_BYTES // 3)
    tasks += [asyncio.create_task(log.append(f"k{number}", line)) for number in range(5)]
    tasks.append(asyncio.create_task(log.append("huge", b"y" * (SEGMENT_MAX_BYTES + 1))))
    for _ in range(5):
        gate.answer()
    await asyncio.gather(*tasks)
    assert [body.count(b"\n") for _, body in store.writes] == [1, 2, 2, 1, 1]


async def test_close_stores_what_is_pending_and_takes_no_more() -> None:
    store = MemoryStore()
    log = committer(store)
    tasks = start(log, "a", "b")
    await asyncio.sleep(0)
    assert await log.close(deadline_s=10) == 0
    await asyncio.gather(*tasks)
    assert stored_lines(store) == [b'"a"', b'"b"']
    with pytest.raises(NotYetStored):
        await log.append("c", b"c")
    assert await log.close(deadline_s=10) == 0


async def test_close_gives_up_at_its_deadline_and_tells_the_senders() -> None:
    store = MemoryStore(Gate())  # which never answers
    log = committer(store)
    tasks = start(log, "a", "b")
    await asyncio.sleep(0)
    assert await log.close(deadline_s=0.01) == 2
    for task in tasks:
        with pytest.raises(NotYetStored):
            await task
    assert (log.pending, store.writes) == (0, [])


FAULTS = st.lists(st.sampled_from([None, Fault.REFUSED, Fault.ANSWER_LOST]), max_size=30)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    faults=FAULTS,
    seed=st.integers(0, 2**32),
    senders=st.integers(1, 30),
    max_pending=st.integers(1, 30),
    ack_timeout_s=st.sampled_from([0, 60]),
)
async def test_under_any_faults_an_acknowledged_line_is_stored_exactly_once(
    faults: list[Fault | None], seed: int, senders: int, max_pending: int, ack_timeout_s: float
) -> None:
    chance = random.Random(seed)
    schedule = iter(faults)

    async def loiter() -> None:
        for _ in range(chance.randrange(6)):
            await asyncio.sleep(0)

    async def hook(method: str, key: str) -> Fault | None:
        await loiter()
        return next(schedule, None)

    async def sleep(seconds: float) -> None:
        await loiter()

    taken_in: list[bytes] = []
    acked: set[bytes] = set()
    store = MemoryStore(hook)
    log = committer(store, taken_in.extend, sleep=sleep, max_pending=max_pending, ack_timeout_s=ack_timeout_s)

    async def send(number: int) -> None:
        line = f"line {number}".encode()
        for _ in range(chance.randrange(1, 4)):
            await loiter()
            try:
                if line not in taken_in:  # as the room does: what it knows is stored
                    await log.append(f"k{number}", line)
            except NotYetStored:
                continue
            assert line in taken_in
            acked.add(line)
            return

    tasks = [asyncio.create_task(send(number)) for number in range(senders)]
    for task in tasks:
        if chance.random() < 0.2:
            await loiter()
            task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(result is None or isinstance(result, asyncio.CancelledError) for result in results)
    assert await log.close(deadline_s=10) == 0

    lines = stored_lines(store) if store.objects else []
    assert set(Counter(lines).values()) <= {1}
    assert acked <= set(lines)
    assert lines == taken_in
    assert len(set(store.writes)) == len(store.objects), "a key had two contents"
    assert sorted(store.objects) == [f"{PREFIX}w1/{seq:08d}.jsonl" for seq in range(1, log.seq + 1)]
