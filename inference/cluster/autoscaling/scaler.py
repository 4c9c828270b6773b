"""KEDA and the HPA together: when they look, how many pods they then set, and why, in one sentence with its numbers.

At a minimum of 1 or more only the HPA decides, every 15 s, and KEDA's pollingInterval and cooldownPeriod do nothing
(keda.sh/docs/latest/reference/scaledobject-spec/#pollinginterval). At 0 KEDA polls, starts the first pod and takes the
last one away (pkg/scaling/executor/scale_scaledobjects.go); in between it is the HPA.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from inference.cluster.autoscaling.expression_nodes import amount
from inference.cluster.autoscaling.hpa import SYNC_S, Hpa, Verdict
from inference.cluster.autoscaling.keda import Answer, Keda, Metric
from inference.cluster.spec import ScalingSpec


@dataclass(frozen=True, slots=True)
class Decision:
    """`metric` is the value that decided, None where there was none. `limited_by` is what kept `desired` from what the
    metric asks for: tolerance, stabilization, policy, disabled, min, max, missing, cooldown, inactive, or nothing."""

    desired: int
    metric: float | None
    triggers: Mapping[str, float | None]
    fallback: bool
    active: bool
    why: str
    limited_by: str = ""


class Scaler:
    """One ScaledObject with its HPA. Give it the time in seconds, never running backwards."""

    def __init__(self, spec: ScalingSpec) -> None:
        self._spec = spec
        self.reset()

    def reset(self) -> None:
        """Forget windows, failures and schedule: KEDA removes the HPA when it is paused, and makes a new one after."""
        self._keda = Keda(self._spec)
        self._hpa = Hpa(self._spec)
        self._sync_s = -math.inf
        self._poll_s = -math.inf if self._spec.min_replicas == 0 else math.inf
        self._active_s: float | None = None

    def due_s(self, now_s: float) -> float:
        """When to call `sync` next; `now_s` if that is overdue."""
        return max(now_s, min(self._sync_s, self._poll_s))

    def sync(self, now_s: float, query: Callable[[str], float | None], current: int, ready: int) -> Decision:
        """Asks `query` for each trigger's PromQL and decides, with `current` pods asked for so far and `ready` serving.

        `query` gives None for no result and raises promql.QueryError for what has no one answer."""
        values = self._keda.ask(query)
        active = self._keda.active(values)
        if now_s >= self._poll_s:
            self._poll_s = now_s + self._spec.polling_interval_s
            if (polled := self._poll(now_s, values, active, current)) is not None:
                return polled
        if current == 0 and self._spec.min_replicas == 0:
            self._sync_s = now_s + SYNC_S
            return Decision(0, None, values, False, active, "no pods until KEDA polls next", "inactive")
        self._sync_s = now_s + SYNC_S
        answer = self._keda.answer(values, current, ready)
        verdict = self._hpa.sync(now_s, answer.metrics, current, ready)
        return Decision(
            desired=verdict.desired,
            metric=verdict.metric.value if verdict.metric else None,
            triggers=values,
            fallback=answer.fallback is not None,
            active=active,
            why=_why(self._spec, answer, verdict, current, ready),
            limited_by=verdict.limited_by,
        )

    def _poll(self, now_s: float, values: Mapping[str, float | None], active: bool, current: int) -> Decision | None:
        """KEDA's own part at a minimum of 0; None where it leaves the number to the HPA."""
        spec = self._spec
        shown = ", ".join(f"{name} {'unknown' if value is None else amount(value)}" for name, value in values.items())
        failed = None in values.values()
        if active:
            self._active_s = now_s
            if current == 0:
                return Decision(1, None, values, False, True, f"{shown}: there is work, so KEDA starts the first pod")
            return None
        if current == 0:
            if failed and spec.fallback is not None and spec.fallback.replicas:
                pods = spec.fallback.replicas
                return Decision(pods, None, values, True, False, f"{shown}: KEDA falls back to {_pods(pods)}")
            limit = "missing" if failed else "inactive"
            return Decision(0, None, values, False, False, f"{shown}: no work, no pods", limit)
        if failed:
            return None
        left_s = 0.0 if self._active_s is None else self._active_s + spec.cooldown_s - now_s
        if self._active_s is not None and left_s >= 0:
            return None
        return Decision(0, None, values, False, False, f"{shown}: no work for {spec.cooldown_s:.0f} s, so no pods")


def _why(spec: ScalingSpec, answer: Answer, verdict: Verdict, current: int, ready: int) -> str:
    """One sentence: how the metric comes about, what it asks for, and what came in between."""
    metric, limit = verdict.metric, verdict.limited_by
    if limit == "missing" and metric is not None:
        after = f" ({_times(answer.failures)} in a row)"
        return f"{metric.text}{after}: stays at {_pods(current)}"
    if metric is None or metric.value is None:
        if limit == "disabled":
            return "set to 0 by hand: the HPA leaves it alone"
        what = "more than the maximum" if limit == "max" else "less than the minimum"
        return f"{_pods(current)}, {what}: set to {verdict.desired}"
    if metric.text:
        asked = f"{metric.text} → {_division(spec, metric, ready)}"
    else:
        behavior = spec.fallback.behavior if spec.fallback else "static"
        asked = f"no value {_times(answer.failures)} in a row: fallback to {_pods(answer.fallback or 0)} ({behavior})"
    if limit == "tolerance":
        return f"{asked}, within 10 % of {_pods(current)}: stays"
    if metric.text and not asked.endswith(f" = {verdict.wanted}"):
        asked = f"{asked} → {verdict.wanted}"
    return f"{asked}{_end(spec, verdict, current)}"


def _division(spec: ScalingSpec, metric: Metric, ready: int) -> str:
    assert metric.value is not None
    exact = metric.value / metric.target
    if spec.metric_type == "AverageValue":
        return f"{amount(metric.value)}/{amount(metric.target)} = {_fine(exact)}"
    return f"{amount(metric.value)}/{amount(metric.target)} × {ready} ready = {_fine(exact * ready)}"


def _end(spec: ScalingSpec, verdict: Verdict, current: int) -> str:
    desired, bound = verdict.desired, verdict.bound
    match verdict.limited_by:
        case "stabilization" if desired > spec.min_replicas or (verdict.wanted or 0) >= desired:
            window_s = spec.down.stabilization_s if (verdict.wanted or 0) < desired else spec.up.stabilization_s
            return f", held at {desired} for {verdict.hold_s:.0f} s more ({window_s:.0f} s window)"
        case "policy":
            return f", policy allows {bound} for now"
        case "disabled":
            way = "up" if (verdict.wanted or 0) > current else "down"
            return f", but scaling {way} is disabled: stays at {desired}"
        case "max":
            return f", at most {bound}"
        case "stabilization":
            return f", at least {spec.min_replicas}"
        case "min":
            return f", at least {bound}"
    if desired == current:
        return ", as it is"
    return f", policy allows {bound}"


def _fine(value: float) -> str:
    """Two places below 2, where a tenth decides."""
    return f"{value:.2f}" if 0 < value < 2 and value != 1 else amount(value)


def _pods(count: int) -> str:
    return "1 pod" if count == 1 else f"{count} pods"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
