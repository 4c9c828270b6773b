"""A room's timeline: what the cluster was and what the gateways did, second by second. Lines of the log, and back.

`Encoder` makes a line a second, small because what has not changed is left out; `fold` reads those of all web
processes back in. Nothing that can be worked out from them is stored: plots, costs and delay chains are not.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

from inference.cluster.chain import Chain, Completion, chains
from inference.cluster.snapshot import Autoscaler, ClusterSnapshot, Happening, Node, Pod
from webapp.live.fleet import chain_point
from webapp.live.vitals import Reading
from webapp.log.segments import SegmentTail
from webapp.log.store import Store

TYPE = "second"
WHOLE_EVERY_MS = 60_000
STALE_MS = 2500
SHOWN_HAPPENINGS = 40
SAME_WITHIN_S = 3.0
GAUGES = {"metric": None, "triggers": None, "why": ""}


@dataclass(frozen=True, slots=True)
class Frame:
    """One process's second, as decoded. `simulated` says that the model was."""

    writer: str
    at_ms: int
    vitals: Reading
    cluster: ClusterSnapshot | None
    happenings: tuple[Happening, ...] = ()
    completions: tuple[Completion, ...] = ()
    simulated: bool = False


@dataclass(frozen=True, slots=True)
class Moment:
    """A second of the room: all gateways' vitals together, and the cluster (without its happenings) as last heard."""

    at_s: float
    vitals: Reading
    cluster: ClusterSnapshot | None
    simulated: bool = False


@dataclass(frozen=True)
class Timeline:
    """Moments in order, with gaps where nobody was there; happenings and completions in order."""

    moments: tuple[Moment, ...]
    happenings: tuple[Happening, ...] = ()
    completions: tuple[Completion, ...] = ()

    def at(self, at_s: float) -> Moment | None:
        """The last moment not after `at_s`; None before the first."""
        index = bisect_right(self.moments, at_s, key=lambda moment: moment.at_s)
        return self.moments[index - 1] if index else None

    def snapshot(self, at_s: float) -> ClusterSnapshot | None:
        """The cluster as it was shown at that time, with its latest happenings."""
        moment = self.at(at_s)
        if moment is None or moment.cluster is None:
            return None
        end = bisect_right(self.happenings, at_s, key=lambda happening: happening.at_s)
        return replace(moment.cluster, happenings=self.happenings[max(0, end - SHOWN_HAPPENINGS) : end])

    @cached_property
    def chains(self) -> tuple[Chain, ...]:
        """The delay chain of each spike."""
        return self.chains_until(float("inf"))

    def chains_until(self, at_s: float) -> tuple[Chain, ...]:
        """As they were known at that time."""
        return chains(
            (chain_point(m.cluster, m.vitals, m.at_s) for m in self.moments if m.cluster and m.at_s <= at_s),
            (h for h in self.happenings if h.at_s <= at_s),
            (c for c in self.completions if c.at_s <= at_s),
        )


# ---- writing


class Encoder:
    """The lines of one process in one room. The cluster goes in whole when more than gauges has changed, and once a
    minute; a happening and a replica's first completion go in once."""

    def __init__(self, writer: str, simulated: bool = False) -> None:
        self._writer = writer
        self._simulated = simulated
        self._whole_ms = 0
        self._last: ClusterSnapshot | None = None
        self._happened_seq = 0
        self._completed: set[Completion] = set()

    def line(
        self, at_ms: int, vitals: Reading, cluster: ClusterSnapshot | None, completions: Iterable[Completion] = ()
    ) -> bytes:
        line: dict[str, Any] = {"type": TYPE, "writer": self._writer, "at_ms": at_ms, "vitals": _vitals(vitals)}
        if self._simulated:
            line["simulated"] = True
        if cluster is not None:
            line |= self._cluster(at_ms, cluster)
        new = set(completions)
        if first := new - self._completed:
            line["completed"] = sorted([one.url, round(one.at_s, 3)] for one in first)
        self._completed = new
        return json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")

    def _cluster(self, at_ms: int, cluster: ClusterSnapshot) -> dict[str, Any]:
        bare, last = replace(cluster, happenings=()), self._last
        line: dict[str, Any] = {}
        if last is None or _shape(bare) != _shape(last) or at_ms - self._whole_ms >= WHOLE_EVERY_MS:
            line["cluster"] = _brief(bare)
            self._whole_ms = at_ms
        else:
            line["gauges"] = _gauges(bare, last)
        self._last = bare
        if new := [h for h in cluster.happenings if h.seq > self._happened_seq]:
            line["happened"] = [_brief(h) for h in new]
            self._happened_seq = new[-1].seq
        return line


def _vitals(reading: Reading) -> dict[str, Any]:
    return {**_brief(reading), "in_flight": {who: count for who, count in reading.in_flight.items() if count}}


def _shape(cluster: ClusterSnapshot) -> ClusterSnapshot:
    """What is left of it without what changes every second."""
    scaling = cluster.autoscaler
    return replace(
        cluster,
        at_s=0,
        heard_s=0,
        pods=tuple(replace(pod, running=None, waiting=None) for pod in cluster.pods),
        autoscaler=scaling and replace(scaling, **GAUGES),
    )


def _gauges(now: ClusterSnapshot, last: ClusterSnapshot) -> dict[str, Any]:
    """What has changed: two figures for a pod, by its place, and what the autoscaler read."""
    gauges: dict[str, Any] = {"at_s": _plain(now.at_s), "heard_s": _plain(now.heard_s)}
    pods = enumerate(zip(now.pods, last.pods, strict=True))
    if changed := {str(i): [p.running, p.waiting] for i, (p, was) in pods if p != was}:
        gauges["pods"] = changed
    if now.autoscaler and last.autoscaler and now.autoscaler != last.autoscaler:
        pairs = ((name, getattr(now.autoscaler, name), getattr(last.autoscaler, name)) for name in GAUGES)
        gauges["autoscaler"] = {name: _plain(value) for name, value, was in pairs if value != was}
    return gauges


def _brief(record: Any) -> dict[str, Any]:
    """A dataclass's fields but those at their defaults."""
    values = ((f, getattr(record, f.name)) for f in fields(record))
    return {f.name: _plain(value) for f, value in values if value != f.default}


def _plain(value: Any) -> Any:
    """JSON-ready; times and measures to a thousandth."""
    match value:
        case float():
            return int(value) if value.is_integer() else round(value, 3)
        case Pod() | Node() | Autoscaler() | Happening():
            return _brief(value)
        case tuple():
            return [_plain(one) for one in value]
        case Mapping():
            return {key: _plain(one) for key, one in value.items()}
    return value


# ---- reading


async def read(store: Store, code: str) -> Timeline:
    """The whole timeline of a room, empty where none was kept. Raises StoreError."""
    tail = SegmentTail(store, f"rooms/{code}/timeline/")
    lines: list[bytes] = []
    while new := await tail.poll():
        lines += new
    return fold(decode(lines))


def decode(lines: Iterable[bytes]) -> list[Frame]:
    """The frames of lines in which each writer's stand in order; other lines of the timeline are left out."""
    frames, clusters = [], {}
    for data in map(json.loads, lines):
        if data["type"] != TYPE:
            continue
        writer = data["writer"]
        if whole := data.get("cluster"):
            clusters[writer] = ClusterSnapshot.from_json({"autoscaler": None, "happenings": (), **whole})
        elif (gauges := data.get("gauges")) and writer in clusters:
            clusters[writer] = _with_gauges(clusters[writer], gauges)
        else:
            clusters.pop(writer, None)
        frames.append(
            Frame(
                writer,
                data["at_ms"],
                _reading(data["vitals"]),
                clusters.get(writer),
                tuple(Happening(**one) for one in data.get("happened", ())),
                tuple(Completion(url, at_s) for url, at_s in data.get("completed", ())),
                data.get("simulated", False),
            )
        )
    return frames


def _reading(data: Mapping[str, Any]) -> Reading:
    return Reading(**{**data, "in_flight": Reading().in_flight | data["in_flight"]})


def _with_gauges(cluster: ClusterSnapshot, gauges: Mapping[str, Any]) -> ClusterSnapshot:
    pods = list(cluster.pods)
    for i, (running, waiting) in gauges.get("pods", {}).items():
        pods[int(i)] = replace(pods[int(i)], running=running, waiting=waiting)
    scaling = cluster.autoscaler and replace(cluster.autoscaler, **gauges.get("autoscaler", {}))
    return replace(cluster, at_s=gauges["at_s"], heard_s=gauges["heard_s"], pods=tuple(pods), autoscaler=scaling)


def fold(frames: Iterable[Frame]) -> Timeline:
    """One timeline from the frames of all processes, in any order of the processes."""
    ordered = sorted(frames, key=lambda frame: (frame.at_ms, frame.writer))
    latest: dict[str, Frame] = {}
    moments: list[Moment] = []
    for i, frame in enumerate(ordered):
        latest[frame.writer] = frame
        if i + 1 < len(ordered) and ordered[i + 1].at_ms // 1000 == frame.at_ms // 1000:
            continue
        now = [one for one in latest.values() if frame.at_ms - one.at_ms <= STALE_MS]
        clusters = [one.cluster for one in now if one.cluster]
        freshest = max(clusters, key=lambda cluster: (cluster.heard_s, cluster.at_s), default=None)
        vitals = together([one.vitals for one in now])
        moments.append(Moment(frame.at_ms / 1000, vitals, freshest, any(one.simulated for one in now)))
    completions = sorted((c for frame in ordered for c in frame.completions), key=lambda c: (c.at_s, c.url))
    return Timeline(tuple(moments), _once(ordered), tuple(completions))


def together(readings: Sequence[Reading]) -> Reading:
    """Of several gateways at one time. Counts and rates add up; percentiles do not, so the worst one stands for all."""
    in_flight = Counter[str]()
    for reading in readings:
        in_flight.update(reading.in_flight)
    p50_s = [reading.ttft_p50_s for reading in readings if reading.ttft_p50_s is not None]
    p95_s = [reading.ttft_p95_s for reading in readings if reading.ttft_p95_s is not None]
    return Reading(
        in_flight=dict(in_flight),
        waiting=sum(reading.waiting for reading in readings),
        ttft_p50_s=max(p50_s, default=None),
        ttft_p95_s=max(p95_s, default=None),
        tokens_per_s=sum(reading.tokens_per_s for reading in readings),
        requests_per_s=sum(reading.requests_per_s for reading in readings),
        tokens_per_min=sum(reading.tokens_per_min for reading in readings),
        failed_per_min=sum(reading.failed_per_min for reading in readings),
    )


def _once(frames: Iterable[Frame]) -> tuple[Happening, ...]:
    """Every happening once, numbered anew: each process that watches a cluster tells of what it saw itself."""
    told = sorted(((h, f.writer) for f in frames for h in f.happenings), key=lambda one: (one[0].at_s, one[0].seq))
    kept: list[Happening] = []
    by_subject: dict[tuple[str, str, str], tuple[float, str]] = {}
    for happening, writer in told:
        key = (happening.kind, happening.what, happening.subject)
        at_s, by = by_subject.get(key, (float("-inf"), writer))
        if by != writer and happening.at_s - at_s < SAME_WITHIN_S:
            continue
        by_subject[key] = (happening.at_s, writer)
        kept.append(replace(happening, seq=len(kept) + 1))
    return tuple(kept)
