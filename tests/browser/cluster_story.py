"""A spike that a test can stop at any second, and the program that shows it: with a scripted cluster, in a thread."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import uvicorn

from inference.cluster.snapshot import Autoscaler, ClusterSnapshot, Happening
from tests.scripted_cluster import ON_DEMAND, T0_S, ScriptedCluster, node, pod, snapshot
from webapp.app import Front, running_app
from webapp.gateway.record import Record
from webapp.live.fleet import Fleet
from webapp.live.vitals import Vitals
from webapp.server import Server, listen
from webapp.settings import Settings
from webapp.talk.samples import sample_talk

TOKEN = "presenter-token"


class Host:
    """The program in a thread of its own, with a scripted cluster."""

    def __init__(self, store: Path) -> None:
        self.cluster = ScriptedCluster(snapshot(1, time.time()))
        self.front: Front | None = None
        self.url = ""
        self._store = store
        self._bound = threading.Event()
        self._server: Server | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    async def _serve(self) -> None:
        settings = Settings(store=str(self._store), secret="s" * 32, presenter_token=TOKEN, simulated=True)
        async with running_app(settings, [sample_talk()], self.cluster) as front:
            sock = listen("127.0.0.1", 0)
            config = uvicorn.Config(front, lifespan="off", log_config=None, timeout_graceful_shutdown=1)
            self.front, self._server = front, Server(config)
            self.url = f"http://127.0.0.1:{sock.getsockname()[1]}"
            task = asyncio.create_task(self._server._serve(sockets=[sock]))
            await self._server.bound.wait()
            self._bound.set()
            await task
            sock.close()

    def __enter__(self) -> Host:
        self._thread.start()
        assert self._bound.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.should_exit = True
        self._thread.join(20)


class Story:
    """A spike, second by second: the load rises at 0, KEDA asks for ten pods, nodes and pods come one after another.
    It goes through the program's own arithmetic, with a clock of its own."""

    def __init__(self, cluster: ScriptedCluster) -> None:
        self.cluster = cluster
        self.second = -300
        self.load = {"audience": 0, "amplified": 0, "k6": 0, "locust": 0, "batch": 0, "api": 0}
        self.vitals = Vitals(self.load, lambda: max(0, sum(self.load.values()) - 32 * self.ready), self.now_s)
        self.fleet = Fleet(cluster, self.vitals, self.now_s, "2026-07-20")

    def now_s(self) -> float:
        return T0_S + self.second

    @property
    def ready(self) -> int:
        return 1 if self.second < 24 else min(4, 1 + (self.second - 22) // 2)

    def play(self, until: int) -> None:
        while self.second < until:
            self.second += 1
            self._requests()
            self.cluster.now = self._snapshot()
            self.fleet.tick()

    def show(self, now: ClusterSnapshot) -> None:
        """Another view of the cluster, a second later."""
        self.second += 1
        self.cluster.now = now

    def _requests(self) -> None:
        t, wave = self.second, abs(self.second % 9 - 4)
        self.load["audience"] = 4 + wave if t < 0 else 44 + wave
        self.load["amplified"] = 0 if t < 2 else 40
        self.load["k6"] = max(0, min(48, 8 * (t - 4)))
        late = 0.0 if t < 0 else max(0.0, min(t, 26) * 0.12 - max(0, t - 28) * 0.35)
        for n in range(2 + 5 * self.ready):
            ttft_s = 0.12 + 0.01 * n + late * (0.6 + 0.02 * n)
            url = f"http://replica-{n % self.ready}"
            ended = Record(f"r{t}.{n}", "/v1", "audience", 200, ttft_s + 1, ttft_s=ttft_s, completion_tokens=120)
            self.fleet.ended(ended._replace(replica=url))
            self.vitals.ended(ended)

    def _snapshot(self) -> ClusterSnapshot:
        t, early, made = self.second, T0_S - 1800, T0_S + 9
        waiting = max(0, sum(self.load.values()) - 32 * self.ready)
        running = min(32 * self.ready, sum(self.load.values()))
        metric = float(running + 10 * waiting)
        desired = 10 if t >= 9 else 1
        pods = [pod(0, created_s=early, running=min(32, running), waiting=waiting, url="http://replica-0")]
        nodes = [node(0, ON_DEMAND, created_s=early)]
        for n in range(1, 9 if t >= 9 else 1):
            url, load = f"http://replica-{n}", max(0, min(32, running - 32 * n))
            if n < self.ready:
                pods.append(pod(n, created_s=made, running=load, url=url))
            elif n < 7:
                steps = {4: "compile", 5: "weights"}
                pods.append(pod(n, "starting" if n in steps else "image", made, step=steps.get(n, "")))
            else:
                pods.append(pod(n, "pending", made))
            if n < 8:
                nodes.append(node(n, phase="ordered" if n == 7 else "ready", created_s=made))
        if t >= 9:
            pods.append(pod(9, "unready", early, running=3, restarts=1))
            nodes.append(node(9, phase="draining", created_s=early, ends_s=T0_S + 134))
        why = f"running {running} + 10 × waiting {waiting} = {metric:.0f} → {metric:.0f}/25 = {metric / 25:.1f}"
        triggers = {"running": float(running), "waiting": float(waiting)}
        scaler = Autoscaler(1, 10, desired, 25.0, metric, "running + waiting * 10", triggers, f"{why} → {desired}")
        told = tuple(h for h in TOLD if h.at_s <= self.now_s())
        return ClusterSnapshot(self.now_s(), self.now_s(), "local", True, tuple(pods), tuple(nodes), scaler, 10.0, told)


def _told(number: int, t_s: float, kind: Any, what: str, subject: str, text: str) -> Happening:
    return Happening(number, T0_S + t_s, kind, what, subject, text)


TOLD = (
    _told(1, 1.4, "metric", "crossed", "", "Load 96 is above the 25 that one ready pod should carry"),
    _told(2, 9.0, "scale", "up", "", "1 → 10 pods: running 32 + 10 × waiting 20 = 232 → 232/25 = 9.3 → 10"),
    _told(3, 9.3, "pod", "made", pod(1).name, "9 pods made; no node has room for them"),
    _told(4, 9.9, "node", "ordered", "ip-10-0-1-0001", "Karpenter buys 8 × g6.xlarge Spot at $0.37/h"),
    _told(5, 14.6, "node", "ready", "ip-10-0-1-0001", "Node 0001 is ready, 5 s after it was ordered"),
    _told(6, 24.2, "pod", "ready", pod(1).name, "Pod 0001x is ready, 15 s after it was asked for"),
    _told(7, 27.1, "interruption", "noticed", "ip-10-0-1-0009", "Spot node 0009 is taken back in two minutes"),
    _told(8, 33.0, "chaos", "unavailable", "g5.xlarge", "No more g5.xlarge can be had: by hand"),
)
