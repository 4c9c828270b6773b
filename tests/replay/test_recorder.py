"""What a process records of its rooms, and how much that is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from inference.cluster.chain import Completion
from inference.cluster.snapshot import ClusterSnapshot, Node, Pod
from tests.recordings import NEW, OLD, SECONDS, T0_S, frames, reading, snapshot
from tests.sample_room import T0_MS, TALK
from webapp.gateway.record import Record
from webapp.live.vitals import Vitals
from webapp.log.memory import Fault, MemoryStore
from webapp.recorder import Recorder
from webapp.room.commands import Action
from webapp.rooms import Rooms
from webapp.timeline import Encoder, read


class Stand:
    """A process with a clock by hand, and a cluster that shows what the recording has of that second."""

    def __init__(self, store: MemoryStore) -> None:
        self.t = 0
        self.in_flight = {"audience": 0}
        self.rooms = Rooms(store, self.now_ms)
        self.vitals = Vitals(self.in_flight, lambda: 0, lambda: self.now_ms() / 1000)
        self.recorder = Recorder(self.rooms, self.vitals, self, self.now_ms, simulated=True)

    def now_ms(self) -> int:
        return T0_MS + self.t * 1000

    def snapshot(self) -> ClusterSnapshot:
        return snapshot(self.t)

    def tick(self, until: int) -> None:
        while self.t < until:
            self.recorder.tick()
            self.t += 1


@pytest.fixture
async def stand() -> AsyncIterator[Stand]:
    stand = Stand(MemoryStore())
    yield stand
    await stand.rooms.close()


def record(replica: str, status: int = 200) -> Record:
    return Record("r", "/v1", "audience", status, 1.0, replica=replica)


async def test_what_is_recorded_can_be_read(stand: Stand) -> None:
    room = await stand.rooms.make(TALK)
    for t in range(SECONDS):
        room.used_ms = stand.now_ms()
        stand.in_flight["audience"] = t
        stand.tick(t + 1)
    await room.store_recorded()
    timeline = await read(stand.rooms.store, room.info.code)
    assert [m.cluster for m in timeline.moments] == [f.cluster for f in frames()]
    assert [m.vitals.in_flight["audience"] for m in timeline.moments] == list(range(SECONDS))
    assert all(m.simulated for m in timeline.moments)
    assert timeline.happenings == tuple(h for f in frames() for h in f.happenings)


async def test_lines_of_some_seconds_go_into_one_object(stand: Stand) -> None:
    room = await stand.rooms.make(TALK)
    stand.tick(5)
    await room.store_recorded()
    assert len([key for key in stand.rooms.store.objects if "/timeline/" in key]) == 1


async def test_what_was_not_stored_yet_is_stored_when_the_room_is_let_go() -> None:
    stand = Stand(MemoryStore())
    room = await stand.rooms.make(TALK)
    stand.tick(3)
    await stand.rooms.close()
    assert len((await read(stand.rooms.store, room.info.code)).moments) == 3


async def test_a_store_that_fails_for_a_while_loses_nothing() -> None:
    down = asyncio.Event()

    async def hook(method: str, key: str) -> Fault | None:
        return Fault.REFUSED if method == "put" and down.is_set() else None

    stand = Stand(MemoryStore(hook))
    room = await stand.rooms.make(TALK)
    down.set()
    stand.tick(4)
    storing = asyncio.create_task(room.store_recorded())
    await asyncio.sleep(0)
    down.clear()
    await storing
    assert len((await read(stand.rooms.store, room.info.code)).moments) == 4
    await stand.rooms.close()


async def test_a_room_is_recorded_while_somebody_uses_it_or_watches(stand: Stand) -> None:
    room = await stand.rooms.make(TALK)
    stand.tick(30)  # nobody came after the first moment
    watching = room.changes(60, asyncio.Event())
    await anext(watching)
    stand.tick(40)
    await watching.aclose()
    stand.tick(50)
    stand.rooms.peek(room.info.code)
    stand.tick(51)
    await room.command(Action("end", "archive"))
    stand.tick(55)
    await room.store_recorded()
    recorded = [m.at_s - T0_S for m in (await read(stand.rooms.store, room.info.code)).moments]
    assert recorded == [*range(10), *range(30, 40), 50]


async def test_each_room_has_a_timeline_of_its_own(stand: Stand) -> None:
    first = await stand.rooms.make(TALK)
    stand.tick(2)
    second = await stand.rooms.make(TALK)
    stand.tick(4)
    for room in (first, second):
        await room.store_recorded()
    found = [(await read(stand.rooms.store, room.info.code)).moments for room in (first, second)]
    assert [len(moments) for moments in found] == [4, 2]
    assert found[1][0].cluster == replace(snapshot(2), happenings=())


async def test_a_replicas_first_answer_is_noted_once_and_again_when_it_came_back(stand: Stand) -> None:
    room = await stand.rooms.make(TALK)
    stand.t = 100
    room.used_ms = stand.now_ms()
    stand.recorder.ended(record(OLD, status=502))
    stand.recorder.ended(record(OLD))
    stand.tick(103)
    stand.recorder.ended(record(OLD))
    stand.t = 135
    room.used_ms = stand.now_ms()
    stand.recorder.ended(record(NEW))
    stand.tick(136)
    stand.t = 265  # the new replica has gone
    room.used_ms = stand.now_ms()
    stand.tick(266)
    stand.t = 140  # and is there again
    stand.recorder.ended(record(NEW))
    stand.t = 141
    stand.tick(142)
    await room.store_recorded()
    noted = (await read(stand.rooms.store, room.info.code)).completions
    assert noted == tuple(Completion(url, T0_S + t) for url, t in ((OLD, 100), (NEW, 135), (NEW, 140)))


def test_an_hour_of_ten_busy_pods_is_a_few_megabytes() -> None:
    """With gauges that all change every second, a decision each 15 s and a pod that comes or goes each minute."""
    encoder = Encoder("c0ffee0-abcdef", simulated=True)
    size_bytes = 0
    for t in range(600):  # the other fifty minutes are like these ten
        size_bytes += len(encoder.line(T0_MS + t * 1000, reading(100), busy(t))) + 1
    assert 0.5e6 < size_bytes * 6 < 3e6


def busy(t: int) -> ClusterSnapshot:
    base, at_s = snapshot(100), T0_S + t
    count = 9 + t // 60 % 2
    pods = tuple(
        Pod(f"vllm-6c4d9b7f5-abc{i:02}", "ready", T0_S, T0_S + 71, f"node-{i}", "", f"http://127.0.0.1:{8100 + i}",
            (t * 7 + i) % 33, t % 20, 32)
        for i in range(count)
    )  # fmt: skip
    nodes = tuple(
        Node(f"node-{i}", "ready", T0_S, T0_S + 30, "g5.xlarge", "spot", "us-east-1a", 0.4344) for i in range(10)
    )
    why = f"running {t // 15 % 300} + 10 × waiting {t // 15 % 20} = {t // 15} → {t // 15}/25 → 10, policy allows 10"
    triggers = {"running": float(t % 300), "waiting": float(t % 20)}
    scaling = replace(base.autoscaler, metric=float(t % 777), triggers=triggers, why=why, desired=count)
    return replace(base, at_s=at_s, heard_s=at_s - 0.25, pods=pods, nodes=nodes, autoscaler=scaling)


def test_a_line_is_one_line_of_json() -> None:
    line = Encoder("writer-a").line(T0_MS, reading(0), snapshot(0))
    assert b"\n" not in line
    assert json.loads(line)["type"] == "second"
