"""The last twenty minutes, one point a second: what the stage's plots draw. Nothing in it is a secret."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import asdict, dataclass, fields
from typing import Any

from inference.cluster.snapshot import ClusterSnapshot
from webapp.live.vitals import Reading

LENGTH_S = 20 * 60


@dataclass(frozen=True, slots=True)
class Point:
    """One second, `t` in whole Unix seconds. `goal` is the target times the pods that are ready: what they are to
    carry. `metric`, `goal`, `desired` are None without an autoscaler. `nodes` are those that have joined. Requests in
    flight by who sent them, of which `waiting` have no replica yet; TTFTs in seconds."""

    t: int
    metric: float | None
    goal: float | None
    desired: int | None
    ready: int
    pods: int
    nodes: int
    audience: int
    amplified: int
    scripted: int
    api: int
    waiting: int
    ttft_p50_s: float | None
    ttft_p95_s: float | None
    tokens_per_s: float
    usd_per_hour: float | None


def point(snapshot: ClusterSnapshot, vitals: Reading, now_s: float) -> Point:
    scaler = snapshot.autoscaler
    return Point(
        t=math.floor(now_s),
        metric=rounded(scaler.metric) if scaler else None,
        goal=rounded(scaler.target * snapshot.ready) if scaler else None,
        desired=scaler.desired if scaler else None,
        ready=snapshot.ready,
        pods=len(snapshot.pods),
        nodes=sum(node.phase != "ordered" for node in snapshot.nodes),
        **vitals.in_flight,
        waiting=vitals.waiting,
        ttft_p50_s=rounded(vitals.ttft_p50_s, 3),
        ttft_p95_s=rounded(vitals.ttft_p95_s, 3),
        tokens_per_s=round(vitals.tokens_per_s, 1),
        usd_per_hour=rounded(snapshot.usd_per_hour, 3),
    )


def rounded(value: float | None, digits: int = 1) -> float | None:
    return None if value is None else round(value, digits)


class History:
    """A ring of points in the order of their times. A second that is there already is replaced, an earlier one is
    left out."""

    def __init__(self, length: int = LENGTH_S) -> None:
        self._points: deque[Point] = deque(maxlen=length)

    def add(self, new: Point) -> None:
        if self._points and new.t < self._points[-1].t:
            return
        if self._points and new.t == self._points[-1].t:
            self._points.pop()
        self._points.append(new)

    def columns(self) -> dict[str, list[Any]]:
        """By the name of the figure, oldest first: as a plot wants them."""
        names = [f.name for f in fields(Point)]
        rows = [asdict(p) for p in self._points]
        return {name: [row[name] for row in rows] for name in names}
