"""What a presenter does to the cluster, and what is remembered of it: which types are out, and what was refused."""

from __future__ import annotations

from inference.cluster.cluster import Cluster, NotPossible
from inference.cluster.snapshot import ClusterSnapshot

ACTIONS = ("pin", "unpin", "hold", "release", "interrupt", "kill", "deny", "allow")


class Controls:
    """`unavailable` are the instance types that were made so from here; `said` is what the last action did."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.unavailable: set[str] = set()
        self.said = ""
        self._refused: dict[str, tuple[str, object]] = {}

    async def do(self, action: str, name: str | None = None, replicas: int | None = None) -> str:
        """One of ACTIONS, and a sentence on what it did. `name` is of a pod, a node or an instance type. Raises
        NotPossible, which is remembered until the pods or nodes are others."""
        try:
            said = await self._do(action, name, replicas)
        except NotPossible as error:
            self._refused[action] = (str(error), _shape(self.cluster.snapshot()))
            raise
        self._refused.pop(action, None)
        self.said = said
        return said

    def refused(self, action: str) -> str:
        """Why this was not possible when it was last tried; empty when it may be tried again."""
        text, shape = self._refused.get(action, ("", None))
        return text if text and shape == _shape(self.cluster.snapshot()) else ""

    async def _do(self, action: str, name: str | None, replicas: int | None) -> str:
        match action:
            case "pin":
                assert replicas is not None
                await self.cluster.pin(replicas)
                return f"Set to {replicas} {'pod' if replicas == 1 else 'pods'}, whatever the load."
            case "unpin":
                await self.cluster.pin(None)
                return "The load decides again."
            case "hold":
                await self.cluster.hold(True)
                return "Scaling is on hold."
            case "release":
                await self.cluster.hold(False)
                return "Scaling goes on."
            case "interrupt":
                return f"Spot node {await self.cluster.interrupt_node(name)} has its two minutes' notice."
            case "kill":
                return f"Pod {await self.cluster.kill_pod(name)} was killed."
            case "deny":
                assert name is not None
                await self.cluster.set_unavailable(name, True)
                self.unavailable.add(name)
                return f"No more {name} can be had."
            case "allow":
                assert name is not None
                await self.cluster.set_unavailable(name, False)
                self.unavailable.discard(name)
                return f"{name} can be had again."
        raise AssertionError(f"no such action: {action}")


def _shape(snapshot: ClusterSnapshot) -> object:
    return {(one.name, one.phase) for one in (*snapshot.pods, *snapshot.nodes)}
