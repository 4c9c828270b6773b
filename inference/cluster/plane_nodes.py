"""The nodes: ordered, ready, given notice, drained, gone; and what they have cost.

Billing is by the second from the order until the instance is told to end; EC2's minimum of a minute is left out.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

from inference.cluster.coldstart import ColdStart
from inference.cluster.karpenter.catalogue import Offer, kind
from inference.cluster.karpenter.choose import Choice, capacity
from inference.cluster.plane_feed import Feed, count, lasted
from inference.cluster.plane_names import Names, short
from inference.cluster.snapshot import NodePhase
from inference.cluster.spec import NodePoolSpec

NEVER = float("inf")
NOTICE_S = 120.0
"""EC2 gives a Spot instance two minutes."""


@dataclass(slots=True)
class NodeState:
    """`holds` is how many pods it has room for. `image_s` is when the image is there, None before anybody asked for it.
    `ends_s` is when Spot takes it; `deadline_s` when draining ends in any case, `gone_s` when the instance is gone."""

    name: str
    offer: Offer
    holds: int
    created_s: float
    ready_s: float
    phase: NodePhase = "ordered"
    since_s: float = 0.0
    pods: set[str] = field(default_factory=set)
    image_s: float | None = None
    empty_s: float | None = None
    ends_s: float | None = None
    deadline_s: float = NEVER
    gone_s: float | None = None
    billed_until_s: float = NEVER

    @property
    def room(self) -> int:
        """How many more pods it may take, now or once it is ready."""
        return 0 if self.phase == "draining" else self.holds - len(self.pods)

    def hours(self, now_s: float) -> float:
        """How long it has been paid for."""
        return max(0.0, min(now_s, self.billed_until_s) - self.created_s) / 3600


class Nodes:
    """All the nodes of one NodePool."""

    def __init__(self, pool: NodePoolSpec, cold_start: ColdStart, names: Names, seed: int, feed: Feed) -> None:
        self.all: dict[str, NodeState] = {}
        self._pool = pool
        self._cold_start = cold_start
        self._names = names
        self._rng = random.Random(f"nodes {seed}")
        self._feed = feed
        self._usd = 0.0
        self._gpu_hours = 0.0

    @property
    def grace_s(self) -> float:
        """How long draining may take."""
        grace_s = self._pool.termination_grace_period_s
        return NEVER if grace_s is None else grace_s

    def order(self, choice: Choice, holds: int, waiting: int, now_s: float) -> NodeState:
        """Buy one, for `choice.pods` of the `waiting` pods that found no room."""
        ready_s = now_s + self._cold_start.node_ready_s(self._rng)
        node = NodeState(self._names.node(), choice.offer, holds, now_s, ready_s, since_s=now_s)
        self.all[node.name] = node
        pods = count(waiting, "pod")
        reason = f"ordered: {pods}" if choice.pods >= waiting else f"ordered for {choice.pods} of {pods} that"
        self._feed.note(now_s, "node", "ordered", node.name, f"{choice.offer.title} {reason} found no room")
        return node

    def drain(self, node: NodeState, now_s: float, why: str, ends_s: float | None = None) -> None:
        """Let it take no new pods. What runs on it must be gone by `deadline_s`: Spot's end, or the grace period."""
        node.phase, node.since_s, node.ends_s = "draining", now_s, ends_s
        node.deadline_s = min(NEVER if ends_s is None else ends_s, now_s + self.grace_s)
        self._feed.note(now_s, "node", "draining", node.name, f"{node.offer.type.name} {short(node.name)} {why}")

    def place(self) -> NodeState | None:
        """Where the next pod goes: of the ready nodes with room the fullest, of those the oldest. (kube-scheduler's own
        default spreads; with one pod to a node both come to the same.)"""
        fits = (node for node in self.all.values() if node.phase == "ready" and node.room > 0)
        return max(fits, key=lambda node: (len(node.pods) / node.holds, -node.created_s), default=None)

    def bind(self, node: NodeState, pod: str, now_s: float) -> float:
        """Put a pod on it. When its image is or was there: the first pod has it fetched."""
        node.pods.add(pod)
        node.empty_s = None
        if node.image_s is None:
            node.image_s = now_s + self._cold_start.image_s.value
        return node.image_s

    def leave(self, name: str, pod: str, now_s: float) -> None:
        """The pod is on it no more."""
        node = self.all[name]
        node.pods.discard(pod)
        if not node.pods:
            node.empty_s = now_s

    def overdue(self, now_s: float) -> list[NodeState]:
        """Those on which pods are left past the deadline."""
        return [node for node in self.all.values() if node.pods and node.deadline_s <= now_s]

    def advance(self, now_s: float) -> None:
        """Let what is due happen. Pods on nodes past their deadline have been killed before."""
        for node in list(self.all.values()):
            if node.phase == "ordered" and node.ready_s <= now_s:
                node.phase, node.since_s, node.empty_s = "ready", now_s, now_s
                text = f"{node.offer.type.name} is ready, {lasted(now_s - node.created_s)} after it was ordered"
                self._feed.note(now_s, "node", "ready", node.name, text)
            elif node.phase == "draining":
                if node.gone_s is None and not node.pods:
                    node.billed_until_s = now_s
                    gone_s = now_s + self._cold_start.node_termination_s.value
                    node.gone_s = gone_s if node.ends_s is None else max(now_s, min(gone_s, node.ends_s))
                if node.gone_s is not None and node.gone_s <= now_s:
                    self._remove(node, now_s)

    def give_back_empty(self, now_s: float) -> None:
        """Karpenter's consolidation of nodes without pods. WhenEmptyOrUnderutilized does no more than this here: it
        does not move pods to fewer or cheaper nodes. Absent too: disruption budgets, drift, expiry."""
        for node in self.all.values():
            if self._given_back_s(node) <= now_s:
                self.drain(node, now_s, f"has been empty for {lasted(now_s - node.empty_s)} and is given back")

    def used(self) -> Counter[str]:
        """What counts towards the NodePool's limits."""
        total: Counter[str] = Counter()
        for node in self.all.values():
            total.update(capacity(node.offer.type))
        return total

    def usd(self, now_s: float) -> float:
        return self._usd + sum(node.hours(now_s) * node.offer.usd_per_hour for node in self.all.values())

    def gpu_hours(self, now_s: float) -> float:
        return self._gpu_hours + sum(node.hours(now_s) * node.offer.type.gpus for node in self.all.values())

    def due_s(self, now_s: float) -> float:
        """When the next thing happens to one of them by itself."""
        return min((self._node_due_s(node, now_s) for node in self.all.values()), default=NEVER)

    def _node_due_s(self, node: NodeState, now_s: float) -> float:
        if node.phase == "ordered":
            return node.ready_s
        if node.phase == "ready":
            return self._given_back_s(node)
        if node.gone_s is not None:
            return node.gone_s
        return node.deadline_s if node.pods else now_s

    def _given_back_s(self, node: NodeState) -> float:
        after_s = self._pool.consolidate_after_s
        if node.phase != "ready" or node.empty_s is None or after_s is None:
            return NEVER
        return node.empty_s + after_s

    def _remove(self, node: NodeState, now_s: float) -> None:
        del self.all[node.name]
        usd = node.hours(now_s) * node.offer.usd_per_hour
        self._usd += usd
        self._gpu_hours += node.hours(now_s) * node.offer.type.gpus
        what = f"{node.offer.type.name} ({kind(node.offer.capacity_type)})"
        text = f"{what} is gone after {lasted(now_s - node.created_s)}, for ${usd:.2f}"
        self._feed.note(now_s, "node", "removed", node.name, text)
