"""The manifests that a cluster gets, read as what they mean: the Deployment, ScaledObject, PodMonitor and NodePool.

What is not read here (images, volumes, tags) decides nothing in a rehearsal. What is read is checked as strictly as the
API server and the controllers would, or more so: a number that would be dropped without a word must not pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from inference.cluster import kustomize
from inference.cluster.autoscaling import expression, promql
from inference.cluster.fields import GIB, ManifestError, Place
from inference.cluster.kustomize import Document
from inference.cluster.spec import (
    ClusterSpec,
    Fallback,
    NodePoolSpec,
    PodSpec,
    Policy,
    Requirement,
    Rules,
    ScalingSpec,
    Trigger,
)

__all__ = ("ManifestError", "defaults", "load")

MetricType = Literal["AverageValue", "Value"]
Behavior = Literal["static", "currentReplicas", "currentReplicasIfHigher", "currentReplicasIfLower"]
SCALED = (
    *("scaleTargetRef", "pollingInterval", "cooldownPeriod", "minReplicaCount", "maxReplicaCount"),
    *("advanced", "fallback", "triggers"),
)
FALLBACKS: tuple[Behavior, ...] = ("static", "currentReplicas", "currentReplicasIfHigher", "currentReplicasIfLower")
GPU = "nvidia.com/gpu"
METRIC_TYPES: tuple[MetricType, ...] = ("AverageValue", "Value")
# What the HPA takes where a manifest says nothing: kubernetes.io/docs/reference, HorizontalPodAutoscalerBehavior
DEFAULT_UP = Rules((Policy("Percent", 100, 15.0), Policy("Pods", 4, 15.0)))
DEFAULT_DOWN = Rules((Policy("Percent", 100, 15.0),), stabilization_s=300.0)


def defaults() -> Path:
    """The folder with our own manifests."""
    return Path(__file__).resolve().parents[2] / "infra" / "kustomize" / "base"


def load(folder: Path) -> ClusterSpec:
    """What the kustomization in `folder` asks for. Raises ManifestError with file, line, field and what would be
    right."""
    documents = kustomize.build(folder)
    deployment = _one(documents, "Deployment", folder)
    scaled = _one(documents, "ScaledObject", folder)
    monitor = _one(documents, "PodMonitor", folder)
    pool = _one(documents, "NodePool", folder)
    target = scaled.top.need("spec.scaleTargetRef.name", "the Deployment's name")
    if target.text() != deployment.name:
        raise target.wrong(f"{target.text()!r} is not there; the Deployment is {deployment.name!r}")
    pod, port = _pod(deployment.top)
    return ClusterSpec(pod, _scaling(scaled.top), _node_pool(pool.top), _interval_s(monitor.top, pod, port))


def _one(documents: Sequence[Document], kind: str, folder: Path) -> Document:
    found = [document for document in documents if document.kind == kind]
    if not found:
        raise ManifestError(str(folder), 0, "resources", f"no {kind}; one is wanted")
    if len(found) > 1:
        raise found[1].top.wrong(f"a second {kind}; one is wanted")
    return found[0]


def _pod(top: Place) -> tuple[PodSpec, str]:
    """The pod, and the name of its port."""
    spec = top.need("spec.template.spec", "the pod")
    container = _first(spec.need("containers", "the vLLM container"), "container")
    resources = container.need("resources", "requests with cpu, memory and the GPU in limits")
    port = _first(container.need("ports", "a port named http"), "port")
    probe = container.need("readinessProbe", "a probe of /health")
    pre_stop = container.find("lifecycle.preStop")
    if pre_stop:
        pre_stop.only(("sleep",), dict.fromkeys(("exec", "httpGet"), "only `sleep: {seconds: 15}` can be followed"))
    replicas, grace = top.find("spec.replicas"), spec.get("terminationGracePeriodSeconds")
    labels = top.need("spec.template.metadata.labels", "labels to select pods by")
    pod = PodSpec(
        cpu=_resource(resources, "cpu"),
        memory_gib=_resource(resources, "memory") / GIB,
        gpus=_gpus(resources),
        replicas=replicas.whole(0) if replicas else 1,
        args=tuple(item.text() for item in container.need("args", "vLLM's arguments").items()),
        port=port.need("containerPort", "a number").whole(1, 65535),
        probe_path=probe.need("httpGet.path", "the path that answers when vLLM can serve").text(),
        probe_period_s=_seconds(probe, "periodSeconds", 1, 10.0),
        probe_failures=int(_seconds(probe, "failureThreshold", 1, 3.0)),
        pre_stop_s=float(pre_stop.need("sleep.seconds", "seconds").whole(0)) if pre_stop else 0.0,
        grace_period_s=float(grace.whole(0)) if grace else 30.0,
        labels={key: label.text() for key, label in labels.entries().items()},
    )
    return pod, port.need("name", "a name such as http").text()


def _resource(resources: Place, name: str) -> float:
    """What is requested; without a request that is the limit."""
    found = resources.find(f"requests.{name}") or resources.find(f"limits.{name}")
    if not found:
        raise resources.wrong(f"requests.{name} is missing; give what the pod needs, so that Karpenter can choose")
    value = found.quantity()
    if value <= 0:
        raise found.wrong("must be more than 0")
    return value


def _gpus(resources: Place) -> int:
    limits = resources.find("limits")
    place = limits.get(GPU) if limits else None
    if place is None:
        raise resources.wrong(f"limits.{GPU} is missing; give how many GPUs, for instance 1")
    value = place.quantity()
    if value < 1 or value != int(value):
        raise place.wrong("whole GPUs are wanted, 1 or more")
    return int(value)


def _scaling(top: Place) -> ScalingSpec:
    spec = top.need("spec", "what scales and by what")
    spec.only(SCALED)
    triggers_at = spec.need("triggers", "at least one trigger of type prometheus")
    triggers: list[Trigger] = []
    for place in triggers_at.items():
        trigger = _trigger(place)
        if any(trigger.name == other.name for other in triggers):
            raise place.need("name", "a name").wrong(f"{trigger.name!r} comes twice; give each trigger its own name")
        triggers.append(trigger)
    if not triggers:
        raise triggers_at.wrong("is empty; at least one trigger of type prometheus is wanted")
    low, high = _count(spec, "minReplicaCount", 0, 0), _count(spec, "maxReplicaCount", 1, 100)
    if low > high:
        place = spec.get("minReplicaCount") or spec
        raise place.wrong(f"{low} is more than maxReplicaCount, {high}")
    modifiers = spec.find("advanced.scalingModifiers")
    metric_type = _metric_type(modifiers, triggers_at)
    formula, target, activation = "", triggers[0].threshold, 0.0
    if modifiers:
        formula, target, activation = _modifiers(modifiers, triggers)
    behavior = spec.find("advanced.horizontalPodAutoscalerConfig.behavior")
    if behavior:
        behavior.only(("scaleUp", "scaleDown"))
    return ScalingSpec(
        min_replicas=low,
        max_replicas=high,
        triggers=tuple(triggers),
        formula=formula,
        target=target,
        activation_target=activation,
        metric_type=metric_type,
        fallback=_fallback(spec.get("fallback"), modifiers),
        up=_rules(behavior.get("scaleUp") if behavior else None, DEFAULT_UP),
        down=_rules(behavior.get("scaleDown") if behavior else None, DEFAULT_DOWN),
        polling_interval_s=_seconds(spec, "pollingInterval", 1, 30.0),
        cooldown_s=_seconds(spec, "cooldownPeriod", 0, 300.0),
    )


def _trigger(place: Place) -> Trigger:
    place.only(("type", "name", "metadata", "metricType"), {"useCachedMetrics": "cached values would be older still"})
    place.need("type", "prometheus").one_of(("prometheus",))
    metadata = place.need("metadata", "serverAddress, query and threshold")
    metadata.only(("serverAddress", "query", "threshold", "activationThreshold", "ignoreNullValues"))
    metadata.need("serverAddress", "Prometheus' address").text()
    query = metadata.need("query", "PromQL with one result")
    try:
        promql.parse(query.text())
    except promql.QueryError as error:
        raise query.wrong(f"can't be worked out here: {error}") from None
    threshold = metadata.need("threshold", "the target of one pod, in quotes")
    if threshold.number() <= 0:
        raise threshold.wrong("must be more than 0")
    activation, ignore = metadata.get("activationThreshold"), metadata.get("ignoreNullValues")
    return Trigger(
        name=place.need("name", "a name that the formula can use").text(),
        query=query.text(),
        threshold=threshold.number(),
        activation_threshold=activation.number() if activation else 0.0,
        ignore_null=ignore.flag() if ignore else True,
    )


def _metric_type(modifiers: Place | None, triggers: Place) -> MetricType:
    """That of the formula, or of the triggers, which must agree on one."""
    given = [place.get("metricType") for place in ([modifiers] if modifiers else triggers.items())]
    found = [place.one_of(METRIC_TYPES) if place else "AverageValue" for place in given]
    if len(set(found)) > 1:
        raise triggers.wrong("metricType differs between triggers, which is not simulated; give all the same")
    return found[0]


def _modifiers(place: Place, triggers: Sequence[Trigger]) -> tuple[str, float, float]:
    """Formula, target and activation target."""
    place.only(("formula", "target", "activationTarget", "metricType"))
    formula = place.need("formula", "an expression of the triggers' names")
    try:
        names = expression.parse(formula.text()).names
    except expression.ExpressionError as error:
        raise formula.wrong(f"is no formula: {error}") from None
    known = [trigger.name for trigger in triggers]
    if unknown := sorted(names - set(known)):
        raise formula.wrong(f"{', '.join(unknown)} is no trigger; known: {', '.join(known)}")
    if not names:
        raise formula.wrong(f"names no trigger; known: {', '.join(known)}")
    target = place.need("target", "the target of one pod, in quotes")
    if target.number() <= 0:
        raise target.wrong("must be more than 0")
    activation = place.get("activationTarget")
    return formula.text(), target.number(), activation.number() if activation else 0.0


def _fallback(place: Place | None, modifiers: Place | None) -> Fallback | None:
    if place is None:
        return None
    place.only(("failureThreshold", "replicas", "behavior"))
    target = modifiers.need("target", "a number") if modifiers else None
    if target and not target.text().isdecimal():
        raise target.wrong('with a fallback KEDA reads this as a whole number: "25" works, "25.0" does not')
    behavior = place.get("behavior")
    return Fallback(
        failure_threshold=place.need("failureThreshold", "a number of failures").whole(0),
        replicas=place.need("replicas", "a number of pods").whole(0),
        behavior=behavior.one_of(FALLBACKS) if behavior else "static",
    )


def _rules(place: Place | None, default: Rules) -> Rules:
    if place is None:
        return default
    place.only(("policies", "selectPolicy", "stabilizationWindowSeconds"))
    select, policies = place.get("selectPolicy"), place.get("policies")
    chosen = select.one_of(("Max", "Min", "Disabled")) if select else "Max"
    found = tuple(_policy(item) for item in policies.items()) if policies else default.policies
    if not found:
        raise place.wrong("policies is empty; at least one is wanted, or none at all for the default")
    window_s = _seconds(place, "stabilizationWindowSeconds", 0, default.stabilization_s, 3600)
    return Rules(found, chosen, window_s)


def _policy(place: Place) -> Policy:
    place.only(("type", "value", "periodSeconds"))
    return Policy(
        type=place.need("type", "Pods or Percent").one_of(("Pods", "Percent")),
        value=place.need("value", "a whole number").whole(1),
        period_s=float(place.need("periodSeconds", "1 to 1800").whole(1, 1800)),
    )


def _node_pool(top: Place) -> NodePoolSpec:
    spec = top.need("spec", "template, limits and disruption")
    misplaced = "it belongs into spec.template.spec"
    known = ("template", "disruption", "limits", "weight")
    spec.only(known, {"expireAfter": misplaced, "terminationGracePeriod": misplaced, "requirements": misplaced})
    node = spec.need("template.spec", "requirements and nodeClassRef")
    expiry, grace = node.get("expireAfter"), node.get("terminationGracePeriod")
    if expiry and not _never(expiry):
        expiry.duration_s()
    disruption = spec.need("disruption", "consolidationPolicy and consolidateAfter")
    after = disruption.need("consolidateAfter", "a duration or Never")
    limits = spec.get("limits")
    return NodePoolSpec(
        requirements=tuple(_requirement(item) for item in node.need("requirements", "what a node may be").items()),
        limits={key: _limit(key, limit) for key, limit in limits.entries().items()} if limits else {},
        consolidation=disruption.need("consolidationPolicy", "WhenEmpty").one_of(
            ("WhenEmpty", "WhenEmptyOrUnderutilized")
        ),
        consolidate_after_s=None if _never(after) else after.duration_s(),
        termination_grace_period_s=grace.duration_s() if grace else None,
    )


def _requirement(place: Place) -> Requirement:
    place.only(("key", "operator", "values"))
    operator = place.need("operator", "In").one_of(("In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"))
    values = place.get("values")
    given = tuple(item.text() for item in values.items()) if values else ()
    if operator in ("Gt", "Lt") and not (len(given) == 1 and given[0].isdecimal()):
        raise (values or place).wrong(f"{operator} takes one whole number in quotes")
    if (operator in ("In", "NotIn")) != bool(given) and operator not in ("Gt", "Lt"):
        raise (values or place).wrong(f"{operator} takes {'no values' if given else 'at least one value'}")
    return Requirement(place.need("key", "a label of the node").text(), operator, given)


def _limit(resource: str, limit: Place) -> float:
    value = limit.quantity()
    return value / GIB if resource == "memory" else value


def _interval_s(top: Place, pod: PodSpec, port: str) -> float:
    """How often the pods are scraped, once it is sure that they are."""
    selector = top.need("spec.selector.matchLabels", "the pods' labels")
    for key, label in selector.entries().items():
        if pod.labels.get(key) != label.text():
            raise label.wrong(f"selects no pod: theirs is {pod.labels.get(key)!r}")
    endpoint = _first(top.need("spec.podMetricsEndpoints", "a port, a path and an interval"), "endpoint")
    name = endpoint.need("port", "the port's name")
    if name.text() != port:
        raise name.wrong(f"the pods have no port {name.text()!r}; theirs is {port!r}")
    interval = endpoint.need("interval", "a duration such as 5s")
    if interval.duration_s() <= 0:
        raise interval.wrong("must be more than 0")
    return interval.duration_s()


def _first(place: Place, noun: str) -> Place:
    items = place.items()
    if not items:
        raise place.wrong(f"is empty; a {noun} is wanted")
    return items[0]


def _count(spec: Place, key: str, low: int, default: int) -> int:
    place = spec.get(key)
    return place.whole(low) if place else default


def _seconds(spec: Place, key: str, low: int, default: float, high: int = 2**31 - 1) -> float:
    place = spec.get(key)
    return float(place.whole(low, high)) if place else default


def _never(place: Place) -> bool:
    return place.node.value == "Never"
