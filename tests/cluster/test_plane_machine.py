"""Whatever happens in whatever order: what must hold at every moment holds, and it comes to rest where it should.

The invariants are those of `Simulated.check`, looked at after each tick.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from inference.cluster.cluster import NotPossible
from inference.cluster.spec import Requirement
from tests.cluster.plane_harness import Simulated, with_pool

TYPES = st.sampled_from(["g6.xlarge", "g5.xlarge", "g6.12xlarge"])
G5_G6 = Requirement("karpenter.k8s.aws/instance-family", "In", ("g5", "g6"))


class Cluster(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.sold_out: set[str] = set()

    @initialize(
        seed=st.integers(0, 1000),
        gpus=st.sampled_from([4, 8, 40]),
        boots_s=st.sampled_from([1.0, 60.0]),
        stops_s=st.sampled_from([0.0, 5.0, 100.0]),
        grace_s=st.sampled_from([None, 20.0, 110.0]),
    )
    def begin(self, seed: int, gpus: int, boots_s: float, stops_s: float, grace_s: float | None) -> None:
        spec = with_pool(requirements=(G5_G6,), limits={"nvidia.com/gpu": gpus}, termination_grace_period_s=grace_s)
        self.gpus = gpus
        self.sim = Simulated(spec, seed=seed, boots_s=boots_s, stops_s=stops_s)

    @rule(desired=st.integers(1, 10))
    def load(self, desired: int) -> None:
        self.sim.scaling.desired = desired

    @rule(replicas=st.one_of(st.none(), st.integers(0, 10)))
    def pin(self, replicas: int | None) -> None:
        self.sim.plane.pin(replicas, self.sim.now_s)

    @rule(on=st.booleans())
    def hold(self, on: bool) -> None:
        self.sim.plane.hold(on, self.sim.now_s)

    @rule(for_s=st.sampled_from([0.0, 0.3, 3.0, 20.0, 45.0, 200.0]))
    def wait(self, for_s: float) -> None:
        self.sim.run(for_s)

    @precondition(lambda self: self.sim.running)
    @rule(index=st.integers(0, 9))
    def crash(self, index: int) -> None:
        running = sorted(self.sim.running)
        self.sim.end(running[index % len(running)])

    @precondition(lambda self: self.sim.running)
    @rule(index=st.integers(0, 9), ok=st.booleans())
    def probe(self, index: int, ok: bool) -> None:
        running = sorted(self.sim.running)
        self.sim.plane.probed(running[index % len(running)], self.sim.now_s, ok)

    @rule()
    def interrupt(self) -> None:
        try:
            name = self.sim.plane.interrupt(None, self.sim.now_s)
        except NotPossible:
            assert not any(n.phase == "ready" and n.capacity_type == "spot" for n in self.sim.view.nodes)
        else:
            assert name in {node.name for node in self.sim.view.nodes if node.phase == "draining"}

    @rule(name=TYPES, on=st.booleans())
    def sell_out(self, name: str, on: bool) -> None:
        self.sim.plane.set_unavailable(name, on, self.sim.now_s)
        (self.sold_out.add if on else self.sold_out.discard)(name)

    def teardown(self) -> None:
        """Left alone, with everything to be had, as many pods as are asked for are ready, as far as the limits go, each
        on a node that is needed, and every container that was started runs or has ended once."""
        if not hasattr(self, "sim"):
            return
        sim = self.sim
        for name in sorted(self.sold_out):
            sim.plane.set_unavailable(name, False, sim.now_s)
        sim.plane.pin(None, sim.now_s)
        sim.plane.hold(False, sim.now_s)
        sim.run(1500)
        wanted = min(sim.scaling.desired, self.gpus)
        assert sim.view.ready == wanted, sim.phases
        assert {node.name for node in sim.view.nodes} == {pod.node for pod in sim.view.pods if pod.node}
        assert sim.starts == sim.ends + type(sim.ends)(sim.running.keys())
        assert sum(sim.starts.values()) >= len(sim.view.pods) - sim.phases["pending"]


Cluster.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None, print_blob=True)
TestCluster = Cluster.TestCase
