"""All that the API server has told → one view of the cluster. Pure: the same objects give the same view."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from inference.cluster.kubernetes.nodes import Price, view_nodes
from inference.cluster.kubernetes.objects import NOTHING, Object, event_s, name, time_s, uid
from inference.cluster.kubernetes.pods import end_of, last_end, view_pod
from inference.cluster.kubernetes.scaling import find_hpa, find_scaled_object, view_autoscaler
from inference.cluster.snapshot import Autoscaler, Node, Pod

REFUSED = "InsufficientCapacityError"
NOTICE = "SpotInterrupted"
FETCHING = {"Pulling": True, "Pulled": False}


@dataclass(frozen=True, slots=True)
class Scope:
    """What of the cluster is ours: the pods of one Deployment, and the nodes of one Karpenter NodePool or of all."""

    namespace: str = "default"
    deployment: str = "vllm"
    selector: str = "app.kubernetes.io/name=vllm"
    node_pool: str | None = None


@dataclass(frozen=True, slots=True)
class World:
    """The objects as last heard. None: not listed yet, or not to be had (no such resource, no right to read it)."""

    pods: Collection[Object] | None = None
    nodes: Collection[Object] | None = None
    claims: Collection[Object] | None = None
    hpas: Collection[Object] | None = None
    scaled_objects: Collection[Object] | None = None
    events: Collection[Object] | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Karpenter could not buy a node: `subject` is the NodeClaim."""

    at_s: float
    subject: str
    message: str


@dataclass(frozen=True, slots=True)
class View:
    """`pods` by uid and `nodes` by a lasting key; each part is None while it is not known, so that what is merely heard
    of late is not taken for new. `ended` says why pods of that uid are over, `last_ends` how a container last ended.
    `ordering` says whether orders for nodes are seen, `subject` is what is scaled, `scaled_s` when the HPA last did."""

    subject: str
    pods: Mapping[str, Pod] | None = None
    nodes: Mapping[str, Node] | None = None
    ordering: bool = False
    autoscaler: Autoscaler | None = None
    scaled_s: float | None = None
    ended: Mapping[str, str] = field(default_factory=dict)
    last_ends: Mapping[str, str] = field(default_factory=dict)
    notices: Mapping[str, float] | None = None
    refusals: Mapping[str, Refusal] | None = None

    @property
    def ready(self) -> int:
        return sum(pod.phase == "ready" for pod in (self.pods or {}).values())


def look(
    world: World,
    scope: Scope,
    price: Price,
    gauges: Mapping[str, tuple[int, int]] | None = None,
    triggers: Mapping[str, float | None] | None = None,
) -> View:
    """`gauges` are the requests running and waiting by pod, `triggers` the values of KEDA's queries, where known."""
    events = world.events or ()
    notices = _notices(events)
    living = [it for it in world.pods or () if end_of(it) is None]
    pulling = _pulling(events)
    pods = {uid(it): view_pod(it, pulling, gauges or {}) for it in living}
    carrying = {pod.node for pod in pods.values() if pod.node}
    hpa = find_hpa(world.hpas or (), scope.deployment)
    staying = sum(pod.phase != "terminating" for pod in pods.values())
    return View(
        subject=scope.deployment,
        pods=None if world.pods is None else pods,
        nodes=None
        if world.nodes is None
        else view_nodes(world.nodes, world.claims, carrying, notices, price, scope.node_pool),
        ordering=world.claims is not None,
        autoscaler=view_autoscaler(
            find_scaled_object(world.scaled_objects or (), scope.deployment),
            hpa,
            staying,
            triggers,
        ),
        scaled_s=time_s((hpa or NOTHING).get("status", NOTHING).get("lastScaleTime")),
        ended={uid(it): why for it in world.pods or () if (why := end_of(it))},
        last_ends={uid(it): last_end(it) for it in living},
        notices=None if world.events is None else notices,
        refusals=None if world.events is None else _refusals(events),
    )


def _pulling(events: Iterable[Object]) -> dict[str, bool]:
    """By a pod's uid, as the kubelet last told."""
    told = sorted((one for one in events if one.get("reason") in FETCHING), key=event_s)
    return {one.get("involvedObject", NOTHING).get("uid", ""): FETCHING[one["reason"]] for one in told}


def _notices(events: Iterable[Object]) -> dict[str, float]:
    """Karpenter tells of one interruption with an Event on the NodeClaim, one on the Node and one on each pod."""
    found: dict[str, float] = {}
    for one in events:
        about = one.get("involvedObject", NOTHING)
        if one.get("reason") == NOTICE and about.get("kind") in ("Node", "NodeClaim"):
            found[about.get("name", "")] = event_s(one)
    return found


def _refusals(events: Iterable[Object]) -> dict[str, Refusal]:
    """An Event that happens again is the same object with a higher count."""
    return {
        f"{uid(one)}/{one.get('count') or 1}": Refusal(
            event_s(one), one.get("involvedObject", NOTHING).get("name", name(one)), one.get("message", "")
        )
        for one in events
        if one.get("reason") == REFUSED
    }
