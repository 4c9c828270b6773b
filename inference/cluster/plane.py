"""The control plane, without I/O: pods, nodes, autoscaling and Karpenter, told the time and what containers do.

Who runs the containers calls `tick`, carries out the actions that it returns, and reports. Times are Unix seconds and
never go back; all chance comes from the seed, so the same calls give the same history.
"""

from __future__ import annotations

import random
from collections import deque

from inference.cluster.cluster import NotPossible
from inference.cluster.coldstart import ColdStart
from inference.cluster.karpenter.catalogue import Catalogue
from inference.cluster.karpenter.provision import Provisioner
from inference.cluster.plane_actions import Action, Kill, Start, Stop
from inference.cluster.plane_feed import Feed, count, lasted
from inference.cluster.plane_load import Decision, Load, Query, Scaling
from inference.cluster.plane_names import Names, short
from inference.cluster.plane_nodes import NOTICE_S, Nodes, NodeState
from inference.cluster.plane_pods import Pods
from inference.cluster.plane_view import node_view, pod_view
from inference.cluster.snapshot import ClusterSnapshot, Happening
from inference.cluster.spec import ClusterSpec

__all__ = ["Action", "Decision", "Kill", "Plane", "Query", "Scaling", "Start", "Stop"]

SHOWN = 40


class Plane:
    """One cluster with one Deployment and one NodePool, that begins without nodes.

    `cold_start` is taken as it is; `speed_up` is by how much it is faster than in life, for the view to say. A pod in
    Stop or Kill has a container that runs, one in Start has none. Each Start is answered by one `ended`, whatever comes
    in between.
    """

    def __init__(
        self,
        spec: ClusterSpec,
        scaling: Scaling,
        catalogue: Catalogue,
        cold_start: ColdStart,
        *,
        seed: int = 0,
        speed_up: float | None = 1.0,
        names: Names | None = None,
    ) -> None:
        self._spec = spec
        self._catalogue = catalogue
        self._speed_up = speed_up
        self._rng = random.Random(f"plane {seed}")
        self._feed = Feed()
        names = names or Names(seed)
        self._nodes = Nodes(spec.node_pool, cold_start, names, seed, self._feed)
        self._pods = Pods(spec.pod, names, self._nodes, self._feed)
        self._load = Load(spec.scaling, scaling, spec.pod.replicas, self._feed)
        self._provisioner = Provisioner(catalogue, spec.node_pool, spec.pod, self._nodes, self._feed)
        self._stale = True

    def tick(self, now_s: float, query: Query) -> list[Action]:
        """Do what is due by now. `query` gives a trigger's value, or None without a result; it is asked at syncs only.
        What the returned actions are about is up to date until the next report."""
        self._stale = False
        for node in self._nodes.overdue(now_s):
            for name in sorted(node.pods):
                self._pods.take(self._pods.all[name], now_s)
        self._nodes.advance(now_s)
        self._load.advance(now_s, query, len(self._pods.ready))
        self._pods.scale(self._load.desired, now_s)
        for pod in self._pods.pending:
            if (node := self._nodes.place()) is None:
                break
            self._pods.bind(pod, node, now_s)
        self._pods.run_due(now_s)
        self._provisioner.advance(self._pods.pending, now_s)
        self._nodes.give_back_empty(now_s)
        out, self._pods.out = self._pods.out, []
        return out

    def next_due_s(self, now_s: float) -> float:
        """When `tick` has something to do next, if nothing is reported before; now or earlier if it has already."""
        if self._stale or self._pods.out:
            return now_s
        return min(self._load.due_s(now_s), self._nodes.due_s(now_s), self._pods.due_s, self._provisioner.batch.due_s)

    # What containers do. Reports on pods that there are not, or no more, are ignored.

    def started(self, pod: str, now_s: float, url: str) -> None:
        """It listens at `url`."""
        self._pods.started(pod, url)

    def step(self, pod: str, now_s: float, name: str) -> None:
        """It has begun a step of its start: `imports`, `weights`, `compile`."""
        self._pods.step(pod, name)

    def probed(self, pod: str, now_s: float, ok: bool) -> None:
        """Its readiness probe has succeeded or failed."""
        self._pods.probed(pod, now_s, ok)

    def gauges(self, pod: str, running: int | None, waiting: int | None) -> None:
        """Its own gauges, as scraped."""
        self._pods.gauges(pod, running, waiting)

    def killed(self, pod: str, now_s: float) -> None:
        """A person kills its container, which `ended` will tell as any other end: this is for the feed."""
        self._pods.killed(pod, now_s)

    def ended(self, pod: str, now_s: float, why: str) -> None:
        """Its container runs no more. If it was not asked to end it is started again on its node, with back-off."""
        self._stale = True
        self._pods.ended(pod, now_s, why)

    # What a presenter may do. Raises NotPossible.

    def pin(self, replicas: int | None, now_s: float) -> None:
        """Set the number of pods whatever the load, or with None scale by load again."""
        self._stale = True
        self._load.pin(replicas, now_s)

    def hold(self, on: bool, now_s: float) -> None:
        """Stay at the number of pods that is asked for, or go on."""
        self._stale = True
        self._load.hold(on, now_s)

    def interrupt(self, node: str | None, now_s: float) -> str:
        """Give a Spot node its two minutes' notice: this one, or one with pods before one without. Its name."""
        self._stale = True
        chosen = self._spot(node)
        ends_s = now_s + NOTICE_S
        moves = len(chosen.pods)
        kind = chosen.offer.type.name
        text = f"Spot takes {kind} {short(chosen.name)} away in {lasted(NOTICE_S)}"
        self._feed.note(now_s, "interruption", "notice", chosen.name, f"{text}, with {count(moves, 'pod')} on it")
        self._nodes.drain(chosen, now_s, f"takes no new pods and loses the {moves} that it has", ends_s)
        for name in sorted(chosen.pods):
            self._pods.evict(self._pods.all[name], now_s)
        return chosen.name

    def set_unavailable(self, instance_type: str, on: bool, now_s: float) -> None:
        """Let AWS have no instance of this type, or have some again. What was refused meanwhile stays out of the choice
        until three minutes after the refusal."""
        if instance_type not in self._catalogue.type_names:
            known = ", ".join(self._catalogue.type_names)
            raise NotPossible(f"No instance type {instance_type} in the price table; there are {known}.")
        unavailable = self._provisioner.shortage.unavailable
        if on == (instance_type in unavailable):
            return
        if on:
            unavailable.add(instance_type)
            self._feed.note(now_s, "chaos", "unavailable", instance_type, f"{instance_type} is sold out from now on")
        else:
            unavailable.discard(instance_type)
            self._feed.note(now_s, "chaos", "available", instance_type, f"{instance_type} is to be had again")

    # What can be seen.

    def snapshot(self, now_s: float) -> ClusterSnapshot:
        return ClusterSnapshot(
            at_s=now_s,
            heard_s=now_s,
            source="local",
            simulated=True,
            pods=tuple(pod_view(pod, self._spec.pod) for pod in self._pods.all.values()),
            nodes=tuple(node_view(node) for node in self._nodes.all.values()),
            autoscaler=self._load.view(),
            speed_up=self._speed_up,
            happenings=tuple(self.happenings)[-SHOWN:],
        )

    @property
    def happenings(self) -> deque[Happening]:
        """The latest 200, oldest first."""
        return self._feed.latest

    def usd(self, now_s: float) -> float:
        """Spent on nodes so far, in dollars."""
        return self._nodes.usd(now_s)

    def gpu_hours(self, now_s: float) -> float:
        """Paid for so far, in hours of one GPU."""
        return self._nodes.gpu_hours(now_s)

    def _spot(self, name: str | None) -> NodeState:
        if name is not None:
            node = self._nodes.all.get(name)
            if node is None:
                raise NotPossible(f"There is no node {name}.")
            if node.offer.capacity_type != "spot":
                raise NotPossible(f"{name} is on-demand: AWS takes only Spot nodes away.")
            if node.phase != "ready":
                raise NotPossible(f"{name} is {node.phase}: only a node that is ready can be given notice.")
            return node
        spot = [n for n in self._nodes.all.values() if n.offer.capacity_type == "spot" and n.phase == "ready"]
        if not spot:
            raise NotPossible("There is no Spot node that is ready. Wait for one.")
        return self._rng.choice([node for node in spot if node.pods] or spot)
