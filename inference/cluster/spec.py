"""What the manifests ask for, as far as it decides how a cluster behaves. Plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal


@dataclass(frozen=True, slots=True)
class PodSpec:
    """The Deployment's pods. `cpu` in cores, `memory_gib` in GiB."""

    cpu: float
    memory_gib: float
    gpus: int
    replicas: int
    args: tuple[str, ...]
    port: int
    probe_path: str
    probe_period_s: float
    probe_failures: int
    pre_stop_s: float
    grace_period_s: float
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def arguments(self) -> dict[str, str]:
        """Those of `args` that have a value, by name: written `--name value` or `--name=value`."""
        words = [word for arg in self.args for word in (arg.split("=", 1) if arg.startswith("--") else [arg])]
        return {name: value for name, value in pairwise(words) if name.startswith("--")}


@dataclass(frozen=True, slots=True)
class Trigger:
    """A `prometheus` trigger. Its value is that of `query`; without a result it is 0 where `ignore_null`, else an
    error."""

    name: str
    query: str
    threshold: float
    activation_threshold: float = 0.0
    ignore_null: bool = True


@dataclass(frozen=True, slots=True)
class Fallback:
    failure_threshold: int
    replicas: int
    behavior: Literal["static", "currentReplicas", "currentReplicasIfHigher", "currentReplicasIfLower"] = "static"


@dataclass(frozen=True, slots=True)
class Policy:
    """At most `value` (pods, or per cent of them) in `period_s`."""

    type: Literal["Pods", "Percent"]
    value: int
    period_s: float


@dataclass(frozen=True, slots=True)
class Rules:
    """One direction of the HPA's behavior."""

    policies: tuple[Policy, ...]
    select: Literal["Max", "Min", "Disabled"] = "Max"
    stabilization_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ScalingSpec:
    """The ScaledObject. `formula` is empty where the triggers count one by one; then each has its own target."""

    min_replicas: int
    max_replicas: int
    triggers: tuple[Trigger, ...]
    formula: str
    target: float
    activation_target: float
    metric_type: Literal["AverageValue", "Value"]
    fallback: Fallback | None
    up: Rules
    down: Rules
    polling_interval_s: float = 30.0
    cooldown_s: float = 300.0


@dataclass(frozen=True, slots=True)
class Requirement:
    """One of a NodePool's: a label of the node, and what it may be."""

    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NodePoolSpec:
    """`limits` by resource (`cpu`, `memory` in GiB, `nvidia.com/gpu`). `consolidate_after_s` None stands for `Never`;
    `termination_grace_period_s` None for no bound."""

    requirements: tuple[Requirement, ...]
    limits: Mapping[str, float]
    consolidation: Literal["WhenEmpty", "WhenEmptyOrUnderutilized"]
    consolidate_after_s: float | None
    termination_grace_period_s: float | None = None


@dataclass(frozen=True, slots=True)
class ClusterSpec:
    """All that the local cluster reads from the manifests."""

    pod: PodSpec
    scaling: ScalingSpec
    node_pool: NodePoolSpec
    scrape_interval_s: float
