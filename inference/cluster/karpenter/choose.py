"""Which machine to buy for pods that found no room: the cheapest that the NodePool allows and that fits.

As Karpenter does: the NodePool's requirements on a node's labels, its limits, no offer that was refused within the
last three minutes, and no Spot that costs more than on-demand. Otherwise than Karpenter, which fills the largest type
allowed before it looks at prices, the price per pod decides between one large node and several small ones; with one GPU
to a node, as our NodePool has it, both come to the same. Absent: weights and several NodePools, minValues, topology
spread, affinity, daemons' requests, and Spot's own weighing of how likely a pool is to be taken back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from inference.cluster.karpenter.catalogue import Catalogue, InstanceType, Offer
from inference.cluster.spec import NodePoolSpec, PodSpec, Requirement

ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Choice:
    """Buy this; it takes so many of the pods."""

    offer: Offer
    pods: int


@dataclass(frozen=True, slots=True)
class NoChoice:
    """Nothing can be bought; says why in one sentence. `limited` where it is the NodePool's limits that forbid it."""

    why: str
    limited: bool = False


def allows(requirement: Requirement, labels: Mapping[str, str]) -> bool:
    """Whether a node with these labels meets it. A label that is not there meets NotIn and DoesNotExist only."""
    value = labels.get(requirement.key)
    match requirement.operator:
        case "In":
            return value in requirement.values
        case "NotIn":
            return value not in requirement.values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt":
            return value is not None and float(value) > float(requirement.values[0])
        case "Lt":
            return value is not None and float(value) < float(requirement.values[0])


def capacity(shape: InstanceType) -> dict[str, float]:
    """What a node counts towards the NodePool's limits: all of the machine, not only what pods may use."""
    return {"cpu": shape.vcpu, "memory": shape.capacity_gib, "nvidia.com/gpu": shape.gpus, "nodes": 1}


class Chooser:
    """Chooses for one NodePool and one kind of pod."""

    def __init__(self, catalogue: Catalogue, pool: NodePoolSpec, pod: PodSpec) -> None:
        self._pool = pool
        self._pod = pod
        allowed = [o for o in catalogue.offers if all(allows(r, o.labels) for r in pool.requirements)]
        self._allowed_types = len({offer.type.name for offer in allowed})
        self._types = len(catalogue.type_names)
        self._fitting = [(offer, offer.type.holds(pod)) for offer in allowed if offer.type.holds(pod) > 0]

    def offers(self, type_name: str, capacity_type: str) -> list[Offer]:
        """The zones of a type that could have been chosen."""
        return [o for o, _ in self._fitting if (o.type.name, o.capacity_type) == (type_name, capacity_type)]

    def choose(self, pods: int, used: Mapping[str, float], refused: Callable[[Offer], bool]) -> Choice | NoChoice:
        """For so many pods, with `used` counted towards the limits so far. The cheapest per pod that it would take; of
        equal ones Spot, then the one that takes more."""
        if not self._fitting:
            return NoChoice(self._why_none_fits())
        within = [(offer, holds) for offer, holds in self._fitting if self._within_limits(offer.type, used)]
        if not within:
            return NoChoice(self._why_limited(used), limited=True)
        left = [(offer, min(holds, pods)) for offer, holds in within if not refused(offer)]
        if not left:
            names = ", ".join(dict.fromkeys(offer.type.name for offer, _ in within))
            return NoChoice(f"no capacity is to be had of any type that fits ({names})")
        offer, takes = min(
            left, key=lambda one: (one[0].usd_per_hour / one[1], one[0].capacity_type != "spot", -one[1], one[0].key)
        )
        return Choice(offer, takes)

    def _within_limits(self, shape: InstanceType, used: Mapping[str, float]) -> bool:
        more = capacity(shape)
        return all(
            used.get(resource, 0) + more.get(resource, 0) <= limit + ROUNDING
            for resource, limit in self._pool.limits.items()
        )

    def _why_none_fits(self) -> str:
        if not self._allowed_types:
            return f"none of {self._types} known instance types meets the NodePool's requirements"
        pod = self._pod
        return (
            f"none of the {self._allowed_types} instance types that the NodePool allows has room for a pod of "
            f"{pod.cpu:g} CPU, {pod.memory_gib:g} GiB and {pod.gpus} GPU"
        )

    def _why_limited(self, used: Mapping[str, float]) -> str:
        reached = ", ".join(
            f"{resource} {used.get(resource, 0):g} of {limit:g}" for resource, limit in self._pool.limits.items()
        )
        return f"another node would exceed the NodePool's limits ({reached} in use)"
