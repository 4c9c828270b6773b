"""What the control plane's tests stand on: a scripted autoscaler, and containers that live on a clock of their own."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import count

from inference.cluster.coldstart import ColdStart
from inference.cluster.karpenter import catalogue
from inference.cluster.karpenter.catalogue import Catalogue
from inference.cluster.plane import Action, Kill, Plane, Start, Stop
from inference.cluster.snapshot import ClusterSnapshot
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

T0 = 1_800_000_000.0

POD = PodSpec(
    cpu=3.0,
    memory_gib=12.0,
    gpus=1,
    replicas=1,
    args=("--model", "mistral", "--max-num-seqs=24"),
    port=8000,
    probe_path="/health",
    probe_period_s=5.0,
    probe_failures=3,
    pre_stop_s=10.0,
    grace_period_s=90.0,
)
POOL = NodePoolSpec(
    requirements=(
        Requirement("karpenter.k8s.aws/instance-family", "In", ("g5", "g6", "g6e")),
        Requirement("karpenter.k8s.aws/instance-gpu-count", "In", ("1",)),
        Requirement("karpenter.k8s.aws/instance-gpu-memory", "Gt", ("20000",)),
        Requirement("karpenter.sh/capacity-type", "In", ("spot", "on-demand")),
    ),
    limits={"nvidia.com/gpu": 20},
    consolidation="WhenEmpty",
    consolidate_after_s=30.0,
    termination_grace_period_s=110.0,
)
SCALING = ScalingSpec(
    min_replicas=1,
    max_replicas=10,
    triggers=(Trigger("running", "sum(running)", 25.0), Trigger("waiting", "sum(waiting)", 25.0)),
    formula="running + waiting * 10",
    target=25.0,
    activation_target=0.0,
    metric_type="AverageValue",
    fallback=Fallback(3, 2),
    up=Rules((Policy("Percent", 900, 15.0), Policy("Pods", 9, 15.0))),
    down=Rules((Policy("Percent", 50, 60.0),), stabilization_s=300.0),
)
OFFERS = catalogue.load()
SPEC = ClusterSpec(pod=POD, scaling=SCALING, node_pool=POOL, scrape_interval_s=5.0)


def with_pool(**changes: object) -> ClusterSpec:
    return replace(SPEC, node_pool=replace(POOL, **changes))


def with_pod(**changes: object) -> ClusterSpec:
    return replace(SPEC, pod=replace(POD, **changes))


@dataclass(frozen=True)
class Decided:
    desired: int
    metric: float | None
    triggers: Mapping[str, float | None]
    fallback: bool
    why: str


@dataclass
class Scripted:
    """An autoscaler that wants what it is told to, with a sync every 15 s."""

    desired: int = 1
    metric: float | None = 0.0
    fallback: bool = False
    syncs: list[tuple[float, int, int]] = field(default_factory=list)
    resets: int = 0
    _due_s: float = T0

    def due_s(self, now_s: float) -> float:
        return max(now_s, self._due_s)

    def reset(self) -> None:
        self.resets += 1
        self._due_s = T0

    def sync(self, now_s: float, query: Callable[[str], float | None], current: int, ready: int) -> Decided:
        self._due_s = now_s + 15.0
        self.syncs.append((now_s, current, ready))
        why = f"told to want {self.desired}"
        return Decided(self.desired, self.metric, {"running": query("sum(running)")}, self.fallback, why)


class Simulated:
    """A plane, and containers that need `boots_s` to be ready and `stops_s` to end. After each tick it is looked at
    whether everything is as it must always be."""

    def __init__(
        self,
        spec: ClusterSpec = SPEC,
        *,
        offers: Catalogue | None = None,
        cold_start: ColdStart | None = None,
        speed_up: float = 1.0,
        seed: int = 0,
        boots_s: float = 60.0,
        stops_s: float = 5.0,
        scaling: object | None = None,
    ) -> None:
        self.scaling = scaling or Scripted(desired=spec.pod.replicas)
        self.now_s = T0
        self.boots_s = boots_s
        self.stops_s = stops_s
        self.actions: list[tuple[float, Action]] = []
        self.starts: Counter[str] = Counter()
        self.ends: Counter[str] = Counter()
        self.running: dict[str, int] = {}
        self.query: Callable[[str], float | None] = lambda query: 0.0
        offers = offers or OFFERS
        self._grace_s = spec.pod.grace_period_s
        self._holds = {offer.type.name: offer.type.holds(spec.pod) for offer in offers.offers}
        cold_start = (cold_start or ColdStart.load()).faster(speed_up)
        self.plane = Plane(spec, self.scaling, offers, cold_start, seed=seed, speed_up=speed_up)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = count()
        self._usd = 0.0
        self._bound: dict[str, str | None] = {}
        self._draining: dict[str, set[str]] = {}

    @property
    def view(self) -> ClusterSnapshot:
        return self.plane.snapshot(self.now_s)

    @property
    def phases(self) -> Counter[str]:
        return Counter(pod.phase for pod in self.view.pods)

    @property
    def types(self) -> Counter[str]:
        return Counter(node.instance_type for node in self.view.nodes)

    def words(self, kind: str) -> list[str]:
        return [one.what for one in self.plane.happenings if one.kind == kind]

    def texts(self, kind: str, what: str) -> list[str]:
        return [one.text for one in self.plane.happenings if (one.kind, one.what) == (kind, what)]

    def run(self, for_s: float) -> None:
        """Let time pass, from one thing that happens to the next."""
        until_s = self.now_s + for_s
        for _ in range(20_000):
            next_s = self._events[0][0] if self._events else float("inf")
            due_s = max(self.now_s, min(self.plane.next_due_s(self.now_s), next_s))
            if due_s > until_s:
                self.now_s = until_s
                return
            self.now_s = due_s
            while self._events and self._events[0][0] <= self.now_s:
                heapq.heappop(self._events)[2]()
            self.tick()
        raise AssertionError("it never comes to rest")

    def tick(self) -> list[Action]:
        actions = self.plane.tick(self.now_s, self.query)
        for action in actions:
            self.actions.append((self.now_s, action))
            match action:
                case Start(pod):
                    assert pod not in self.running, f"{pod} is started while it runs"
                    self.starts[pod] += 1
                    self.running[pod] = run = self.starts[pod]
                    self._later(0.0, pod, run, lambda pod=pod: self.plane.started(pod, self.now_s, f"http://{pod}"))
                    self._later(0.0, pod, run, lambda pod=pod: self.plane.step(pod, self.now_s, "weights"))
                    self._later(self.boots_s, pod, run, lambda pod=pod: self.plane.probed(pod, self.now_s, True))
                case Stop(pod, grace_s):
                    assert pod in self.running, f"{pod} is stopped and does not run"
                    assert 0 <= grace_s <= self._grace_s
                    delay_s = min(self.stops_s, grace_s)
                    self._later(delay_s, pod, self.running[pod], lambda pod=pod: self.end(pod, "as asked"))
                case Kill(pod):
                    assert pod in self.running, f"{pod} is killed and does not run"
                    self.end(pod, "killed")
        self.check()
        return actions

    def end(self, pod: str, why: str = "exit 137") -> None:
        """Its process ends now."""
        del self.running[pod]
        self.ends[pod] += 1
        self.plane.ended(pod, self.now_s, why)

    def check(self) -> None:
        """What must hold at every moment."""
        view = self.view
        on = Counter(pod.node for pod in view.pods if pod.node)
        assert set(on) <= {node.name for node in view.nodes}, "a pod is on a node that there is not"
        assert all(on[n.name] <= self._holds[n.instance_type] for n in view.nodes), "more pods on a node than fit"
        for node in view.nodes:
            pods = {pod.name for pod in view.pods if pod.node == node.name}
            if node.phase == "ordered":
                assert not pods, "a pod is on a node that is not ready"
            if node.phase == "draining":
                assert pods <= self._draining.setdefault(node.name, pods), "a draining node got a pod"
        for pod in view.pods:
            assert self._bound.setdefault(pod.name, pod.node) in (None, pod.node), "a pod has moved"
            self._bound[pod.name] = pod.node
        usd = self.plane.usd(self.now_s)
        assert usd >= self._usd - 1e-12, "dollars were given back"
        self._usd = usd
        living = {pod.name for pod in view.pods}
        assert set(self.running) <= living, "a container runs without a pod"
        seqs = [one.seq for one in self.plane.happenings]
        assert seqs == list(range(seqs[0], seqs[0] + len(seqs))) if seqs else True

    def _later(self, delay_s: float, pod: str, run: int, call: Callable[[], None]) -> None:
        def unless_over() -> None:
            if self.running.get(pod) == run:
                call()

        heapq.heappush(self._events, (self.now_s + delay_s, next(self._count), unless_over))
