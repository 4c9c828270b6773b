"""The part that only reads, against any cluster: the local server always, and the one that KUBECONFIG names.

`KUBECONFIG=… CROWDSPIKE_NAMESPACE=talk pytest tests/cluster/test_kubernetes_anywhere.py` changes nothing there.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator

import pytest

from inference.cluster.kubernetes.cluster import KubernetesCluster
from inference.cluster.kubernetes.view import Scope
from inference.cluster.snapshot import ClusterSnapshot
from tests.cluster.kube_server import kube_server
from tests.cluster.recorded import SCOPE, items
from tests.cluster.test_kubernetes_cluster import QUICK, RECORDED, kubeconfig

REAL = os.environ.get("KUBECONFIG")
PATIENCE_S = 60
CLUSTERS = [
    "local server",
    pytest.param(
        "KUBECONFIG",
        id="cluster of KUBECONFIG" if REAL else "cluster of KUBECONFIG, which is not set",
        marks=pytest.mark.skipif(not REAL, reason="KUBECONFIG is not set: it may name any cluster, which is only read"),
    ),
]


@pytest.fixture(params=CLUSTERS)
async def cluster(request: pytest.FixtureRequest, tmp_path) -> AsyncIterator[KubernetesCluster]:
    async with kube_server() as server:
        for path, name in RECORDED.items():
            for it in items(name):
                server.put(path, it)
        if request.param == "KUBECONFIG":
            found = KubernetesCluster(Scope(namespace=os.environ.get("CROWDSPIKE_NAMESPACE", "default")))
        else:
            found = KubernetesCluster(SCOPE, kubeconfig=kubeconfig(tmp_path, server), timing=QUICK)
        await found.start()
        try:
            yield found
        finally:
            await found.close()


async def test_first_view_is_there_after_the_start(cluster: KubernetesCluster) -> None:
    snapshot = cluster.snapshot()
    assert not [one for one in snapshot.happenings if one.what == "lost"]
    assert snapshot.at_s - snapshot.heard_s < PATIENCE_S
    assert len({pod.name for pod in snapshot.pods}) == len(snapshot.pods)


async def test_what_is_missing_or_refused_is_said_once(cluster: KubernetesCluster) -> None:
    said = [one.subject for one in cluster.snapshot().happenings if one.what in ("missing", "refused")]
    assert len(said) == len(set(said))


async def test_view_goes_through_json(cluster: KubernetesCluster) -> None:
    snapshot = cluster.snapshot()
    assert ClusterSnapshot.from_json(json.loads(json.dumps(snapshot.to_json()))) == snapshot


async def test_view_that_nothing_changes_stays_fresh(cluster: KubernetesCluster) -> None:
    since_s = cluster.snapshot().at_s
    async with asyncio.timeout(PATIENCE_S):
        while cluster.snapshot().heard_s <= since_s:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
