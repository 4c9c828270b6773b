"""The delay chain of a spike: how long each link between the load's rise and its relief took. Pure; times in seconds.

A *spike* begins at its `edge`. With offered load = requests in flight + waiting, and the base = its least value in the
last 10 s, a spike is there when in two points in a row the offered load is above the base by the autoscaler's target
per pod, and at least twice the base. The edge is the last moment before that at which less than a tenth of the rise
had come. It is over, and another may begin, when the load has been down by half of its rise for 10 s.

Points come once a second, so that what is read from them (`edge`, `recovered`) is up to a second late; `crossed`,
`decision` and all that pods and nodes do come from happenings, with times of their own, and from points only where no
happening tells them sooner.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from inference.cluster.snapshot import Happening

WINDOW_S = 10.0
RISEN_POINTS = 2
TOLERANCE = 1.1  # the HPA's: below it a metric above the target changes nothing
POINT_S = 1.0
RECOVERED_S = 5.0
LOOK_FOR_S = 900.0
TTFT_TARGET_MS = 1000.0

LABELS = {
    "edge": "Load rises",
    "crossed": "Metric above target",
    "decision": "More pods asked for",
    "pending": "Pod made",
    "node": "Node ready",
    "ready": "Pod ready",
    "completion": "First answer by a new replica",
    "recovered": "TTFT target met again",
}


@dataclass(frozen=True, slots=True)
class Point:
    """One second. `in_flight` are requests at replicas, `waiting` those in line before them; `metric` and `target` are
    the autoscaler's, None where unknown; `ttft_p95_ms` is None without a first token lately; `urls` are those of the
    ready replicas."""

    at_s: float
    in_flight: int
    waiting: int
    metric: float | None
    target: float | None
    desired: int
    ready: int
    pods: int
    ttft_p95_ms: float | None
    urls: tuple[str, ...] = ()

    @property
    def offered(self) -> int:
        return self.in_flight + self.waiting


@dataclass(frozen=True, slots=True)
class Completion:
    """A request that a replica has answered to its end."""

    url: str
    at_s: float


@dataclass(frozen=True, slots=True)
class Step:
    """`t_s` counts from the edge; None when it has not happened. Then `why_not` says why it need not, where that is
    known; it is empty while it may still come."""

    name: str
    label: str
    t_s: float | None
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class Chain:
    """`steps` are those of LABELS, in that order. `over_at_s` is when the load was down again, None while it is up."""

    edge_at_s: float
    steps: tuple[Step, ...]
    over_at_s: float | None = None

    def t_s(self, name: str) -> float | None:
        return next(step.t_s for step in self.steps if step.name == name)


class ChainWatch:
    """Told of points in the order of their times, and of happenings and completions in any order, at the latest a few
    seconds after they were; `chain` is that of the latest spike."""

    def __init__(self, ttft_target_ms: float = TTFT_TARGET_MS) -> None:
        self._ttft_target_ms = ttft_target_ms
        self._points: list[Point] = []
        self._happenings: list[Happening] = []
        self._completed: dict[tuple[str, int], Completion] = {}
        self._recent: deque[Point] = deque()
        self._risen = 0
        self._edge: Point | None = None
        self._peak = 0
        self._low_since_s: float | None = None
        self._over_at_s: float | None = None
        self.finished: list[Chain] = []
        """Of the spikes before the latest."""

    @property
    def chain(self) -> Chain | None:
        return None if self._edge is None else self._read(until_s=self._edge.at_s + LOOK_FOR_S)

    def point(self, point: Point) -> None:
        """The next second. One that is not later than the last is left out."""
        if self._recent and point.at_s <= self._recent[-1].at_s:
            return
        self._recent.append(point)
        while self._recent[0].at_s < point.at_s - WINDOW_S:
            self._recent.popleft()
        if self._edge is not None and point.at_s <= self._edge.at_s + LOOK_FOR_S:
            self._points.append(point)
        if self._edge is None or self._over_at_s is not None:
            self._look_for_edge(point)
        else:
            self._look_for_end(point)
        self._forget()

    def happening(self, happening: Happening) -> None:
        self._happenings.append(happening)

    def completed(self, replica_url: str, at_s: float) -> None:
        """Cheap, as it is to be called for every request: one is kept for each replica and second."""
        key = (replica_url, int(at_s))
        known = self._completed.get(key)
        if known is None or at_s < known.at_s:
            self._completed[key] = Completion(replica_url, at_s)

    def _look_for_edge(self, point: Point) -> None:
        base = min(p.offered for p in self._recent)
        rise = point.offered - base
        risen = point.target is not None and rise >= max(point.target, base)
        self._risen = self._risen + 1 if risen else 0
        if self._risen < RISEN_POINTS:
            return
        quiet = [p for p in self._recent if p.offered - base < rise / 10]
        if self._edge is not None:
            self.finished.append(self._read(until_s=quiet[-1].at_s))
        self._edge, self._peak = quiet[-1], point.offered
        self._risen, self._low_since_s, self._over_at_s = 0, None, None
        self._points = [p for p in self._recent if p.at_s >= self._edge.at_s]

    def _look_for_end(self, point: Point) -> None:
        assert self._edge is not None
        self._peak = max(self._peak, point.offered)
        if point.offered - self._edge.offered > (self._peak - self._edge.offered) / 2:
            self._low_since_s = None
            return
        if self._low_since_s is None:
            self._low_since_s = point.at_s
        if point.at_s - self._low_since_s >= WINDOW_S:
            self._over_at_s = self._low_since_s

    def _forget(self) -> None:
        """All but the last seconds and what the latest chain is read from: of completions each replica's first."""
        window_s = self._recent[0].at_s - POINT_S
        self._happenings = [h for h in self._happenings if h.at_s >= window_s or self._is_of_spike(h.at_s)]
        kept, firsts = {}, set()
        for key, one in sorted(self._completed.items(), key=lambda item: item[1].at_s):
            first = self._is_of_spike(one.at_s) and one.url not in firsts
            if first:
                firsts.add(one.url)
            if first or one.at_s >= window_s:
                kept[key] = one
        self._completed = kept

    def _is_of_spike(self, at_s: float) -> bool:
        return self._edge is not None and self._edge.at_s <= at_s <= self._edge.at_s + LOOK_FOR_S

    def _read(self, until_s: float) -> Chain:
        assert self._edge is not None
        edge_s = self._edge.at_s
        return read(
            [p for p in self._points if p.at_s <= until_s],
            [h for h in self._happenings if edge_s <= h.at_s <= until_s],
            [c for c in self._completed.values() if edge_s <= c.at_s <= until_s],
            self._over_at_s,
            self._ttft_target_ms,
        )


def chains(
    points: Iterable[Point],
    happenings: Iterable[Happening] = (),
    completions: Iterable[Completion] = (),
    ttft_target_ms: float = TTFT_TARGET_MS,
) -> tuple[Chain, ...]:
    """Those of all spikes in a record, the first first."""
    watch = ChainWatch(ttft_target_ms)
    told = [*((h.at_s, 0, h) for h in happenings), *((c.at_s, 1, c) for c in completions)]
    told += [(p.at_s, 2, p) for p in points]
    for _, _, one in sorted(told, key=lambda row: row[:2]):
        match one:
            case Happening():
                watch.happening(one)
            case Completion():
                watch.completed(one.url, one.at_s)
            case Point():
                watch.point(one)
    latest = watch.chain
    return (*watch.finished, latest) if latest else tuple(watch.finished)


def read(
    points: Sequence[Point],
    happenings: Sequence[Happening],
    completions: Sequence[Completion],
    over_at_s: float | None,
    ttft_target_ms: float,
) -> Chain:
    """The chain of the spike whose edge is the first of `points`, from what was told of it since."""
    edge = points[0]
    over = over_at_s is not None

    def told(kind: str, what: str) -> list[Happening]:
        return [h for h in happenings if h.kind == kind and h.what == what]

    crossed_s = _first(
        [h.at_s for h in told("metric", "crossed")],
        [p.at_s for p in points if p.metric is not None and p.target and p.metric > p.target * p.ready * TOLERANCE],
    )
    decision_s = _first(
        [h.at_s for h in told("scale", "up")],
        [p.at_s for p in points if p.desired > edge.desired],
    )
    pending_s = node_s = ready_s = completion_s = None
    if decision_s is not None:
        since_s = decision_s - POINT_S  # it may be known from a point, which comes later than what it led to
        made = [h for h in told("pod", "made") if h.at_s >= since_s]
        pending_s = _first([h.at_s for h in made], [p.at_s for p in points if p.pods > edge.pods])
        node_s = _first([h.at_s for h in told("node", "ready") if h.at_s >= since_s])
        names = {h.subject for h in made}
        ready = [h.at_s for h in told("pod", "ready") if h.subject in names]
        ready_s = _first(ready if made else [p.at_s for p in points if p.ready > edge.ready])
        old = {*edge.urls}
        completion_s = _first([c.at_s for c in completions if c.url not in old and c.at_s >= since_s])
    recovered_s, missed = _recovered(points, ttft_target_ms)
    unneeded = "no pod was needed" if over and decision_s is None else ""
    ordered = any(h.at_s >= edge.at_s for h in told("node", "ordered"))
    found = {
        "edge": (edge.at_s, ""),
        "crossed": (crossed_s, "the metric stayed within its target" if over else ""),
        "decision": (decision_s, "no more pods were asked for" if over else ""),
        "pending": (pending_s, unneeded),
        "node": (node_s, unneeded or ("room was left on a node" if ready_s is not None and not ordered else "")),
        "ready": (ready_s, unneeded),
        "completion": (completion_s, unneeded),
        "recovered": (recovered_s, _unmissed(points) if over and not missed else ""),
    }
    steps = tuple(
        Step(name, LABELS[name], None if at_s is None else at_s - edge.at_s, why_not if at_s is None else "")
        for name, (at_s, why_not) in found.items()
    )
    return Chain(edge.at_s, steps, over_at_s)


def _first(*times_s: Sequence[float]) -> float | None:
    return min((t for times in times_s for t in times), default=None)


def _unmissed(points: Sequence[Point]) -> str:
    measured = any(p.ttft_p95_ms is not None for p in points)
    return "it was met all along" if measured else "no time to first token was measured"


def _recovered(points: Sequence[Point], target_ms: float) -> tuple[float | None, bool]:
    """When a p95 within the target, that then held for 5 s, came after one that was not; whether there was such a one.
    Seconds without a first token are no evidence."""
    missed, since_s = False, None
    for p in points:
        if p.ttft_p95_ms is None or p.ttft_p95_ms > target_ms:
            missed = missed or p.ttft_p95_ms is not None
            since_s = None
        elif missed:
            since_s = p.at_s if since_s is None else since_s
            if p.at_s - since_s >= RECOVERED_S:
                return since_s, True
    return None, missed
