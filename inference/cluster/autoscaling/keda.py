"""What KEDA answers the HPA when it asks for its metrics, and whether there is anything to do at all.

After KEDA 2.20: pkg/scalers/prometheus_scaler.go (values, ignoreNullValues), pkg/fallback/fallback.go (failures,
fallback), pkg/scaling/modifiers/formula.go (the formula), pkg/scaling/scale_handler.go (activity). Values travel as
thousandths, cut off. A formula that lacks a trigger has no value (as long as KEDA gave formulas a map of floats, it
counted as 0), nor has one that comes to infinity, of which Go would make a meaningless integer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from inference.cluster.autoscaling.expression import ExpressionError, parse
from inference.cluster.autoscaling.expression_nodes import amount
from inference.cluster.autoscaling.promql import QueryError
from inference.cluster.spec import Fallback, ScalingSpec, Trigger

Ask = Callable[[str], float | None]


@dataclass(frozen=True, slots=True)
class Metric:
    """One that the HPA gets: the formula's, or a trigger's own. `value` is None where KEDA answers with an error.
    `text` says how the value comes about."""

    value: float | None
    target: float
    text: str


@dataclass(frozen=True, slots=True)
class Answer:
    """`fallback` is the number of pods that a fallback stands for, None without one. `failures` are those in a row of
    the trigger that has most."""

    metrics: tuple[Metric, ...]
    fallback: int | None = None
    failures: int = 0


@dataclass(slots=True)
class Keda:
    """Counts each trigger's failures in a row, once for each time that the HPA asks."""

    spec: ScalingSpec
    failures: dict[str, int] = field(default_factory=dict)

    def ask(self, query: Ask) -> dict[str, float | None]:
        """Each trigger's value by its name, None where it has none. A KEDA that polls asks this too."""
        return {trigger.name: _value(trigger, query) for trigger in self.spec.triggers}

    def answer(self, values: Mapping[str, float | None], current: int, ready: int) -> Answer:
        """To the HPA, whose target has `current` pods, `ready` of them serving."""
        for name, value in values.items():
            self.failures[name] = 0 if value is not None else self.failures.get(name, 0) + 1
        failing = {name: count for name, count in self.failures.items() if count}
        most = max(failing.values(), default=0)
        pods = self._fallback_pods(current, ready)
        over = {n for n, count in failing.items() if pods is not None and count > self._threshold}
        if not over or pods is None:
            return Answer(self._metrics(values), None, most)
        if self.spec.formula:
            return Answer((self._substitute(self.spec.target, pods, ready),), pods, most)
        metrics = tuple(
            self._substitute(metric.target, pods, ready) if trigger.name in over else metric
            for trigger, metric in zip(self.spec.triggers, self._metrics(values), strict=True)
        )
        return Answer(metrics, pods, most)

    def active(self, values: Mapping[str, float | None]) -> bool:
        """Whether the target should have pods at all. Matters only at a minimum of 0."""
        if self.spec.formula:
            value = self._composite(values).value
            return None not in values.values() and value is not None and value > self.spec.activation_target
        known = ((values[trigger.name], trigger.activation_threshold) for trigger in self.spec.triggers)
        return any(value is not None and value > threshold for value, threshold in known)

    @property
    def _threshold(self) -> int:
        return self.spec.fallback.failure_threshold if self.spec.fallback else 0

    def _fallback_pods(self, current: int, ready: int) -> int | None:
        """None where there can be no fallback: a formula needs a whole target, and Value a pod that is ready."""
        fallback, target = self.spec.fallback, self.spec.target
        if fallback is None or (self.spec.formula and (target < 1 or target != int(target))):
            return None
        if self.spec.metric_type == "Value" and ready == 0:
            return None
        return _fallback(fallback, current)

    def _substitute(self, target: float, pods: int, ready: int) -> Metric:
        """A metric of which the HPA makes this many pods."""
        each = ready if self.spec.metric_type == "Value" else 1
        return Metric(_milli(target * pods / each), target, "")

    def _metrics(self, values: Mapping[str, float | None]) -> tuple[Metric, ...]:
        if self.spec.formula:
            return (self._composite(values),)
        return tuple(
            Metric(values[one.name], one.threshold, _shown(one.name, values[one.name])) for one in self.spec.triggers
        )

    def _composite(self, values: Mapping[str, float | None]) -> Metric:
        known = {name: value for name, value in values.items() if value is not None}
        formula = parse(self.spec.formula)
        if missing := [name for name in values if name in formula.names - known.keys()]:
            return Metric(None, self.spec.target, f"no value for {' and '.join(missing)}")
        try:
            value = formula.value(known)
        except ExpressionError as error:
            return Metric(None, self.spec.target, f"the formula has no value ({error})")
        if not math.isfinite(value):
            return Metric(None, self.spec.target, f"the formula gives {value}")
        shown = formula.explain(known)
        sole = shown == _shown(self.spec.formula.strip(), known.get(self.spec.formula.strip()))
        return Metric(_milli(value), self.spec.target, shown if sole else f"{shown} = {amount(value)}")


def _value(trigger: Trigger, query: Ask) -> float | None:
    try:
        value = query(trigger.query)
    except QueryError:
        return None
    if value is None or not math.isfinite(value):
        return 0.0 if trigger.ignore_null else None
    return _milli(value)


def _fallback(fallback: Fallback, current: int) -> int:
    match fallback.behavior:
        case "currentReplicas":
            return current
        case "currentReplicasIfHigher":
            return max(current, fallback.replicas)
        case "currentReplicasIfLower":
            return min(current, fallback.replicas)
        case _:
            return fallback.replicas


def _milli(value: float) -> float:
    return math.trunc(value * 1000) / 1000


def _shown(name: str, value: float | None) -> str:
    return f"no value for {name}" if value is None else f"{name} {amount(value)}"
