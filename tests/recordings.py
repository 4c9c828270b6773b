"""A room whose talk met a spike, as the log keeps it: a small talk by hand, and five minutes of a scripted cluster.

The load rises after second 60 and falls after 180. One pod is ready; two more are asked for at 72, are ready at 130 and
go at 260. All times count from T0_MS. Nothing here does I/O but `store_in`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from inference.cluster.chain import Completion
from inference.cluster.snapshot import Autoscaler, ClusterSnapshot, Happening, Node, Pod
from tests.sample_room import T0_MS, SampleRoom, tour
from webapp.live.vitals import Reading
from webapp.log.store import Store
from webapp.room.events import encode
from webapp.timeline import Encoder, Frame

T0_S = T0_MS / 1000
SECONDS = 300
OLD, NEW = "http://10.0.0.1:8000", "http://10.0.0.2:8000"
HAPPENED = [
    (61.5, "metric", "crossed", "", "The metric is above its target: 712 for 25"),
    (72.0, "scale", "up", "", "1 → 3 pods: running 32 + 10 × waiting 68 = 712 → 712/25 = 28.5 → 3, the maximum"),
    (72.0, "pod", "made", "vllm-b", "Pod vllm-b was made"),
    (72.0, "pod", "made", "vllm-c", "Pod vllm-c was made"),
    (74.0, "node", "ordered", "node-b", "g5.xlarge (Spot, $0.43/h) ordered: 2 pods found no room"),
    (104.0, "node", "ready", "node-b", "Node node-b is ready, 30 s after it was ordered"),
    (130.0, "pod", "ready", "vllm-b", "Pod vllm-b is ready, 58 s after it was made"),
    (130.5, "pod", "ready", "vllm-c", "Pod vllm-c is ready, 59 s after it was made"),
    (260.0, "scale", "down", "", "3 → 1 pods: idle for 60 s"),
]
CHAIN_S = {
    "edge": 0.0,
    "crossed": 1.0,
    "decision": 12.0,
    "pending": 12.0,
    "node": 44.0,
    "ready": 70.0,
    "completion": 72.25,
    "recovered": 86.0,
}


def reading(t: int) -> Reading:
    """100 phones' requests and 20 of k6 from 61 to 180; TTFT above a second from 65 to 145."""
    busy = 60 < t <= 180
    in_flight = {"audience": 100 if busy else 1, "amplified": 0, "scripted": 20 if busy else 0, "api": 0}
    slow = 65 <= t <= 145
    return Reading(
        in_flight,
        waiting=56 if busy else 0,
        ttft_p50_s=2.5 if slow else 0.12,
        ttft_p95_s=6.125 if slow else 0.25,
        tokens_per_s=900.0 if busy else 10.0,
        requests_per_s=9.0 if busy else 0.1,
        tokens_per_min=54_000.0 if busy else 600.0,
    )


def snapshot(t: int, happenings: bool = True) -> ClusterSnapshot:
    busy, at_s = 60 < t <= 180, T0_S + t
    running, waiting = (32, 68) if busy else (1, 0)
    pods = [_pod("vllm-a", "ready", -600, -500, "node-a", OLD, running, waiting)]
    nodes = [Node("node-a", "ready", T0_S - 660, T0_S - 630, "g5.xlarge", "on-demand", "us-east-1a", 1.006)]
    if 72 <= t < 260:
        phase, since, node = (
            ("pending", 72, None) if t < 104 else ("starting", 104, "node-b") if t < 130 else ("ready", 130, "node-b")
        )
        load = (running, 0) if phase == "ready" else (None, None)
        pods.append(_pod("vllm-b", phase, 72, since, node, NEW if phase == "ready" else None, *load))
        pods.append(_pod("vllm-c", phase, 72, since, node, None, *load))
    if 74 <= t < 270:
        phase, since = ("ordered", 74) if t < 104 else ("ready", 104)
        nodes.append(Node("node-b", phase, T0_S + 74, T0_S + since, "g5.2xlarge", "spot", "us-east-1b", 0.434))
    metric = running + 10.0 * waiting
    why = f"running {running} + 10 × waiting {waiting} = {metric:.0f}"
    scaling = Autoscaler(
        min_replicas=1,
        max_replicas=3,
        desired=3 if 72 <= t < 260 else 1,
        target=25.0,
        metric=metric,
        formula="running + waiting * 10",
        triggers={"running": float(running), "waiting": float(waiting)},
        why=why,
    )
    told = tuple(h for h in happened() if h.at_s <= at_s)[-40:] if happenings else ()
    return ClusterSnapshot(at_s, at_s - 0.5, "local", True, tuple(pods), tuple(nodes), scaling, 10.0, told)


def _pod(name, phase, created, since, node, url, running, waiting) -> Pod:
    return Pod(name, phase, T0_S + created, T0_S + since, node, "", url, running, waiting)


def happened() -> list[Happening]:
    return [Happening(seq, T0_S + t, *rest) for seq, (t, *rest) in enumerate(HAPPENED, 1)]


def completions(t: float) -> list[Completion]:
    """Each ready replica's first, as far as it was there by then."""
    first = [Completion(OLD, T0_S + 3.0)] if t >= 3 else []
    return first + ([Completion(NEW, T0_S + 132.25)] if 132.25 <= t < 260 else [])


def frames(writer: str = "writer-a") -> Iterator[Frame]:
    known: set[Completion] = set()
    for t in range(SECONDS):
        bare, at_ms = snapshot(t, happenings=False), T0_MS + t * 1000
        new = tuple(h for h in happened() if T0_S + t - 1 < h.at_s <= T0_S + t)
        done = tuple(c for c in completions(t) if c not in known)
        known.update(done)
        yield Frame(writer, at_ms, reading(t), bare, new, done, True)


def lines(writer: str = "writer-a") -> list[bytes]:
    encoder = Encoder(writer, simulated=True)
    return [encoder.line(T0_MS + t * 1000, reading(t), snapshot(t), completions(t)) for t in range(SECONDS)]


def talk() -> SampleRoom:
    """The sample talk from its lobby to its end, with a question on the stage and one that is not."""
    room = SampleRoom()
    for at in tour(room):
        room.after(5)
        if at == "ask replied":
            shown = room.state.questions()[0]
            room.do("approve", item=f"q:{shown.key}")
            room.ask("cy", "Is this <b>hidden</b>?")
    return room


async def store_in(store: Store, room: SampleRoom, timeline: list[bytes]) -> None:
    """The room's log, as web processes leave it."""
    folder = f"rooms/{room.info.code}/"
    await store.create(f"{folder}room.json", json.dumps(room.info.to_json()).encode())
    for seq, event in enumerate(room.control, 1):
        await store.create(f"{folder}control/{seq:06d}.json", encode(event))
    responses = b"".join(encode(response) + b"\n" for response in room.responses)
    if responses:
        await store.put(f"{folder}responses/writer-a/00000001.jsonl", responses)
    presence = b'{"type":"presence","at_ms":1,"phones":{}}'
    for seq, start in enumerate(range(0, len(timeline), 7), 1):
        body = b"\n".join([presence, *timeline[start : start + 7]]) + b"\n"
        await store.put(f"{folder}timeline/writer-a/{seq:08d}.jsonl", body)
