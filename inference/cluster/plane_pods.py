"""The pods of one Deployment, as the ReplicaSet controller and the nodes' kubelets keep them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from inference.cluster.plane_actions import Action, Kill, Start, Stop
from inference.cluster.plane_feed import Feed, count, lasted
from inference.cluster.plane_names import Names, short
from inference.cluster.plane_nodes import NEVER, Nodes, NodeState
from inference.cluster.snapshot import PodPhase
from inference.cluster.spec import PodSpec

BACK_OFF_FIRST_S = 10.0
BACK_OFF_MOST_S = 300.0


@dataclass(slots=True)
class BackOff:
    """kubelet's CrashLoopBackOff (pkg/kubelet, doBackOff): the first restart comes at once, the next after 10 s, each
    further one after twice as long, at most 5 min; forgotten after 10 min without an end."""

    _next_s: float = 0.0
    _restarted_s: float = -NEVER

    def restart_s(self, now_s: float) -> float:
        """When the container that has ended now is started again."""
        if now_s - self._restarted_s > 2 * BACK_OFF_MOST_S:
            self._next_s = 0.0
        self._restarted_s = now_s + self._next_s
        self._next_s = min(max(BACK_OFF_FIRST_S, 2 * self._next_s), BACK_OFF_MOST_S)
        return self._restarted_s


@dataclass(slots=True)
class PodState:
    """`runs_s` is when its container is to be started, None while it runs or has no node. `runs`: it was told to run
    and has not been reported as ended. `seen`: Karpenter knows that it found no room."""

    name: str
    created_s: float
    phase: PodPhase = "pending"
    since_s: float = 0.0
    node: str | None = None
    step: str = ""
    url: str | None = None
    running: int | None = None
    waiting: int | None = None
    restarts: int = 0
    ready_s: float = 0.0
    failures: int = 0
    runs_s: float | None = None
    runs: bool = False
    seen: bool = False
    back_off: BackOff = field(default_factory=BackOff)

    def enter(self, phase: PodPhase, now_s: float, step: str = "") -> None:
        self.phase, self.since_s, self.step = phase, now_s, step


def by_deletion(pods: Iterable[PodState]) -> list[PodState]:
    """In the order in which a ReplicaSet gives them up: without a node, not started, not ready, sharing its node with
    more of its kind, ready for a shorter time, restarted more often, younger. (ActivePodsWithRanks in
    kubernetes/pkg/controller/controller_utils.go, without deletion costs and without its rounding of ages to powers
    of two, which makes the choice among old pods random.)"""
    pods = list(pods)
    sharing = Counter(pod.node for pod in pods)

    def rank(pod: PodState) -> tuple[float, ...]:
        ready = pod.phase == "ready"
        return (
            pod.node is not None,
            pod.phase in ("starting", "ready", "unready"),
            ready,
            -sharing[pod.node],
            -pod.ready_s if ready else 0.0,
            -pod.restarts,
            -pod.created_s,
        )

    return sorted(pods, key=rank)


class Pods:
    """All the pods there are; `out` are the actions that have not been fetched yet."""

    def __init__(self, spec: PodSpec, names: Names, nodes: Nodes, feed: Feed) -> None:
        self.all: dict[str, PodState] = {}
        self.out: list[Action] = []
        self._spec = spec
        self._names = names
        self._nodes = nodes
        self._feed = feed

    @property
    def active(self) -> list[PodState]:
        """Those that count as replicas: all that are not on their way out."""
        return [pod for pod in self.all.values() if pod.phase != "terminating"]

    @property
    def pending(self) -> list[PodState]:
        return [pod for pod in self.all.values() if pod.phase == "pending"]

    @property
    def ready(self) -> list[PodState]:
        return [pod for pod in self.all.values() if pod.phase == "ready"]

    def scale(self, desired: int, now_s: float) -> None:
        """The ReplicaSet controller: make what is missing, give up what is too many."""
        active = self.active
        for _ in range(desired - len(active)):
            pod = PodState(self._names.pod(), now_s, since_s=now_s)
            self.all[pod.name] = pod
            self._note(pod, now_s, "made", "was made")
        if len(active) > desired:
            for pod in by_deletion(active)[: len(active) - desired]:
                self.delete(pod, now_s)

    def bind(self, pod: PodState, node: NodeState, now_s: float) -> None:
        pod.node = node.name
        pod.enter("image", now_s)
        pod.runs_s = self._nodes.bind(node, pod.name, now_s)
        self._note(pod, now_s, "scheduled", f"goes to {short(node.name)} ({node.offer.type.name})")

    def run_due(self, now_s: float) -> None:
        """kubelet: start the containers whose image is there or whose back-off is over."""
        for pod in self.all.values():
            if pod.runs_s is None or pod.runs_s > now_s:
                continue
            pod.runs_s, pod.runs = None, True
            if pod.phase == "image":
                waited_s = now_s - pod.since_s
                image = f"its image took {lasted(waited_s)}" if waited_s else "its image is there"
                self._note(pod, now_s, "started", f"starts, {image}")
            else:
                self._note(pod, now_s, "restarted", f"starts again (restart {pod.restarts})")
            pod.enter("starting", now_s)
            assert pod.node is not None, "it is bound"
            self.out.append(Start(pod.name, self._nodes.all[pod.node].offer.type.gpu_name))

    def evict(self, pod: PodState, now_s: float) -> None:
        """Karpenter drains its node: the pod's grace period ends with the NodePool's at the latest. Not so with Spot's
        end, of which a pod is told nothing."""
        self.delete(pod, now_s, self._nodes.grace_s)

    def delete(self, pod: PodState, now_s: float, at_most_s: float = NEVER) -> None:
        """Delete the pod: a container that runs gets its grace period, of `at_most_s`."""
        if pod.phase == "terminating":
            return
        if not pod.runs:
            self._remove(pod, now_s)
            return
        pod.enter("terminating", now_s)
        self.out.append(Stop(pod.name, min(at_most_s, self._spec.grace_period_s)))

    def take(self, pod: PodState, now_s: float) -> None:
        """Its node is taken away under it."""
        if pod.runs:
            self.out.append(Kill(pod.name))
            self._note(pod, now_s, "lost", "was killed: its node was taken away before it had finished")
        self._remove(pod, now_s)

    def killed(self, name: str, now_s: float) -> None:
        """A person kills its container; that it has ended is reported next."""
        if (pod := self.all.get(name)) and pod.runs:
            self._feed.note(now_s, "chaos", "kill", name, f"Pod {short(name)} was killed by hand")

    def started(self, name: str, url: str) -> None:
        if (pod := self.all.get(name)) and pod.runs:
            pod.url = url

    def step(self, name: str, step: str) -> None:
        if (pod := self.all.get(name)) and pod.runs and pod.phase == "starting":
            pod.step = step

    def gauges(self, name: str, running: int | None, waiting: int | None) -> None:
        if (pod := self.all.get(name)) and pod.runs:
            pod.running, pod.waiting = running, waiting

    def probed(self, name: str, now_s: float, ok: bool) -> None:
        """The readiness probe: one success makes ready, `probe_failures` in a row make unready."""
        pod = self.all.get(name)
        if pod is None or not pod.runs or pod.phase == "terminating":
            return
        pod.failures = 0 if ok else pod.failures + 1
        if ok and pod.phase != "ready":
            first = pod.phase == "starting" and not pod.restarts
            pod.enter("ready", now_s)
            pod.ready_s = now_s
            after = f", {lasted(now_s - pod.created_s)} after it was made" if first else " again"
            self._note(pod, now_s, "ready", f"is ready{after}")
        elif pod.phase == "ready" and pod.failures >= self._spec.probe_failures:
            pod.enter("unready", now_s)
            self._note(
                pod, now_s, "unready", f"has failed {count(pod.failures, 'probe')} in a row and gets no requests"
            )

    def ended(self, name: str, now_s: float, why: str) -> None:
        """Its process has ended: as it was asked to, or else it is started again where it is."""
        pod = self.all.get(name)
        if pod is None or not pod.runs:
            return
        pod.runs = False
        self._withdraw(pod)
        pod.url = pod.running = pod.waiting = None
        pod.failures = 0
        if pod.phase == "terminating":
            self._remove(pod, now_s)
            return
        pod.restarts += 1
        pod.runs_s = pod.back_off.restart_s(now_s)
        wait_s = pod.runs_s - now_s
        pod.enter("starting", now_s, f"back-off {wait_s:.0f} s" if wait_s else "restart")
        again = f"starts again in {lasted(wait_s)}" if wait_s else "starts again at once"
        self._note(pod, now_s, "lost", f"has ended ({why}) and {again}")

    @property
    def due_s(self) -> float:
        """When the next container is to be started."""
        return min((pod.runs_s for pod in self.all.values() if pod.runs_s is not None), default=NEVER)

    def _withdraw(self, pod: PodState) -> None:
        """What was to be done with it and was not fetched yet has no object any more."""
        self.out = [action for action in self.out if action.pod != pod.name]

    def _remove(self, pod: PodState, now_s: float) -> None:
        del self.all[pod.name]
        if pod.node is not None:
            self._nodes.leave(pod.node, pod.name, now_s)
        self._note(pod, now_s, "removed", "is gone")

    def _note(self, pod: PodState, now_s: float, what: str, text: str) -> None:
        self._feed.note(now_s, "pod", what, pod.name, f"Pod {short(pod.name)} {text}")
