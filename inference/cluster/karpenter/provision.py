"""Karpenter's provisioning: gathers the pods that found no room, and orders nodes for them."""

from __future__ import annotations

from collections.abc import Sequence

from inference.cluster.karpenter.batch import Batch
from inference.cluster.karpenter.catalogue import Catalogue, kind
from inference.cluster.karpenter.choose import Choice, Chooser
from inference.cluster.karpenter.shortage import REMEMBERED_S, Shortage
from inference.cluster.plane_feed import Feed, count
from inference.cluster.plane_nodes import Nodes
from inference.cluster.plane_pods import PodState
from inference.cluster.spec import NodePoolSpec, PodSpec


class Provisioner:
    """For one NodePool and one kind of pod. `shortage` is told of what can't be had."""

    def __init__(self, catalogue: Catalogue, pool: NodePoolSpec, pod: PodSpec, nodes: Nodes, feed: Feed) -> None:
        self.batch = Batch()
        self.shortage = Shortage()
        self._chooser = Chooser(catalogue, pool, pod)
        self._pod = pod
        self._nodes = nodes
        self._feed = feed
        self._said = ""

    def advance(self, pending: Sequence[PodState], now_s: float) -> None:
        """Order what the pending pods need beyond the room that there is or is ordered, once the batch is due."""
        for pod in pending:
            if not pod.seen:
                pod.seen = True
                self.batch.add(now_s)
        if self.batch.due_s > now_s:
            return
        self.batch.close()
        if pending:
            self.batch.again(now_s)
        waiting = missing = len(pending) - sum(node.room for node in self._nodes.all.values())
        if missing <= 0:
            self._said = ""
        while missing > 0:
            choice = self._chooser.choose(missing, self._nodes.used(), lambda o: self.shortage.refused(o, now_s))
            if not isinstance(choice, Choice):
                self._say(f"No node for {count(missing, 'pod')}: {choice.why}", choice.why, now_s)
                return
            if choice.offer.type.name in self.shortage.unavailable:
                self._refuse(choice, now_s)
                continue
            self._said = ""
            missing -= choice.pods
            self._nodes.order(choice, choice.offer.type.holds(self._pod), waiting, now_s)

    def _refuse(self, choice: Choice, now_s: float) -> None:
        """AWS has none: of all the zones at once, as Karpenter asks for them in one CreateFleet."""
        name, capacity_type = choice.offer.type.name, choice.offer.capacity_type
        offers = self._chooser.offers(name, capacity_type)
        self.shortage.remember(offers, now_s)
        text = f"{name} ({kind(capacity_type)}) refused in {count(len(offers), 'zone')}: insufficient capacity"
        self._feed.note(now_s, "node", "refused", name, f"{text}, not asked for again within {REMEMBERED_S:.0f} s")

    def _say(self, text: str, why: str, now_s: float) -> None:
        """Once for as long as it stays so, though it is found out again every few seconds."""
        if why != self._said:
            self._said = why
            self._feed.note(now_s, "node", "refused", "", text)
