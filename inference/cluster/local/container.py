"""One run of a pod's container, as the kubelet sees to it: start, readiness probe, stop with grace, end."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

from inference.cluster.local.fetching import fetch
from inference.cluster.local.process import Process, how_it_ended
from inference.cluster.spec import PodSpec
from inference.exchange import UpstreamError
from inference.upstream import Upstream
from inference.vllm import READINESS

LOADS_WITHIN_S = 30.0
# The kubelet's: what SIGTERM gets though preStop has used up the grace period (kuberuntime_container.go).
LEAST_GRACE_S = 2.0
STEP = re.compile(r"start: (\w+),")
SERVES = re.compile(r"simulated vLLM replica on (http://\S+)")


class Reports(Protocol):
    """Who hears of it, in the loop. `ended` comes last and once."""

    def step(self, pod: str, name: str) -> None: ...

    def started(self, pod: str, url: str) -> None:
        """It listens; whether it is ready is for the probe to say."""

    def probed(self, pod: str, ok: bool) -> None: ...

    def ended(self, pod: str, why: str) -> None: ...


class Container:
    """Starts its process as soon as `starting` has room, and keeps the room until the process has loaded its code.

    `output` gets its lines. `url` is there from when it listens.
    """

    def __init__(
        self,
        pod: str,
        command: Sequence[str],
        spec: PodSpec,
        starting: asyncio.Semaphore,
        output: deque[str],
        reports: Reports,
    ) -> None:
        self.pod = pod
        self.url: str | None = None
        self.stopping = False
        self.gone = asyncio.Event()
        self._command = command
        self._spec = spec
        self._starting = starting
        self._output = output
        self._reports = reports
        self._process: Process | None = None
        self._loaded = asyncio.Event()
        self._timers: list[asyncio.TimerHandle] = []
        self._tasks = [asyncio.create_task(self._start())]

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def stop(self, grace_s: float) -> None:
        """SIGTERM after the preStop wait, SIGKILL after `grace_s`. Asked again, the shorter grace holds."""
        self.stopping = True
        pre_stop_s = min(self._spec.pre_stop_s, grace_s)
        self._later(pre_stop_s, self.terminate)
        self._later(max(grace_s, pre_stop_s + LEAST_GRACE_S), self.kill)

    def terminate(self) -> None:
        """SIGTERM, from which on it takes no new request and lets those under way end."""
        self.stopping = True
        self._send(Process.terminate)

    def kill(self) -> None:
        """SIGKILL."""
        self._send(Process.kill)

    def _send(self, send: Callable[[Process], None]) -> None:
        if self._process is not None:
            send(self._process)
        elif not self.gone.is_set():
            self._finish("ended before its process was started")

    def _later(self, delay_s: float, call: Callable[[], None]) -> None:
        self._timers.append(asyncio.get_running_loop().call_later(delay_s, call))

    async def _start(self) -> None:
        async with self._starting:
            try:
                self._process = Process(self._command, self._said, self._exited)
            except OSError as error:
                self._finish(f"could not be started: {error}")
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(self._loaded.wait(), LOADS_WITHIN_S)

    def _said(self, line: str) -> None:
        self._loaded.set()
        self._output.append(line)
        if found := STEP.match(line):
            self._reports.step(self.pod, found[1])
        elif found := SERVES.match(line):
            self.url = found[1]
            self._tasks.append(asyncio.create_task(self._probe(self.url)))
            self._reports.started(self.pod, self.url)

    def _exited(self, status: int) -> None:
        said = f": {self._output[-1]}" if status > 0 and self._output else ""
        self._finish(how_it_ended(status) + said)

    def _finish(self, why: str) -> None:
        for timer in self._timers:
            timer.cancel()
        for task in self._tasks:
            task.cancel()
        self.gone.set()
        self._reports.ended(self.pod, why)

    async def _probe(self, url: str) -> None:
        """At once, as its start is short beside the period here; then once a period."""
        loop = asyncio.get_running_loop()
        upstream = Upstream(url)
        try:
            while True:
                due = loop.time() + self._spec.probe_period_s
                self._reports.probed(self.pod, await self._answers(upstream))
                await asyncio.sleep(due - loop.time())
        finally:
            upstream.close()

    async def _answers(self, upstream: Upstream) -> bool:
        try:
            status, _ = await fetch(upstream, self._spec.probe_path, READINESS.timeout_s)
        except (UpstreamError, TimeoutError):
            return False
        return 200 <= status < 400
