"""How many pods there should be: what the autoscaler says, unless a person has set it or holds it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from inference.cluster.cluster import NotPossible
from inference.cluster.plane_feed import Feed, count
from inference.cluster.snapshot import Autoscaler
from inference.cluster.spec import ScalingSpec

TOLERANCE = 1.1
"""The HPA leaves a metric alone that is less than 10 % off its target (horizontal-pod-autoscaler-tolerance)."""
SUBJECT = "vllm"

Query = Callable[[str], float | None]


class Decision(Protocol):
    """What one sync of the autoscaler came to; `why` in one sentence with its numbers."""

    @property
    def desired(self) -> int: ...
    @property
    def metric(self) -> float | None: ...
    @property
    def triggers(self) -> Mapping[str, float | None]: ...
    @property
    def fallback(self) -> bool: ...
    @property
    def why(self) -> str: ...


class Scaling(Protocol):
    """The autoscaler: KEDA and the HPA."""

    def due_s(self, now_s: float) -> float:
        """When the next sync is due."""

    def sync(self, now_s: float, query: Query, current: int, ready: int) -> Decision:
        """Look at the load and decide, for `current` pods asked for, of which `ready` are ready."""

    def reset(self) -> None:
        """Forget what was seen and done: a person has set the number meanwhile."""


class Load:
    """Keeps the number asked for. While a person sets it the autoscaler goes on looking, so that its metric is seen,
    and is not followed; afterwards it begins anew, as in a cluster, where KEDA takes the HPA away for the time."""

    def __init__(self, spec: ScalingSpec, scaling: Scaling, replicas: int, feed: Feed) -> None:
        self.desired = min(max(replicas, spec.min_replicas), spec.max_replicas)
        self.pinned: int | None = None
        self.held = False
        self._spec = spec
        self._scaling = scaling
        self._feed = feed
        self._last: Decision | None = None
        self._above = False
        self._why = f"The Deployment begins with {count(self.desired, 'pod')}"

    def due_s(self, now_s: float) -> float:
        return self._scaling.due_s(now_s)

    def advance(self, now_s: float, query: Query, ready: int) -> None:
        """Sync if that is due."""
        if self._scaling.due_s(now_s) > now_s:
            return
        self._last = decision = self._scaling.sync(now_s, query, self.desired, ready)
        self._watch(decision.metric, now_s)
        if not self._by_hand:
            self._ask_for(decision.desired, now_s, decision.why)

    def pin(self, replicas: int | None, now_s: float) -> None:
        """Raises NotPossible for a number out of bounds."""
        if replicas is None:
            if self.pinned is not None:
                self.pinned = None
                self._feed.note(now_s, "hold", "unpinned", SUBJECT, "The number of pods is no longer set by hand")
                self._go_on(now_s)
            return
        if not 0 <= replicas <= self._spec.max_replicas:
            raise NotPossible(f"The number of pods can be set from 0 to {self._spec.max_replicas}, not to {replicas}.")
        if replicas == self.pinned:
            return
        self.pinned = replicas
        self._feed.note(now_s, "hold", "pinned", SUBJECT, f"Set to {count(replicas, 'pod')} by hand, whatever the load")
        self._ask_for(replicas, now_s, f"Set to {count(replicas, 'pod')} by hand")

    def hold(self, on: bool, now_s: float) -> None:
        if on == self.held:
            return
        self.held = on
        if on:
            self._why = f"Held at {count(self.desired, 'pod')} by hand"
            self._feed.note(now_s, "hold", "held", SUBJECT, self._why)
        else:
            self._feed.note(now_s, "hold", "resumed", SUBJECT, "The number of pods is no longer held")
            self._go_on(now_s)

    def view(self) -> Autoscaler:
        last = self._last
        return Autoscaler(
            min_replicas=self._spec.min_replicas,
            max_replicas=self._spec.max_replicas,
            desired=self.desired,
            target=self._spec.target,
            metric=last.metric if last else None,
            formula=self._spec.formula,
            triggers=dict(last.triggers) if last else None,
            why=self._why,
            pinned=self.pinned,
            held=self.held,
            fallback=last.fallback if last else False,
        )

    @property
    def _by_hand(self) -> bool:
        return self.pinned is not None or self.held

    def _go_on(self, now_s: float) -> None:
        """Follow the load again, unless it is still set or held. KEDA raises what is below the minimum."""
        if self._by_hand:
            return
        self._scaling.reset()
        self._why = f"Stays at {count(self.desired, 'pod')} until the autoscaler has looked"
        if self.desired < self._spec.min_replicas:
            self._ask_for(self._spec.min_replicas, now_s, "at least as many as the minimum")

    def _ask_for(self, desired: int, now_s: float, why: str) -> None:
        self._why = why
        if desired == self.desired:
            return
        what, before = "up" if desired > self.desired else "down", self.desired
        self.desired = desired
        text = f"{count(desired, 'pod')} instead of {before}: {why}"
        self._feed.note(now_s, "scale", what, SUBJECT, text)

    def _watch(self, metric: float | None, now_s: float) -> None:
        """Note when the metric crosses its target: upwards as the HPA would act on it, downwards when it is within."""
        if metric is None:
            return
        each = metric / max(1, self.desired) if self._spec.metric_type == "AverageValue" else metric
        if not self._above and each > self._spec.target * TOLERANCE:
            what, how = "crossed", "above"
        elif self._above and each <= self._spec.target:
            what, how = "back", "again within"
        else:
            return
        self._above = what == "crossed"
        share = f" for {count(self.desired, 'pod')}" if self._spec.metric_type == "AverageValue" else ""
        text = f"The load is {metric:.0f}{share}, {how} the target of {self._spec.target:g}"
        self._feed.note(now_s, "metric", what, SUBJECT, text + (" a pod" if share else ""))
