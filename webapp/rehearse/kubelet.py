"""The pods' containers on a fast clock: an engine's core in each, its start as long as the profile says."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import partial

from inference.cluster.plane import Action, Kill, Plane, Start, Stop
from inference.cluster.scraping import Scrapes
from inference.cluster.spec import ClusterSpec
from inference.discovery import EVERY_S as DISCOVERED_EVERY_S
from inference.engine import profile as profiles
from inference.engine.app import DEFAULT_PROFILE
from inference.engine.core import Core
from inference.engine.profile import Profile
from inference.engine.scheduler import Sequence
from inference.vllm import SERVED_MODEL_NAME
from webapp.rehearse.clock import Clock
from webapp.rehearse.gateway import Call, Gateway, Replica

RUNNING, WAITING = "vllm:num_requests_running", "vllm:num_requests_waiting"
# vLLM's arguments in the Deployment that replace figures of the profile.
TAKEN = {
    "--max-num-seqs": "max_num_seqs",
    "--max-num-batched-tokens": "max_num_batched_tokens",
    "--max-model-len": "max_model_len",
}


class Kubelet:
    """Carries out the plane's actions and reports back to it. `heard(call)` is told of each answer that is whole.

    A replica behaves like `profile`, by default like the GPU of its node.
    """

    def __init__(
        self,
        plane: Plane,
        spec: ClusterSpec,
        profile: Profile | None,
        clock: Clock,
        scrapes: Scrapes,
        seed: int,
        heard: Callable[[Call], None],
    ) -> None:
        self.gateway = Gateway(self._send, seed)
        self.replicas: dict[str, Replica] = {}
        self.changed = False
        """The plane has been told something since this was last set to False."""
        self._plane = plane
        self._spec = spec
        words = spec.pod.arguments
        self._given = {TAKEN[name]: float(words[name]) for name in TAKEN if name in words}
        self._profile = profile
        self._profiles: dict[str, Profile] = {}
        self._labels = {**spec.pod.labels, "model_name": words.get("--served-model-name", SERVED_MODEL_NAME)}
        self._clock = clock
        self._scrapes = scrapes
        self._seed = seed
        self._heard = heard
        self._stopping: dict[str, Replica] = {}

    def carry_out(self, action: Action) -> None:
        match action:
            case Start(pod, gpu):
                self._profiles[pod] = self._profile_on(gpu)
                self._start(pod)
            case Stop(pod, grace_s):
                replica = self.replicas[pod]
                replica.open = False
                self._stopping[pod] = replica
                self._clock.at(self._clock.now_s + self._spec.pod.pre_stop_s, self._leave, replica)
                self._clock.at(self._clock.now_s + grace_s, self._end, replica, "SIGKILL after the grace period")
            case Kill(pod):
                self._end(self.replicas[pod], "SIGKILL")

    def _profile_on(self, gpu: str) -> Profile:
        profile = self._profile or profiles.load(profiles.of_gpu(gpu) or DEFAULT_PROFILE)
        return profile.with_values(self._given, "the Deployment's arguments", profile.max_num_seqs.date)

    def _start(self, pod: str) -> None:
        profile = self._profiles[pod]
        core = Core(
            profile.capacity,
            profile.step_s,
            async_scheduling=profile.async_scheduling,
            seed=zlib.crc32(f"{pod} {self._seed}".encode()),
        )
        replica = self.replicas[pod] = Replica(pod, core)
        self.gateway.replicas.append(replica)
        began_s = at_s = self._clock.now_s
        for step, lasts in (
            ("imports", profile.startup_imports_s),
            ("weights", profile.startup_weights_s),
            ("compile", profile.startup_compile_s),
        ):
            self._clock.at(at_s, self._report, replica, partial(self._plane.step, pod, at_s, step))
            at_s += lasts.value
        self._clock.at(at_s, self._listen, replica)
        period_s = self._spec.pod.probe_period_s
        probe_s = began_s + -(-(at_s - began_s) // period_s) * period_s
        self._clock.at(probe_s, self._report, replica, partial(self._plane.probed, pod, probe_s, True))
        self._clock.at(probe_s + DISCOVERED_EVERY_S, self._discovered, replica)

    def _report(self, replica: Replica, tell: Callable[[], None]) -> None:
        if self._runs(replica):
            tell()
            self.changed = True

    def _listen(self, replica: Replica) -> None:
        if self._runs(replica):
            self._plane.started(replica.pod, self._clock.now_s, f"http://{replica.pod}:{self._spec.pod.port}")
            self.changed = True
            interval_s = self._spec.scrape_interval_s
            offset_s = zlib.crc32(replica.pod.encode()) / 2**32 * interval_s  # as Prometheus spreads them
            self._clock.at(self._clock.now_s + (offset_s - self._clock.now_s) % interval_s, self._scrape, replica)

    def _scrape(self, replica: Replica) -> None:
        if self._runs(replica):
            now_s, counts = self._clock.now_s, replica.core.scheduler.counts
            values = {RUNNING: counts.running, WAITING: counts.waiting}
            self._scrapes.put_values(replica.pod, now_s, values, {**self._labels, "pod": replica.pod})
            self._plane.gauges(replica.pod, counts.running, counts.waiting)
            self._clock.at(now_s + self._spec.scrape_interval_s, self._scrape, replica)

    def _discovered(self, replica: Replica) -> None:
        if self._runs(replica) and replica.pod not in self._stopping:
            replica.open = True
            self.gateway.serve()

    def _leave(self, replica: Replica) -> None:
        """After SIGTERM: it ends when its last answer has."""
        if self._runs(replica) and not replica.calls:
            self._end(replica, "exit status 0")
        elif self._runs(replica):
            self._clock.at(self._clock.now_s + 1.0, self._leave, replica)

    def _end(self, replica: Replica, why: str) -> None:
        if not self._runs(replica):
            return
        del self.replicas[replica.pod]
        self._stopping.pop(replica.pod, None)
        self._scrapes.forget(replica.pod, self._clock.now_s)
        self.gateway.lost(replica, self._clock.now_s)
        self._plane.ended(replica.pod, self._clock.now_s, why)
        self.changed = True

    def _runs(self, replica: Replica) -> bool:
        """It may have ended since this was planned, and another have begun under its name."""
        return self.replicas.get(replica.pod) is replica

    # The engine.

    def _send(self, call: Call, replica: Replica) -> None:
        profile = self._profiles[replica.pod]
        room = int(profile.max_model_len.value) - call.request.prompt_tokens
        begins_s = self._clock.now_s + profile.request_overhead_ms.value / 1000
        if room < 1:
            self._clock.at(begins_s, self.gateway.ended, call, "refused", begins_s)
            return
        call.seq = Sequence(call.request.prompt_tokens, min(call.request.output_tokens, room), payload=call)
        self._clock.at(begins_s, self._add, replica, call.seq)

    def _add(self, replica: Replica, seq: Sequence) -> None:
        if self._runs(replica):
            idle = replica.core.due_s is None
            replica.core.add(seq, self._clock.now_s)
            if idle:
                self._plan(replica)

    def _plan(self, replica: Replica) -> None:
        if replica.core.due_s is not None:
            self._clock.at(replica.core.due_s, self._advance, replica)

    def _advance(self, replica: Replica) -> None:
        if not self._runs(replica):
            return
        now_s = self._clock.now_s
        for seq in replica.core.advance(now_s)[1]:
            call = seq.payload
            assert isinstance(call, Call)
            if call.first_s is None:
                call.first_s = now_s
            if seq.finished:
                self.gateway.ended(call, "answered", now_s)
                self._heard(call)
        self._plan(replica)
