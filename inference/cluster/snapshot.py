"""What a cluster looks like at one moment, wherever it runs: plain data, and its JSON. Times are Unix seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

PodPhase = Literal["pending", "image", "starting", "ready", "unready", "terminating"]
"""`pending`: no node has room. `image`: on a node, the container is being fetched. `starting`: it runs and is not ready
yet. `unready`: it was ready and fails its probe."""
NodePhase = Literal["ordered", "ready", "draining"]
"""`ordered`: bought, not yet usable. `draining`: it takes no new pods and loses those that it has."""
Kind = Literal[
    "metric",  # the metric crossed KEDA's target, either way
    "scale",  # the number of pods asked for has changed
    "hold",  # a person has paused, resumed or set the scaling
    "pod",  # a pod was made, scheduled, ready, lost, removed
    "node",  # a node was ordered, ready, refused for lack of capacity, removed
    "interruption",  # a Spot node was given notice
    "chaos",  # a person has broken or mended something
    "source",  # the view itself: lost the API server, found it again
]


@dataclass(frozen=True, slots=True)
class Pod:
    """`step` is finer than the phase where that is known (`imports`, `weights`, `compile`). `since_s` is when the phase
    began. `running` and `waiting` are the replica's own gauges as last scraped; None before the first."""

    name: str
    phase: PodPhase
    created_s: float
    since_s: float
    node: str | None = None
    step: str = ""
    url: str | None = None
    running: int | None = None
    waiting: int | None = None
    max_running: int = 32
    restarts: int = 0


@dataclass(frozen=True, slots=True)
class Node:
    """`usd_per_hour` is None where no price is known. `ends_s` is when a node under notice is taken away."""

    name: str
    phase: NodePhase
    created_s: float
    since_s: float
    instance_type: str
    capacity_type: Literal["spot", "on-demand", ""]
    zone: str = ""
    usd_per_hour: float | None = None
    ends_s: float | None = None


@dataclass(frozen=True, slots=True)
class Autoscaler:
    """What KEDA and the HPA make of the load. `metric` is the formula's value, None while it can't be had; `target` is
    per pod, as the metric is divided by it. `triggers` are the values that went in, by name. `why` says in one sentence
    with its numbers why `desired` is what it is. `pinned` is the number of pods that a person has set instead."""

    min_replicas: int
    max_replicas: int
    desired: int
    target: float
    metric: float | None = None
    formula: str = ""
    triggers: Mapping[str, float | None] | None = None
    why: str = ""
    pinned: int | None = None
    held: bool = False
    fallback: bool = False


@dataclass(frozen=True, slots=True)
class Happening:
    """Something worth a line on the stage. `seq` grows by one; `subject` is the pod's, node's or type's name; `what` is
    a fixed word for programs (`ordered`, `ready`, `scaled`, `crossed` …), `text` a sentence for people."""

    seq: int
    at_s: float
    kind: Kind
    what: str
    subject: str
    text: str


@dataclass(frozen=True, slots=True)
class ClusterSnapshot:
    """`source` is `local` or `kubernetes`. `speed_up` is by how much cold starts are faster than in life, None where
    they are real. `heard_s` is when the source was last heard, so that a view that is cut off can say how old it is.
    `happenings` are the latest, oldest first."""

    at_s: float
    heard_s: float
    source: Literal["local", "kubernetes"]
    simulated: bool
    pods: tuple[Pod, ...]
    nodes: tuple[Node, ...]
    autoscaler: Autoscaler | None = None
    speed_up: float | None = None
    happenings: tuple[Happening, ...] = ()

    @property
    def ready(self) -> int:
        return sum(pod.phase == "ready" for pod in self.pods)

    @property
    def usd_per_hour(self) -> float | None:
        """Of all nodes, ordered ones too; None when the price of one is not known."""
        prices = [node.usd_per_hour for node in self.nodes]
        known = [price for price in prices if price is not None]
        return sum(known) if len(known) == len(prices) else None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ClusterSnapshot:
        """Raises TypeError or KeyError for what `to_json` did not make."""
        autoscaler = data["autoscaler"]
        return cls(
            **{
                **data,
                "pods": tuple(Pod(**pod) for pod in data["pods"]),
                "nodes": tuple(Node(**node) for node in data["nodes"]),
                "autoscaler": None if autoscaler is None else Autoscaler(**autoscaler),
                "happenings": tuple(Happening(**one) for one in data["happenings"]),
            }
        )
