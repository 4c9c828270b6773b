"""A cluster that does what a test says: implements the port, has no life of its own, and tells what was done to it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from inference.cluster.cluster import NotPossible
from inference.cluster.snapshot import Autoscaler, ClusterSnapshot, Happening, Kind, Node, Pod, PodPhase

T0_S = 1_700_000_000.0
SPOT, ON_DEMAND = "spot", "on-demand"


def pod(number: int, phase: PodPhase = "ready", created_s: float = T0_S, **fields: Any) -> Pod:
    node = None if phase == "pending" else f"ip-10-0-1-{number:04d}"
    gauges = {"running": 0, "waiting": 0} if phase in ("ready", "unready", "terminating") else {}
    return Pod(f"vllm-6c9f7d5b8-{number:04d}x", phase, created_s, created_s, **({"node": node} | gauges | fields))


def node(number: int, capacity: str = SPOT, phase: str = "ready", created_s: float = T0_S, **fields: Any) -> Node:
    price = {"usd_per_hour": 0.37 if capacity == SPOT else 0.805}
    name = f"ip-10-0-1-{number:04d}"
    return Node(name, phase, created_s, created_s, "g6.xlarge", capacity, "us-east-1a", **(price | fields))  # type: ignore[arg-type]


def snapshot(ready: int = 1, now_s: float = T0_S, **fields: Any) -> ClusterSnapshot:
    """With that many ready pods, each on a Spot node, where `fields` do not say otherwise."""
    given = {
        "pods": tuple(pod(n) for n in range(ready)),
        "nodes": tuple(node(n) for n in range(ready)),
        "autoscaler": Autoscaler(1, 10, max(1, ready), 25.0, metric=0.0),
    }
    return ClusterSnapshot(now_s, now_s, "local", True, **(given | {"speed_up": 10.0} | fields))


class ScriptedCluster:
    """`now` is what it shows; `done` are the calls; `refusal` is raised by every verb while it is set."""

    def __init__(self, now: ClusterSnapshot | None = None) -> None:
        self.now = now or snapshot()
        self.done: list[tuple[Any, ...]] = []
        self.refusal = ""
        self.telling = ""

    def snapshot(self) -> ClusterSnapshot:
        return self.now

    def told(self) -> str:
        return self.telling

    def tell(self, kind: Kind, what: str, text: str, at_s: float, subject: str = "") -> None:
        seq = self.now.happenings[-1].seq + 1 if self.now.happenings else 1
        new = Happening(seq, at_s, kind, what, subject, text)
        self.now = replace(self.now, happenings=(*self.now.happenings, new)[-50:])

    async def pin(self, replicas: int | None) -> None:
        self._do("pin", replicas)
        self._scaler(pinned=replicas)

    async def hold(self, on: bool) -> None:
        self._do("hold", on)
        self._scaler(held=on)

    async def kill_pod(self, name: str | None = None) -> str:
        self._do("kill_pod", name)
        return name or self.now.pods[0].name

    async def interrupt_node(self, name: str | None = None) -> str:
        self._do("interrupt_node", name)
        return name or self.now.nodes[0].name

    async def set_unavailable(self, instance_type: str, on: bool) -> None:
        self._do("set_unavailable", instance_type, on)

    def _do(self, *call: Any) -> None:
        if self.refusal:
            raise NotPossible(self.refusal)
        self.done.append(call)

    def _scaler(self, **fields: Any) -> None:
        assert self.now.autoscaler is not None
        self.now = replace(self.now, autoscaler=replace(self.now.autoscaler, **fields))
