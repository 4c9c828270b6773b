"""Nodes and Karpenter's NodeClaims → the nodes of the view. Pure.

A NodeClaim is an order: it is there before its Node, and is what Karpenter deletes first. Without Karpenter the nodes
that carry a pod are shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Set
from typing import Literal

from inference.cluster.kubernetes.objects import (
    NOTHING,
    Object,
    annotation,
    changed_s,
    condition,
    created_s,
    deleted_s,
    is_true,
    label,
    name,
    time_s,
)
from inference.cluster.snapshot import Node, NodePhase

Price = Callable[[str, str, str], float | None]
"""US dollars an hour of an instance type, capacity type and zone; None where it is not known."""

NOTICE_S = 120.0  # what AWS gives a Spot instance
INSTANCE_TYPE = "node.kubernetes.io/instance-type"
CAPACITY_TYPE = ("karpenter.sh/capacity-type", "eks.amazonaws.com/capacityType")
ZONE = "topology.kubernetes.io/zone"
NODE_POOL = "karpenter.sh/nodepool"
DISRUPTED = "karpenter.sh/disrupted"  # the taint of a node that Karpenter empties
TERMINATES = "karpenter.sh/nodeclaim-termination-timestamp"  # when a drain that takes too long is cut short


def view_nodes(
    nodes: Iterable[Object],
    claims: Iterable[Object] | None,
    carrying: Set[str],
    notices: Mapping[str, float],
    price: Price,
    node_pool: str | None = None,
) -> dict[str, Node]:
    """The nodes, by a key that stays while an ordered one becomes a real one of another name.

    `claims` is None without Karpenter; `carrying` are the names of the nodes that have a pod; `notices` says, by the
    name of node or claim, when a Spot interruption was announced; `node_pool` leaves out those of other pools.
    """
    by_name = {name(node): node for node in nodes}
    found: dict[str, Node] = {}
    owned: set[str] = set()
    for claim in claims or ():
        node = by_name.get(claim.get("status", NOTHING).get("nodeName") or "")
        if node is not None:
            owned.add(name(node))
        if node_pool is None or label(claim, NODE_POOL) == node_pool or (node and name(node) in carrying):
            found[name(claim)] = _view(node, claim, notices, price)
    for node_name, node in by_name.items():
        if node_name not in owned and (node_name in carrying or (node_pool and label(node, NODE_POOL) == node_pool)):
            found[node_name] = _view(node, None, notices, price)
    return found


def _view(node: Object | None, claim: Object | None, notices: Mapping[str, float], price: Price) -> Node:
    known = [it for it in (node, claim) if it is not None]
    notice_s = next((notices[name(it)] for it in known if name(it) in notices), None)
    phase, since_s = _phase(node, claim, notice_s)
    instance_type = next((found for it in known if (found := label(it, INSTANCE_TYPE))), "")
    capacity_type = _capacity_type(next((found for it in known if (found := label(it, *CAPACITY_TYPE))), ""))
    zone = next((found for it in known if (found := label(it, ZONE))), "")
    return Node(
        name=name(known[0]),
        phase=phase,
        created_s=min(created_s(it) for it in known),
        since_s=since_s,
        instance_type=instance_type,
        capacity_type=capacity_type,
        zone=zone,
        usd_per_hour=price(instance_type, capacity_type, zone) if instance_type else None,
        ends_s=_ends_s(claim, notice_s),
    )


def _phase(node: Object | None, claim: Object | None, notice_s: float | None) -> tuple[NodePhase, float]:
    """And since when. A node that was usable and is heard no more loses its pods, as a draining one does."""
    known = [it for it in (claim, node) if it is not None]
    born_s = min(created_s(it) for it in known)
    deleted = [at_s for it in known if (at_s := deleted_s(it)) is not None]
    if deleted:
        return "draining", min(deleted)
    if node is None:
        return "ordered", born_s
    spec = node.get("spec", NOTHING)
    ready_s = changed_s(node, "Ready") or born_s
    initialized = claim is None or is_true(claim, "Initialized")
    if any(taint.get("key") == DISRUPTED for taint in spec.get("taints") or ()) or spec.get("unschedulable"):
        return "draining", notice_s or ready_s
    if is_true(node, "Ready") and initialized:
        return "ready", max(ready_s, (claim and changed_s(claim, "Initialized")) or 0.0)
    if condition(node, "Ready").get("status") == "Unknown" or (claim is not None and initialized):
        return "draining", ready_s
    return "ordered", born_s


def _ends_s(claim: Object | None, notice_s: float | None) -> float | None:
    if notice_s is not None:
        return notice_s + NOTICE_S
    return time_s(annotation(claim, TERMINATES)) if claim is not None else None


def _capacity_type(value: str) -> Literal["spot", "on-demand", ""]:
    """EKS' own node groups write `SPOT` and `ON_DEMAND`; Karpenter's `reserved` is neither."""
    word = value.lower().replace("_", "-")
    return "spot" if word == "spot" else "on-demand" if word == "on-demand" else ""
