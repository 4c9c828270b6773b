"""The cluster as this process shows and steers it: history and delay chain, brought up to date once a second."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from inference.cluster.chain import Chain, ChainWatch
from inference.cluster.chain import Point as ChainPoint
from inference.cluster.cluster import Cluster
from inference.cluster.snapshot import ClusterSnapshot
from webapp.gateway.record import Record
from webapp.live.controls import Controls
from webapp.live.history import History, point
from webapp.live.vitals import Reading, Vitals
from webapp.views.cluster import cluster_document

FRESH_S = 0.25
MIN_SLOTS, MAX_SLOTS = 5, 20


class Fleet:
    """`clock` gives Unix seconds. `ended` is one of the gateway's `on_end`. `chain` is that of the latest spike.
    `price_date` is of when the nodes' prices are. To be ticked once a second."""

    def __init__(self, cluster: Cluster, vitals: Vitals, clock: Callable[[], float], price_date: str = "") -> None:
        self.cluster = cluster
        self.vitals = vitals
        self.controls = Controls(cluster)
        self.history = History()
        self.chain: Chain | None = None
        self._clock = clock
        self._price_date = price_date
        self._chains = ChainWatch()
        self._seen = 0
        self._document: dict[str, Any] = {}
        self._document_at_s = 0.0

    def ended(self, record: Record) -> None:
        if record.replica is not None and record.status < 400:
            self._chains.completed(record.replica, self._clock())

    def tick(self) -> None:
        now_s, snapshot, vitals = self._clock(), self.cluster.snapshot(), self.vitals.read()
        self.history.add(point(snapshot, vitals, now_s))
        for happening in snapshot.happenings:
            if happening.seq > self._seen:
                self._seen = happening.seq
                self._chains.happening(happening)
        self._chains.point(chain_point(snapshot, vitals, now_s))
        self.chain = self._chains.chain

    def document(self, fresh: bool = False) -> dict[str, Any]:
        """The `cluster` part of the stage's snapshot; made at most four times a second unless it is to be `fresh`."""
        now_s = self._clock()
        if fresh or not 0 <= now_s - self._document_at_s < FRESH_S:
            snapshot, vitals = self.cluster.snapshot(), self.vitals.latest
            self._document = cluster_document(snapshot, vitals, self.chain, now_s, self._price_date)
            self._document_at_s = now_s
        return self._document

    @property
    def slots(self) -> int:
        """Places for pods on the stage."""
        snapshot = self.cluster.snapshot()
        most = snapshot.autoscaler.max_replicas if snapshot.autoscaler else 0
        return min(MAX_SLOTS, max(MIN_SLOTS, most, len(snapshot.pods)))


def chain_point(snapshot: ClusterSnapshot, vitals: Reading, now_s: float) -> ChainPoint:
    scaler = snapshot.autoscaler
    return ChainPoint(
        at_s=now_s,
        in_flight=vitals.at_replicas,
        waiting=vitals.waiting,
        metric=scaler.metric if scaler else None,
        target=scaler.target if scaler else None,
        desired=scaler.desired if scaler else len(snapshot.pods),
        ready=snapshot.ready,
        pods=len(snapshot.pods),
        ttft_p95_ms=None if vitals.ttft_p95_s is None else vitals.ttft_p95_s * 1000,
        urls=tuple(pod.url for pod in snapshot.pods if pod.phase == "ready" and pod.url),
    )
