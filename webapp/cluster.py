"""The cluster that the settings name."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Protocol

from prometheus_client import CollectorRegistry, Histogram, generate_latest

from inference.cluster.cluster import Cluster, NoCluster
from inference.cluster.karpenter import catalogue
from inference.cluster.local.cluster import LocalCluster
from inference.cluster.manifests import ManifestError
from inference.engine.profile import ProfileError
from inference.pool import Pool
from webapp.settings import Settings
from webapp.talk.model import Talk

METRICS = "crowdspike"
"""What our own metrics are scraped as."""
LATE_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


def list_price(instance_type: str, capacity_type: str, zone: str) -> float | None:
    """What a node costs by the price table: in its zone, or else in the cheapest one; None for what is not in it."""
    fitting = [o for o in _offers() if o.type.name == instance_type and o.capacity_type == capacity_type]
    there = [o for o in fitting if o.zone == zone] or fitting
    return min((o.usd_per_hour for o in there), default=None)


@cache
def _offers() -> tuple[catalogue.Offer, ...]:
    return catalogue.load().offers


class OwnCluster(Cluster, Protocol):
    """One that this program starts and closes."""

    async def start(self) -> None: ...

    async def close(self) -> None: ...


@contextmanager
def configured_cluster(
    settings: Settings, talks: Sequence[Talk], pool: Pool, registry: CollectorRegistry
) -> Iterator[OwnCluster | None]:
    """To be closed before the block ends. `registry` has our own metrics, for triggers that ask for them. Raises
    NoCluster."""
    if settings.cluster == "none":
        yield None
    elif settings.cluster == "kubernetes":
        from inference.cluster.kubernetes.cluster import KubernetesCluster, Scope  # 0.4 s that others need not spend

        yield KubernetesCluster(
            Scope(settings.cluster_namespace), price=list_price, prometheus_url=settings.prometheus_url
        )
    else:
        with tempfile.TemporaryDirectory(prefix="crowdspike-") as folder:
            qa = Path(folder) / "qa.json"
            qa.write_text(json.dumps([asdict(entry) for talk in talks for entry in talk.qa]), encoding="utf-8")
            yield _local(settings, pool, qa, registry)


def _local(settings: Settings, pool: Pool, qa: Path, registry: CollectorRegistry) -> LocalCluster:
    text = "How late the local cluster's scrapes and passes began; the autoscaler's sync is part of a pass."
    late = Histogram("crowdspike_cluster_late_seconds", text, ["work"], registry=registry, buckets=LATE_BUCKETS_S)
    try:
        return LocalCluster(
            pool,
            folder=Path(settings.cluster_manifests) if settings.cluster_manifests else None,
            profile=settings.cluster_profile,
            qa=qa,
            speed_up=settings.cluster_speed_up,
            warm=True,
            scrape_also={METRICS: lambda: generate_latest(registry)},
            late=lambda work, late_s: late.labels(work).observe(late_s),
        )
    except (ManifestError, ProfileError, OSError, ValueError) as error:
        raise NoCluster(str(error)) from error
