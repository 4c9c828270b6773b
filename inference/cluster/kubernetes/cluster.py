"""A real cluster behind the port `Cluster`: watches it, shows what it is like now, and does what a presenter may do."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from inference.cluster.cluster import NotPossible
from inference.cluster.kubernetes.api import Api, ApiError, Refused, Resource, Unreachable
from inference.cluster.kubernetes.changes import changes
from inference.cluster.kubernetes.nodes import Price
from inference.cluster.kubernetes.objects import NOTHING, Object, name
from inference.cluster.kubernetes.prometheus import EVERY_S, Prometheus, Readings
from inference.cluster.kubernetes.scaling import PAUSED, PAUSED_REPLICAS, find_scaled_object
from inference.cluster.kubernetes.view import Scope, View, World, look
from inference.cluster.kubernetes.watch import Timing, Watch
from inference.cluster.plane_feed import Feed, lasted
from inference.cluster.plane_names import short
from inference.cluster.snapshot import ClusterSnapshot, Pod

log = logging.getLogger("crowdspike.kubernetes")

SHOWN = 40
FIRST_VIEW_S = 5.0
READ_RIGHTS = "infra/kustomize/base/crowdspike-rbac.yaml"
MORE_RIGHTS = "infra/kustomize/components/operator"
FAULT_INJECTION = "start an AWS FIS experiment with the action aws:ec2:send-spot-instance-interruptions on its instance"
ABSENT = {
    "nodeclaims": "there is no Karpenter here, so nodes are shown from when they join",
    "scaledobjects": "there is no KEDA here, so the HPA alone is shown",
}


def no_price(_instance_type: str, _capacity_type: str, _zone: str) -> None:
    return None


class KubernetesCluster:
    """Started and closed by whoever made it.

    `kubeconfig` and `context` as for kubectl (default: $KUBECONFIG, ~/.kube/config, the pod's service account).
    """

    def __init__(
        self,
        scope: Scope | None = None,
        *,
        kubeconfig: str | None = None,
        context: str | None = None,
        price: Price = no_price,
        prometheus_url: str | None = None,
        prometheus_every_s: float = EVERY_S,
        clock: Callable[[], float] = time.time,
        timing: Timing | None = None,
    ) -> None:
        self.scope = scope or Scope()
        self.readings = Readings()
        """Latency and throughput as Prometheus last told; empty without one."""
        self._price = price
        self._clock = clock
        self._api = Api(kubeconfig, context)
        self._feed = Feed()
        self._view = View(self.scope.deployment)
        self._lost_s: float | None = None
        self._said: dict[str, str] = {}
        self._settled = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        namespace = self.scope.namespace
        self._scaled_objects = Resource("keda.sh/v1alpha1", "scaledobjects", namespace)
        self._pods = Resource("v1", "pods", namespace, label_selector=self.scope.selector)
        resources = {
            "pods": self._pods,
            "nodes": Resource("v1", "nodes"),
            "claims": Resource("karpenter.sh/v1", "nodeclaims"),
            "hpas": Resource("autoscaling/v2", "horizontalpodautoscalers", namespace),
            "scaled_objects": self._scaled_objects,
            "events": Resource("v1", "events", namespace),
            # Events on what belongs to no namespace lie in this one; Karpenter's that matter are warnings.
            "node_events": Resource("v1", "events", "default", field_selector="type=Warning"),
        }
        if namespace == "default":
            del resources["node_events"]
        timing = timing or Timing()
        self._watches = {
            part: Watch(self._api, resource, self._refresh, clock, timing) for part, resource in resources.items()
        }
        self._prometheus = (
            Prometheus(prometheus_url, namespace, self._trigger_queries, self._read, clock, prometheus_every_s)
            if prometheus_url
            else None
        )

    async def start(self) -> None:
        """Sign in, wait some seconds for a first view, and go on in the background, whether or not there is one then.

        Raises NoCredentials. A server that can't be reached is tried again instead.
        """
        try:
            async with asyncio.timeout(FIRST_VIEW_S):
                await self._api.sign_in()
        except (ApiError, TimeoutError) as error:
            log.warning("cannot reach the Kubernetes API server yet: %s", str(error) or "no answer")
        self._tasks = [asyncio.create_task(watch.run()) for watch in self._watches.values()]
        if self._prometheus:
            self._tasks.append(asyncio.create_task(self._prometheus.run()))
        with suppress(TimeoutError):
            async with asyncio.timeout(FIRST_VIEW_S):
                await self._settled.wait()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        if self._prometheus:
            self._prometheus.close()
        await self._api.close()

    def told(self) -> str:
        return self.readings.sentence()

    def snapshot(self) -> ClusterSnapshot:
        view = self._view
        watches = self._watches.values()
        heard = [watch.heard_s for watch in watches if watch.state not in ("missing", "refused")]
        return ClusterSnapshot(
            at_s=self._clock(),
            heard_s=min(heard, default=max(watch.heard_s for watch in watches)),
            source="kubernetes",
            simulated=False,
            pods=tuple(sorted((view.pods or {}).values(), key=lambda pod: (pod.created_s, pod.name))),
            nodes=tuple(sorted((view.nodes or {}).values(), key=lambda node: (node.created_s, node.name))),
            autoscaler=view.autoscaler,
            happenings=tuple(self._feed.latest)[-SHOWN:],
        )

    async def pin(self, replicas: int | None) -> None:
        scaling = self._view.autoscaler
        if replicas is not None and scaling and not 0 <= replicas <= scaling.max_replicas:
            raise NotPossible(f"{replicas} pods: 0 to {scaling.max_replicas} are possible (maxReplicaCount)")
        await self._annotate(PAUSED_REPLICAS, None if replicas is None else str(replicas))

    async def hold(self, on: bool) -> None:
        await self._annotate(PAUSED, "true" if on else None)

    async def kill_pod(self, name: str | None = None) -> str:
        pod = self._pod_to_kill(name)
        await self._may("delete pods", self._api.delete(self._pods, pod.name, grace_s=0))
        self._feed.note(self._clock(), "chaos", "kill", pod.name, f"Pod {short(pod.name)} was killed by hand")
        return pod.name

    async def interrupt_node(self, name: str | None = None) -> str:
        raise NotPossible(f"only AWS takes a Spot node away: {FAULT_INJECTION}")

    async def set_unavailable(self, instance_type: str, on: bool) -> None:
        raise NotPossible(
            "what AWS has in stock can't be set: take the type out of the NodePool's requirements to see the next one"
        )

    def _pod_to_kill(self, name: str | None) -> Pod:
        pods = [pod for pod in self.snapshot().pods if pod.phase != "terminating"]
        if name is not None:
            pods = [pod for pod in pods if pod.name == name]
        chosen = next((pod for pod in pods if pod.phase == "ready"), pods[0] if name and pods else None)
        if chosen is None:
            raise NotPossible(f"there is no pod {name} of ours" if name else "no pod is ready: wait until one is")
        return chosen

    async def _annotate(self, key: str, value: str | None) -> None:
        found = self._scaled_object()
        if found is None:
            raise NotPossible(
                f"no ScaledObject scales {self.scope.deployment}: install KEDA and apply infra/kustomize/base"
            )
        change = {"metadata": {"annotations": {key: value}}}
        await self._may("patch scaledobjects.keda.sh", self._api.patch(self._scaled_objects, name(found), change))

    async def _may(self, what: str, call) -> None:
        try:
            await call
        except Refused as error:
            raise NotPossible(f"no right to {what}: apply {MORE_RIGHTS} ({error})") from error
        except Unreachable as error:
            raise NotPossible(f"the API server can't be reached: try again in a moment ({error})") from error
        except ApiError as error:
            raise NotPossible(f"the API server will not {what}: {error}") from error

    def _scaled_object(self) -> Object | None:
        return find_scaled_object(self._watches["scaled_objects"].objects or (), self.scope.deployment)

    def _trigger_queries(self) -> Mapping[str, str]:
        spec = (self._scaled_object() or NOTHING).get("spec", NOTHING)
        return {
            trigger["name"]: trigger["metadata"]["query"]
            for trigger in spec.get("triggers") or ()
            if trigger.get("name") and "query" in (trigger.get("metadata") or NOTHING)
        }

    def _read(self, readings: Readings) -> None:
        if bool(readings.trouble) != bool(self.readings.trouble):
            what, text = ("lost", f"Prometheus can't be read: {readings.trouble}")
            if not readings.trouble:
                what, text = ("found", "Prometheus answers again")
            self._feed.note(self._clock(), "source", what, "prometheus", text)
        self.readings = readings
        self._refresh()

    def _refresh(self) -> None:
        """After anything that a watch has heard. A fault of ours in reading an object must not end the watch."""
        now_s = self._clock()
        try:
            gauges, triggers = self.readings.gauges, self.readings.triggers
            view = look(self._world(), self.scope, self._price, gauges, triggers)
            found = changes(self._view, view, now_s)
        except Exception:
            log.exception("cannot make a view of what the API server tells, so the last one stays")
        else:
            self._view = view
            for change in found:
                self._feed.note(change.at_s, change.kind, change.what, change.subject, change.text)
        self._tell_of_rights()
        self._tell_of_source(now_s)
        if all(watch.settled for watch in self._watches.values()):
            self._settled.set()

    def _world(self) -> World:
        """Parts that are read together are there when both are settled: a node without its order would be a new one."""
        objects = {part: watch.objects for part, watch in self._watches.items()}
        nodes = self._both_settled("nodes", "claims")
        scaling = self._both_settled("hpas", "scaled_objects")
        events = None
        if all(watch.settled for part, watch in self._watches.items() if "events" in part):
            events = [*(objects["events"] or ()), *(objects.get("node_events") or ())]
        return World(
            pods=objects["pods"],
            nodes=objects["nodes"] if nodes else None,
            claims=objects["claims"] if nodes else None,
            hpas=objects["hpas"] if scaling else None,
            scaled_objects=objects["scaled_objects"] if scaling else None,
            events=events,
        )

    def _both_settled(self, one: str, other: str) -> bool:
        return self._watches[one].settled and self._watches[other].settled

    def _tell_of_rights(self) -> None:
        """Of what is not there, or not allowed, once, and again when that has changed."""
        for part, watch in self._watches.items():
            state = watch.state if watch.state in ("missing", "refused") else ""
            if watch.state == "failing" or state == self._said.get(part, ""):
                continue
            self._said[part] = state
            resource = str(watch.resource)
            if state == "missing":
                text = f"{resource}: {ABSENT.get(watch.resource.plural, 'there is no such resource')}"
            elif state == "refused":
                text = f"No right to list and watch {resource}: apply {READ_RIGHTS} ({watch.trouble})"
            else:
                text = f"{resource} can be read now"
            self._feed.note(self._clock(), "source", state or "found", resource, text)

    def _tell_of_source(self, now_s: float) -> None:
        failing = [watch for watch in self._watches.values() if watch.state == "failing"]
        if failing and self._lost_s is None:
            self._lost_s = min(watch.heard_s for watch in failing)
            text = f"The API server can't be reached, so the view stays as it was: {failing[0].trouble}"
            self._feed.note(now_s, "source", "lost", "kubernetes", text)
        elif not failing and self._lost_s is not None:
            text = f"The API server answers again, after {lasted(now_s - self._lost_s)}"
            self._lost_s = None
            self._feed.note(now_s, "source", "found", "kubernetes", text)
