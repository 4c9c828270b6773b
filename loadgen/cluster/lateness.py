"""How late the local cluster's own work began, by its page of metrics."""

from __future__ import annotations

import re
from dataclasses import dataclass

_BUCKET = re.compile(r'^crowdspike_cluster_late_seconds_bucket\{le="([^"]+)",work="(\w+)"\} (\S+)$', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Lateness:
    """`buckets` are pairs of a bound in seconds and how often it was not exceeded."""

    buckets: tuple[tuple[float, int], ...]

    @property
    def count(self) -> int:
        return self.buckets[-1][1]

    def since(self, before: Lateness) -> Lateness:
        """What has come since then."""
        pairs = zip(self.buckets, before.buckets, strict=True)
        return Lateness(tuple((bound, now - then) for (bound, now), (_, then) in pairs))

    def at_most_ms(self, share: float) -> float:
        """The least bound that this share did not exceed; infinite where none is known."""
        return next((bound * 1000 for bound, count in self.buckets if count >= share * self.count), float("inf"))


def lateness(page: bytes) -> dict[str, Lateness]:
    """By the name of the work; empty where there is no local cluster."""
    found: dict[str, list[tuple[float, int]]] = {}
    for bound, work, count in _BUCKET.findall(page.decode()):
        found.setdefault(work, []).append((float(bound), int(float(count))))
    return {work: Lateness(tuple(buckets)) for work, buckets in found.items()}
