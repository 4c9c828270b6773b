"""One script against one set of manifests: the real control plane, arithmetic and engine core, on a fast clock."""

from __future__ import annotations

from dataclasses import dataclass, field

from inference.cluster.autoscaling import promql
from inference.cluster.autoscaling.scaler import Scaler
from inference.cluster.coldstart import ColdStart
from inference.cluster.karpenter import catalogue
from inference.cluster.plane import Plane
from inference.cluster.scraping import Scrapes
from inference.cluster.snapshot import ClusterSnapshot
from inference.cluster.spec import ClusterSpec
from inference.engine.profile import Profile
from inference.histogram import Histogram
from webapp.crowd import expected_requests, seconds_per_reply
from webapp.gateway.metrics import E2E_BUCKETS_S, TTFT_BUCKETS_S
from webapp.rehearse.clock import Clock
from webapp.rehearse.gateway import Call
from webapp.rehearse.kubelet import Kubelet
from webapp.rehearse.script import Script, Step
from webapp.room.events import Control
from webapp.room.state import RoomState

LEAD_S = 600.0
"""The cluster starts so long before the code is shown: its least number of pods is ready by then."""
COOL_DOWN_S = 900.0
"""So long after the talk's end the nodes still count: what it has bought is to be paid for until it is given back."""
AGAIN_S = 0.01
EXPECTED = "crowdspike_expected_requests"


@dataclass(frozen=True, slots=True)
class Point:
    """One second. `queue` are requests that wait, in gateway or replica; `expected` is what the room exports;
    `pods` are all that are not on their way out."""

    at_s: float
    expected: float
    running: int
    queue: int
    desired: int
    ready: int
    pods: int


@dataclass(slots=True)
class Run:
    """What came of it. Times are seconds from when the code was shown; calls in the order in which they came."""

    script: Script
    calls: list[Call] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)
    usd: float = 0.0
    gpu_hours: float = 0.0
    bought: set[tuple[str, str]] = field(default_factory=set)
    """Instance type and capacity type of the nodes."""


def rehearse(script: Script, spec: ClusterSpec, profile: Profile | None, seed: int = 1) -> Run:
    """The same arguments give the same run. Without a profile each replica is as fast as its node's GPU. Raises
    promql.QueryError for a trigger's query that can't be read."""
    return _Rehearsal(script, spec, profile, seed).run()


class _Rehearsal:
    """Inside, time begins LEAD_S before the script's."""

    def __init__(self, script: Script, spec: ClusterSpec, profile: Profile | None, seed: int) -> None:
        self._script = script
        self._spec = spec
        self._clock = Clock()
        self._scrapes = Scrapes()
        self._queries = {trigger.query: promql.parse(trigger.query) for trigger in spec.scaling.triggers}
        self._plane = Plane(spec, Scaler(spec.scaling), catalogue.load(), ColdStart.load(), seed=seed, speed_up=None)
        self._kubelet = Kubelet(self._plane, spec, profile, self._clock, self._scrapes, seed, self._heard)
        self._state = RoomState(script.info)
        self._ttft, self._e2e = Histogram(TTFT_BUCKETS_S), Histogram(E2E_BUCKETS_S)
        self._run = Run(script)

    def run(self) -> Run:
        ends_s = self._script.ends_s + COOL_DOWN_S
        for step in self._script.steps:
            self._clock.at(LEAD_S + step.at_s, self._do, step)
        for second in range(int(ends_s) + 1):
            self._clock.at(LEAD_S + second, self._look)
        self._clock.at(0.0, self._scrape)
        self._until(LEAD_S)
        usd, gpu_hours = self._spent()
        self._until(LEAD_S + ends_s)
        self._run.usd, self._run.gpu_hours = self._spent()[0] - usd, self._spent()[1] - gpu_hours
        for call in self._run.calls:
            assert call.outcome is not None and call.ended_s is not None, "a request has not ended"
            call.came_s -= LEAD_S
            call.ended_s -= LEAD_S
            call.first_s = None if call.first_s is None else call.first_s - LEAD_S
        return self._run

    def _until(self, end_s: float) -> None:
        clock, plane, kubelet = self._clock, self._plane, self._kubelet
        due_s = plane.next_due_s(clock.now_s)
        while min(due_s, clock.due_s) <= end_s:
            if clock.due_s < due_s:
                clock.step()
                if kubelet.changed:
                    kubelet.changed = False
                    due_s = plane.next_due_s(clock.now_s)
                continue
            clock.now_s = max(clock.now_s, due_s)
            for action in plane.tick(clock.now_s, self._query):
                kubelet.carry_out(action)
            kubelet.changed = False
            due_s = max(plane.next_due_s(clock.now_s), clock.now_s + AGAIN_S)
        clock.now_s = end_s

    def _query(self, query: str) -> float | None:
        return self._queries[query].value(self._scrapes, self._clock.now_s)

    def _do(self, step: Step) -> None:
        if isinstance(step.event, Control):
            self._state.apply(step.event)
        else:
            self._state.add(step.event)
        if step.request is not None:
            call = Call(step.request, self._clock.now_s)
            self._run.calls.append(call)
            gateway, now_s = self._kubelet.gateway, self._clock.now_s
            tired_s = now_s + gateway.limits.max_wait_s
            self._clock.at(tired_s, gateway.tired, call, tired_s)
            gateway.came(call, now_s)

    def _heard(self, call: Call) -> None:
        """As the gateway's metrics count it."""
        assert call.ttft_s is not None and call.ended_s is not None
        self._ttft.observe(call.ttft_s)
        self._e2e.observe(call.ended_s - call.came_s)

    def _expected(self) -> float:
        at_ms = round((self._clock.now_s - LEAD_S) * 1000)
        return expected_requests(self._state, at_ms, seconds_per_reply(self._ttft, self._e2e))

    def _scrape(self) -> None:
        """Of the web process."""
        now_s = self._clock.now_s
        self._scrapes.put_values("crowdspike", now_s, {EXPECTED: self._expected()}, {"job": "crowdspike"})
        self._clock.at(now_s + self._spec.scrape_interval_s, self._scrape)

    def _look(self) -> None:
        view = self._plane.snapshot(self._clock.now_s)
        self._run.bought.update((node.instance_type, node.capacity_type) for node in view.nodes)
        cores = [replica.core.scheduler for replica in self._kubelet.replicas.values()]
        self._run.points.append(
            Point(
                at_s=self._clock.now_s - LEAD_S,
                expected=self._expected(),
                running=sum(len(core.running) for core in cores),
                queue=self._kubelet.gateway.waiting + sum(len(core.waiting) for core in cores),
                desired=_desired(view),
                ready=view.ready,
                pods=sum(pod.phase != "terminating" for pod in view.pods),
            )
        )

    def _spent(self) -> tuple[float, float]:
        return self._plane.usd(self._clock.now_s), self._plane.gpu_hours(self._clock.now_s)


def _desired(view: ClusterSnapshot) -> int:
    assert view.autoscaler is not None
    return view.autoscaler.desired
