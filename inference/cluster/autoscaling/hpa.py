"""How many pods the HorizontalPodAutoscaler sets, from the metrics that it got.

After Kubernetes 1.35: kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/#algorithm-details,
pkg/controller/podautoscaler/replica_calculator.go (GetExternalPerPodMetricReplicas, GetExternalMetricReplicas,
Tolerances.isWithin) and horizontal.go (reconcileAutoscaler, computeReplicasForMetrics,
normalizeDesiredReplicasWithBehaviors and what it calls). Unready and missing pods play a part only where pods are
measured one by one (CPU, memory); an external AverageValue divides by the pods that there should be, Value by the ready
ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from inference.cluster.autoscaling.keda import Metric
from inference.cluster.spec import Rules, ScalingSpec

SYNC_S = 15.0  # kube-controller-manager's --horizontal-pod-autoscaler-sync-period
TOLERANCE = 0.1  # its --horizontal-pod-autoscaler-tolerance

Limit = Literal["", "tolerance", "stabilization", "policy", "disabled", "min", "max", "missing"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """`wanted` is what the metric alone asks for. `bound` is the number that `limited_by` is about: that of the policy,
    the minimum or the maximum; `hold_s` for how much longer a stabilization window keeps it at least."""

    desired: int
    limited_by: Limit
    wanted: int | None = None
    metric: Metric | None = None
    bound: int | None = None
    hold_s: float = 0.0


@dataclass(frozen=True, slots=True)
class _Noted:
    at_s: float
    pods: int


@dataclass(slots=True)
class Hpa:
    """Remembers what it recommended and by how much it scaled, for as long as windows and policies look back. A
    minimum of 0 is 1 to it: the way to 0 and back is KEDA's."""

    spec: ScalingSpec
    _recommended: list[_Noted] = field(default_factory=list)
    _added: list[_Noted] = field(default_factory=list)
    _removed: list[_Noted] = field(default_factory=list)

    def sync(self, now_s: float, metrics: Sequence[Metric], current: int, ready: int) -> Verdict:
        """What to set at `now_s`, with `current` pods asked for so far and `ready` of them serving."""
        low, high = max(1, self.spec.min_replicas), self.spec.max_replicas
        if not self._recommended:
            self._recommended = [_Noted(now_s, current)]
        if current == 0:
            return Verdict(0, "disabled")
        if current > high:
            verdict = Verdict(high, "max", bound=high)
        elif current < low:
            verdict = Verdict(low, "min", bound=low)
        else:
            verdict = self._judge(now_s, metrics, current, ready, low, high)
        self._note(now_s, verdict.desired - current)
        return verdict

    def _judge(self, now_s: float, metrics: Sequence[Metric], current: int, ready: int, low: int, high: int) -> Verdict:
        proposals = [(self._proposal(metric, current, ready), metric) for metric in metrics if metric.value is not None]
        wanted, metric = max(proposals, key=lambda one: one[0], default=(current, None))
        if metric is None or (len(proposals) < len(metrics) and wanted < current):
            missing = next(metric for metric in metrics if metric.value is None)
            return Verdict(current, "missing", metric=missing)
        stable, hold_s = self._stabilize(now_s, wanted, current)
        desired, limit, bound = self._limit(now_s, stable, current, low, high)
        if not limit and stable != wanted:
            limit = "stabilization"
        if not limit and desired == current and self._exact(metric, ready) != current:
            limit = "tolerance"
        return Verdict(desired, limit, wanted, metric, bound, hold_s if limit == "stabilization" else 0.0)

    def _proposal(self, metric: Metric, current: int, ready: int) -> int:
        ratio = _ratio(metric) / (current if self.spec.metric_type == "AverageValue" else 1)
        return current if 1 - TOLERANCE <= ratio <= 1 + TOLERANCE else self._exact(metric, ready)

    def _exact(self, metric: Metric, ready: int) -> int:
        return math.ceil(_ratio(metric) * (1 if self.spec.metric_type == "AverageValue" else ready))

    def _stabilize(self, now_s: float, wanted: int, current: int) -> tuple[int, float]:
        """The recommendation nearest to `current` of those that both windows leave room for, and for how long."""
        up_s, down_s = self.spec.up.stabilization_s, self.spec.down.stabilization_s
        lately_up = [one for one in self._recommended if one.at_s > now_s - up_s]
        lately_down = [one for one in self._recommended if one.at_s > now_s - down_s]
        ceiling = min((one.pods for one in lately_up), default=wanted)
        floor = max((one.pods for one in lately_down), default=wanted)
        stable = min(max(current, min(ceiling, wanted)), max(floor, wanted))
        holds = [one.at_s + down_s for one in lately_down if one.pods >= stable > wanted]
        holds += [one.at_s + up_s for one in lately_up if one.pods <= stable < wanted]
        longest_s = max(up_s, down_s)
        self._recommended = [one for one in self._recommended if one.at_s > now_s - longest_s]
        self._recommended.append(_Noted(now_s, wanted))
        return stable, max(holds, default=now_s) - now_s

    def _limit(self, now_s: float, wanted: int, current: int, low: int, high: int) -> tuple[int, Limit, int | None]:
        """`wanted` within policy, minimum and maximum; which of them held it back, and at what number."""
        if wanted > current:
            allowed = max(current, self._most(now_s, current))
            bound, limit = (allowed, _policy(self.spec.up)) if allowed < high else (high, "max")
            return (bound, limit, bound) if wanted > bound else (wanted, "", bound)
        if wanted < current:
            allowed = min(current, self._least(now_s, current))
            bound, limit = (allowed, _policy(self.spec.down)) if allowed > low else (low, "min")
            return (bound, limit, bound) if wanted < bound else (wanted, "", bound)
        return wanted, "", None

    def _most(self, now_s: float, current: int) -> int:
        """The pods that the policies allow upwards: calculateScaleUpLimitWithScalingRules."""
        rules = self.spec.up
        if rules.select == "Disabled":
            return current
        proposals = []
        for policy in rules.policies:
            start = self._before(now_s, policy.period_s, current)
            grown = start + policy.value if policy.type == "Pods" else math.ceil(start * (1 + policy.value / 100))
            proposals.append(grown)
        return (min if rules.select == "Min" else max)(proposals)

    def _least(self, now_s: float, current: int) -> int:
        """The pods that the policies allow downwards: calculateScaleDownLimitWithBehaviors."""
        rules = self.spec.down
        if rules.select == "Disabled":
            return current
        proposals = []
        for policy in rules.policies:
            start = self._before(now_s, policy.period_s, current)
            left = start - policy.value if policy.type == "Pods" else int(start * (1 - policy.value / 100))
            proposals.append(left)
        return (max if rules.select == "Min" else min)(proposals)

    def _before(self, now_s: float, period_s: float, current: int) -> int:
        """The pods at the beginning of a policy's period."""
        since_s = now_s - period_s
        added = sum(one.pods for one in self._added if one.at_s > since_s)
        return current - added + sum(one.pods for one in self._removed if one.at_s > since_s)

    def _note(self, now_s: float, change: int) -> None:
        if change == 0:
            return
        rules, events = (self.spec.up, self._added) if change > 0 else (self.spec.down, self._removed)
        longest_s = max((policy.period_s for policy in rules.policies), default=0.0)
        events[:] = [one for one in events if one.at_s >= now_s - longest_s]
        events.append(_Noted(now_s, abs(change)))


def _policy(rules: Rules) -> Limit:
    return "disabled" if rules.select == "Disabled" else "policy"


def _ratio(metric: Metric) -> float:
    """In thousandths, as Kubernetes does, so that 27.5 of 25 is just within 10 %."""
    assert metric.value is not None and metric.target > 0
    return round(metric.value * 1000) / round(metric.target * 1000)
