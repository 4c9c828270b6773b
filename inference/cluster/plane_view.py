"""Pods and nodes as a snapshot shows them."""

from __future__ import annotations

from collections.abc import Sequence

from inference.cluster.plane_nodes import NodeState
from inference.cluster.plane_pods import PodState
from inference.cluster.snapshot import Node, Pod
from inference.cluster.spec import PodSpec

MAX_NUM_SEQS = "--max-num-seqs"


def pod_view(pod: PodState, spec: PodSpec) -> Pod:
    return Pod(
        name=pod.name,
        phase=pod.phase,
        created_s=pod.created_s,
        since_s=pod.since_s,
        node=pod.node,
        step=pod.step,
        url=pod.url,
        running=pod.running,
        waiting=pod.waiting,
        max_running=max_running(spec.args),
        restarts=pod.restarts,
    )


def node_view(node: NodeState) -> Node:
    return Node(
        name=node.name,
        phase=node.phase,
        created_s=node.created_s,
        since_s=node.since_s,
        instance_type=node.offer.type.name,
        capacity_type=node.offer.capacity_type,
        zone=node.offer.zone,
        usd_per_hour=node.offer.usd_per_hour,
        ends_s=node.ends_s,
    )


def max_running(args: Sequence[str], default: int = 32) -> int:
    """How many sequences the engine runs at once, from its arguments."""
    for arg, following in zip(args, [*args[1:], ""], strict=True):
        name, _, value = arg.partition("=")
        if name == MAX_NUM_SEQS and (value or following).isdigit():
            return int(value or following)
    return default
