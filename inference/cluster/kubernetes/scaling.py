"""KEDA's ScaledObject and the HPA that it made → what decides the number of pods, and why. Pure.

The reasons are those of the HPA controller's conditions (Kubernetes: pkg/controller/podautoscaler/horizontal.go). KEDA
deletes the HPA while it is paused, so without one there may still be an answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import ceil

from inference.cluster.kubernetes.objects import NOTHING, Object, annotation, condition, is_true
from inference.cluster.plane_feed import count
from inference.cluster.snapshot import Autoscaler

PAUSED = "autoscaling.keda.sh/paused"
PAUSED_REPLICAS = "autoscaling.keda.sh/paused-replicas"
TOLERANCE = 0.1  # the HPA's default
SUFFIXES = {
    "n": 1e-9,
    "u": 1e-6,
    "m": 1e-3,
    "": 1.0,
    "k": 1e3,
    "M": 1e6,
    "G": 1e9,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
}
LIMITS = {
    "TooManyReplicas": "the maximum is {max}",
    "TooFewReplicas": "the minimum is {min}",
    "ScaleUpLimit": "no more may be added at once",
    "ScaleDownLimit": "no more may go at once",
    "ScaleDownStabilized": "more were needed a while ago, so it waits before going down",
    "ScaleUpStabilized": "fewer were needed a while ago, so it waits before going up",
}


def find_scaled_object(scaled_objects: Iterable[Object], deployment: str) -> Object | None:
    return next((it for it in scaled_objects if _target_name(it) == deployment), None)


def find_hpa(hpas: Iterable[Object], deployment: str) -> Object | None:
    return next((it for it in hpas if _target_name(it) == deployment), None)


def view_autoscaler(
    scaled_object: Object | None, hpa: Object | None, pods: int, triggers: Mapping[str, float | None] | None = None
) -> Autoscaler | None:
    """`pods` is how many there are, those that end left out. None when nothing scales the Deployment."""
    if scaled_object is None and hpa is None:
        return None
    spec = (scaled_object or NOTHING).get("spec", NOTHING)
    limits, status = (hpa or NOTHING).get("spec", NOTHING), (hpa or NOTHING).get("status", NOTHING)
    target, metric = _metric(hpa, spec)
    pinned = _pinned(scaled_object)
    held = pinned is None and _held(scaled_object)
    desired = pinned if pinned is not None else pods if hpa is None else status.get("desiredReplicas", pods)
    minimum = spec.get("minReplicaCount", limits.get("minReplicas", 0 if scaled_object else 1))
    maximum = spec.get("maxReplicaCount", limits.get("maxReplicas", 100))
    fallback = scaled_object is not None and is_true(scaled_object, "Fallback")
    if pinned is not None:
        why = f"set to {count(pinned, 'pod')} by hand, whatever the load"
    elif held:
        why = f"held at {count(desired, 'pod')} by hand, whatever the load"
    elif hpa is None:
        why = f"KEDA has made no autoscaler: {_no_hpa(scaled_object)}"
    else:
        why = _why(hpa, target, metric, desired, {"min": minimum, "max": maximum})
    return Autoscaler(
        min_replicas=minimum,
        max_replicas=maximum,
        desired=desired,
        target=target,
        metric=metric,
        formula=_modifiers(spec).get("formula", ""),
        triggers=triggers,
        why=f"the metric can't be had, so KEDA's fallback decides; {why}" if fallback else why,
        pinned=pinned,
        held=held,
        fallback=fallback,
    )


def quantity(text: object) -> float | None:
    """A Kubernetes quantity (`77334m`, `25`, `1k`); None for what is not one."""
    word = str(text)
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        try:
            if word.endswith(suffix):
                return float(word[: len(word) - len(suffix)]) * SUFFIXES[suffix]
        except ValueError:
            continue
    return None


def _target_name(it: Object) -> str:
    return it.get("spec", NOTHING).get("scaleTargetRef", NOTHING).get("name", "")


def _modifiers(spec: Object) -> Object:
    return (spec.get("advanced") or NOTHING).get("scalingModifiers") or NOTHING


def _pinned(scaled_object: Object | None) -> int | None:
    text = annotation(scaled_object, PAUSED_REPLICAS) if scaled_object is not None else None
    return int(text) if text is not None and text.isdecimal() else None


def _held(scaled_object: Object | None) -> bool:
    """KEDA takes any value but those that Go's ParseBool reads as false."""
    text = annotation(scaled_object, PAUSED) if scaled_object is not None else None
    return text is not None and text not in ("false", "False", "FALSE", "f", "F", "0")


def _no_hpa(scaled_object: Object | None) -> str:
    ready = condition(scaled_object or NOTHING, "Ready")
    if ready.get("status") == "False":
        return ready.get("message") or ready.get("reason") or "the ScaledObject is not ready"
    return "it has none yet"


def _metric(hpa: Object | None, spec: Object) -> tuple[float, float | None]:
    """Target and value of the external metric that asks for most pods.

    The HPA tells the average for a pod, rounded up to a thousandth, so the value is known to a tenth.
    """
    modifiers = _modifiers(spec)
    thresholds = [(one.get("metadata") or NOTHING).get("threshold") for one in spec.get("triggers") or ()]
    asked = quantity(modifiers.get("target") or next((one for one in thresholds if one is not None), 0)) or 0.0
    if hpa is None:
        return asked, None
    status = hpa.get("status", NOTHING)
    current: dict[str, Object] = {}
    for one in status.get("currentMetrics") or ():
        external = one.get("external") or NOTHING  # an HPA without a value yet lists a metric of the empty type
        current[(external.get("metric") or NOTHING).get("name", "")] = external.get("current") or NOTHING
    found: list[tuple[float, float, float | None]] = []
    metrics: Sequence[Object] = hpa.get("spec", NOTHING).get("metrics") or ()
    for metric in (one["external"] for one in metrics if one.get("external")):
        target = metric.get("target") or NOTHING
        per_pod = quantity(target.get("averageValue", target.get("value", 0))) or 0.0
        value = _value(current.get((metric.get("metric") or NOTHING).get("name", ""), NOTHING), status)
        found.append(((value or 0.0) / per_pod if per_pod else 0.0, per_pod, value))
    if not found:
        return asked, None
    _, target, value = max(found, key=lambda one: one[0])
    return target, value


def _value(current: Object, status: Object) -> float | None:
    if (average := quantity(current.get("averageValue"))) is not None:
        return round(average * status.get("currentReplicas", 1), 1)
    return quantity(current.get("value"))


def _why(hpa: Object, target: float, metric: float | None, desired: int, bounds: Mapping[str, int]) -> str:
    active = condition(hpa, "ScalingActive")
    if active.get("status") == "False":
        return f"stays at {count(desired, 'pod')}: the metric can't be had ({active.get('reason', 'unknown')})"
    if metric is None or not target:
        return f"{count(desired, 'pod')}: the first value of the metric is awaited"
    wanted = ceil(metric / target)
    sum_ = f"{metric:g} / {target:g} = {metric / target:.1f} → {wanted}"
    if wanted == desired:
        return sum_
    limited, able = condition(hpa, "ScalingLimited"), condition(hpa, "AbleToScale")
    reason = limited.get("reason") if limited.get("status") == "True" else able.get("reason")
    if reason in LIMITS:
        return f"{sum_}, but {LIMITS[reason].format_map(bounds)}: {desired}"
    if desired and abs(metric / target / desired - 1) <= TOLERANCE:
        return f"{sum_}, which is within 10 % of {count(desired, 'pod')}: no change"
    return f"{sum_}; {desired} so far"
