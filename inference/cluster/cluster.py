"""The port behind which a cluster stands: a view of it, and what a presenter may do to it."""

from __future__ import annotations

from typing import Protocol

from inference.cluster.snapshot import ClusterSnapshot


class NotPossible(Exception):
    """What was asked for can't be done here, or not now. Says why, and what would help."""


class NoCluster(Exception):
    """There is no way to the cluster, or it can't be made. Says what would help."""


class Cluster(Protocol):
    """Of the process that shows it; started and closed by whoever made it. The verbs raise NotPossible."""

    def snapshot(self) -> ClusterSnapshot:
        """As it is known now; cheap, and never waits."""

    def told(self) -> str:
        """In a sentence, what the replicas themselves say of their latency, where somebody collects it; or empty."""

    async def pin(self, replicas: int | None) -> None:
        """Set the number of pods whatever the load (KEDA's `paused-replicas`), or with None scale by load again."""

    async def hold(self, on: bool) -> None:
        """Stay at the number of pods that there is (KEDA's `paused`), or go on."""

    async def kill_pod(self, name: str | None = None) -> str:
        """End a pod without notice: this one, or a ready one. Its name."""

    async def interrupt_node(self, name: str | None = None) -> str:
        """Give a Spot node its two minutes: this one, or one that carries a pod. Its name."""

    async def set_unavailable(self, instance_type: str, on: bool) -> None:
        """Let no node of this type be had (insufficient capacity), or let it again."""
