"""The cluster behind its port, against a server that speaks list and watch and fails as the real one does."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from inference.cluster.cluster import NotPossible
from inference.cluster.kubernetes.api import NoCredentials
from inference.cluster.kubernetes.cluster import KubernetesCluster
from inference.cluster.kubernetes.scaling import PAUSED, PAUSED_REPLICAS
from inference.cluster.kubernetes.watch import Timing
from inference.cluster.snapshot import ClusterSnapshot
from tests.cluster.kube_server import (
    ALL,
    CLAIMS,
    EVENTS,
    HPAS,
    NODE_EVENTS,
    NODES,
    PODS,
    SCALED_OBJECTS,
    KubeServer,
    kube_server,
)
from tests.cluster.recorded import SCOPE, item, items, price
from tests.inference.servers import until

QUICK = Timing(watch_s=1, patience_s=0.3, again_s=0.2, back_off_s=0.05, max_back_off_s=0.2)
LASTING = replace(QUICK, watch_s=60)
RECORDED = {
    PODS: "pods",
    NODES: "nodes",
    CLAIMS: "nodeclaims",
    HPAS: "hpas",
    SCALED_OBJECTS: "scaledobjects",
    EVENTS: "events",
    NODE_EVENTS: "node-events",
}


@pytest.fixture
async def server() -> AsyncIterator[KubeServer]:
    async with kube_server() as found:
        for path, name in RECORDED.items():
            for it in items(name):
                found.put(path, it)
        yield found


def kubeconfig(folder: Path, server: KubeServer, user: dict | None = None) -> str:
    path = folder / "kubeconfig.yaml"
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [{"name": "here", "cluster": {"server": server.url}}],
        "users": [{"name": "me", "user": user or {"token": "first"}}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me", "namespace": "talk"}}],
    }
    path.write_text(yaml.safe_dump(document))
    return str(path)


@asynccontextmanager
async def watching(folder: Path, server: KubeServer, user: dict | None = None, timing: Timing = QUICK):
    cluster = KubernetesCluster(SCOPE, kubeconfig=kubeconfig(folder, server, user), price=price, timing=timing)
    await cluster.start()
    try:
        yield cluster
    finally:
        await cluster.close()


def told(snapshot: ClusterSnapshot, kind: str) -> list[str]:
    return [one.what for one in snapshot.happenings if one.kind == kind]


def pod_names(cluster: KubernetesCluster) -> set[str]:
    return {pod.name[-5:] for pod in cluster.snapshot().pods}


def all_watched(server: KubeServer) -> Callable[[], bool]:
    return lambda: all(server.is_watched(path) for path in ALL)


def new_pod(ending: str) -> dict:
    it = item("pods", "tz6vc")
    it["metadata"] |= {"name": f"vllm-7d9c5b7b6f-{ending}", "uid": ending}
    return it


async def test_first_view_is_there_after_the_start_and_tells_no_news(tmp_path, server) -> None:
    async with watching(tmp_path, server) as cluster:
        snapshot = cluster.snapshot()
        assert pod_names(cluster) == {"k2x9p", "4wq7z", "9mbd5", "tz6vc", "c5rhl"}
        assert (snapshot.source, snapshot.simulated, snapshot.ready) == ("kubernetes", False, 1)
        assert len(snapshot.nodes) == 6
        assert snapshot.autoscaler is not None and snapshot.autoscaler.desired == 4
        assert snapshot.happenings == ()
        assert ClusterSnapshot.from_json(json.loads(json.dumps(snapshot.to_json()))) == snapshot


async def test_only_our_pods_are_asked_for(tmp_path, server) -> None:
    stranger = new_pod("other")
    stranger["metadata"]["labels"] = {"app.kubernetes.io/name": "redis"}
    server.put(PODS, stranger)
    async with watching(tmp_path, server) as cluster:
        assert "other" not in pod_names(cluster)


async def test_change_is_seen_and_told_at_once(tmp_path, server) -> None:
    async with watching(tmp_path, server) as cluster:
        await until(all_watched(server))
        server.put(PODS, new_pod("fresh"))
        await until(lambda: "fresh" in pod_names(cluster))
        server.remove(PODS, "vllm-7d9c5b7b6f-fresh")
        await until(lambda: "fresh" not in pod_names(cluster))
        assert told(cluster.snapshot(), "pod") == ["made", "lost"]
        assert [one.seq for one in cluster.snapshot().happenings] == [1, 2]


async def test_text_with_line_separators_of_unicode_does_not_cut_an_event(tmp_path, server) -> None:
    async with watching(tmp_path, server, timing=LASTING) as cluster:
        await until(all_watched(server))
        odd = new_pod("fresh")
        odd["metadata"]["annotations"] = {"note": "one\u2028two\x85three"}
        server.put(PODS, odd)
        await until(lambda: "fresh" in pod_names(cluster))
        assert len(server.watches(PODS)) == 1


async def test_watch_resumes_where_it_was_when_the_server_ends_it(tmp_path, server) -> None:
    async with watching(tmp_path, server) as cluster:
        await until(all_watched(server))
        server.put(PODS, new_pod("fresh"))
        version = str(server.version)
        await until(lambda: len(server.watches(PODS)) > 1)
        assert server.watches(PODS)[-1].query["resourceVersion"] == version
        assert server.lists(PODS) == 1
        assert told(cluster.snapshot(), "source") == []


async def test_bookmark_moves_where_a_watch_resumes(tmp_path, server) -> None:
    async with watching(tmp_path, server, timing=LASTING):
        await until(all_watched(server))
        server.bookmark(PODS)
        version = str(server.version)
        server.drop(PODS)
        await until(lambda: len(server.watches(PODS)) > 1)
        assert server.watches(PODS)[0].query["allowWatchBookmarks"] == "true"
        assert server.watches(PODS)[-1].query["resourceVersion"] == version


@pytest.mark.parametrize("midway", [False, True], ids=["between lines", "within a line"])
async def test_dropped_watch_resumes_and_misses_nothing(tmp_path, server, midway: bool) -> None:
    async with watching(tmp_path, server) as cluster:
        await until(all_watched(server))
        server.drop(PODS, midway=midway)
        server.put(PODS, new_pod("fresh"))
        await until(lambda: "fresh" in pod_names(cluster))
        assert server.lists(PODS) == 1
        assert told(cluster.snapshot(), "pod") == ["made"]
        assert told(cluster.snapshot(), "source") == []


@pytest.mark.parametrize("within_stream", [True, False], ids=["within the stream", "as the answer"])
async def test_version_that_is_gone_means_listing_again_without_news(tmp_path, server, within_stream: bool) -> None:
    async with watching(tmp_path, server) as cluster:
        await until(all_watched(server))
        if within_stream:
            server.expire(PODS)
        else:
            server.compact()
            server.drop(PODS)
        await until(lambda: server.lists(PODS) == 2)
        await until(lambda: server.is_watched(PODS))
        assert told(cluster.snapshot(), "pod") == []


async def test_what_was_missed_before_listing_again_is_told(tmp_path, server) -> None:
    async with watching(tmp_path, server) as cluster:
        await until(all_watched(server))
        server.drop(PODS)
        server.put(PODS, new_pod("fresh"))
        server.remove(PODS, "vllm-7d9c5b7b6f-k2x9p")
        server.compact()
        await until(lambda: "fresh" in pod_names(cluster))
        assert "k2x9p" not in pod_names(cluster)
        assert sorted(told(cluster.snapshot(), "pod")) == ["lost", "made"]


async def test_long_list_comes_in_pages(tmp_path, server) -> None:
    server.page = 2
    async with watching(tmp_path, server) as cluster:
        assert len(pod_names(cluster)) == 5
        assert server.lists(PODS) == 3


async def test_server_that_goes_away_leaves_the_last_view_and_says_so(tmp_path, server) -> None:
    async with watching(tmp_path, server) as cluster:
        await until(all_watched(server))
        await server.go_away()
        await until(lambda: told(cluster.snapshot(), "source") == ["lost"])
        before = cluster.snapshot()
        assert len(before.pods) == 5
        server.put(PODS, new_pod("fresh"))
        assert cluster.snapshot().heard_s == before.heard_s
        await server.open()
        await until(lambda: told(cluster.snapshot(), "source") == ["lost", "found"])
        await until(lambda: "fresh" in pod_names(cluster))
        assert cluster.snapshot().heard_s > before.heard_s


async def test_server_that_falls_silent_is_noticed(tmp_path, server) -> None:
    async with watching(tmp_path, server) as cluster:
        await until(all_watched(server))
        server.silent = True  # watches that are open end as asked; what comes then is never answered
        await until(lambda: told(cluster.snapshot(), "source") == ["lost"])
        server.silent = False
        await until(lambda: told(cluster.snapshot(), "source") == ["lost", "found"])


async def test_server_that_errs_is_tried_again(tmp_path, server) -> None:
    async with watching(tmp_path, server) as cluster:
        await until(all_watched(server))
        server.failing.update(ALL)
        server.drop()
        await until(lambda: told(cluster.snapshot(), "source") == ["lost"])
        assert "etcdserver: leader changed" in cluster.snapshot().happenings[-1].text
        server.failing.clear()
        await until(lambda: told(cluster.snapshot(), "source") == ["lost", "found"])


async def test_server_restored_to_older_versions_is_listed_again(tmp_path, server) -> None:
    async with watching(tmp_path, server) as cluster:
        await until(all_watched(server))
        server.restore()
        server.put(PODS, new_pod("fresh"))
        await until(lambda: "fresh" in pod_names(cluster))
        assert told(cluster.snapshot(), "pod") == ["made"]


async def test_server_that_is_not_there_at_the_start_is_waited_for(tmp_path, server) -> None:
    await server.go_away()
    cluster = KubernetesCluster(SCOPE, kubeconfig=kubeconfig(tmp_path, server), timing=QUICK)
    starting = cluster.start()
    await server.open()
    await starting
    try:
        await until(lambda: len(pod_names(cluster)) == 5)
    finally:
        await cluster.close()


async def test_without_karpenter_and_keda_the_rest_is_shown(tmp_path, server) -> None:
    server.served -= {CLAIMS, SCALED_OBJECTS}
    async with watching(tmp_path, server) as cluster:
        snapshot = cluster.snapshot()
        assert told(snapshot, "source") == ["missing", "missing"]
        assert len(snapshot.nodes) == 4
        assert snapshot.autoscaler is not None and snapshot.autoscaler.formula == ""
        lists = server.lists(CLAIMS)
        await until(lambda: server.lists(CLAIMS) > lists + 1)
        assert told(cluster.snapshot(), "source") == ["missing", "missing"]
        server.served.add(CLAIMS)
        await until(lambda: len(cluster.snapshot().nodes) == 6)
        await until(lambda: told(cluster.snapshot(), "source") == ["missing", "missing", "found"])
        assert told(cluster.snapshot(), "node") == []


async def test_missing_right_is_named_and_the_rest_is_shown(tmp_path, server) -> None:
    server.refused.add(NODES)
    async with watching(tmp_path, server) as cluster:
        snapshot = cluster.snapshot()
        assert len(snapshot.pods) == 5 and snapshot.nodes == ()
        (said,) = snapshot.happenings
        assert (said.what, said.subject) == ("refused", "nodes")
        assert "crowdspike-rbac.yaml" in said.text and "nodes is forbidden" in said.text
        server.refused.clear()
        await until(lambda: len(cluster.snapshot().nodes) == 6)


async def test_a_refusal_cuts_no_other_watch(tmp_path, server) -> None:
    server.refused.add(NODES)
    async with watching(tmp_path, server, timing=LASTING):
        await until(lambda: server.is_watched(PODS))
        lists = server.lists(NODES)
        await until(lambda: server.lists(NODES) > lists)
        assert len(server.watches(PODS)) == 1


async def test_exec_plugin_signs_in_and_again_when_its_token_has_run_out(tmp_path, server) -> None:
    token = tmp_path / "token"
    token.write_text("first")
    plugin = tmp_path / "plugin.py"
    plugin.write_text(
        "import json, pathlib, sys\n"
        "token = pathlib.Path(sys.argv[1]).read_text()\n"
        "print(json.dumps({'apiVersion': 'client.authentication.k8s.io/v1beta1', 'kind': 'ExecCredential',"
        " 'status': {'token': token}}))\n"
    )
    api = "client.authentication.k8s.io/v1beta1"
    user = {"exec": {"apiVersion": api, "command": sys.executable, "args": [str(plugin), str(token)]}}
    server.tokens = {"first"}
    async with watching(tmp_path, server, user) as cluster:
        assert len(pod_names(cluster)) == 5
        await until(all_watched(server))
        token.write_text("second")
        server.tokens = {"second"}
        server.put(PODS, new_pod("fresh"))
        server.drop()
        server.put(PODS, new_pod("later"))
        await until(lambda: {"fresh", "later"} <= pod_names(cluster))
        assert server.watches(PODS)[-1].headers["authorization"] == "Bearer second"


async def test_without_credentials_it_does_not_start(tmp_path) -> None:
    cluster = KubernetesCluster(SCOPE, kubeconfig=str(tmp_path / "absent.yaml"))
    with pytest.raises(NoCredentials):
        await cluster.start()
    await cluster.close()


async def test_pin_and_hold_are_keda_s_annotations_and_come_back_through_the_watch(tmp_path, server) -> None:
    async with watching(tmp_path, server) as cluster:
        await until(all_watched(server))

        def scaling(key: str) -> object:
            return getattr(cluster.snapshot().autoscaler, key)

        await cluster.pin(6)
        await until(lambda: scaling("pinned") == 6)
        await cluster.pin(None)
        await until(lambda: scaling("pinned") is None)
        await cluster.hold(True)
        await until(lambda: scaling("held") is True)
        await cluster.hold(False)
        await until(lambda: scaling("held") is False)
        assert told(cluster.snapshot(), "hold") == ["pinned", "unpinned", "held", "resumed"]
        changes = [json.loads(one.body)["metadata"]["annotations"] for one in server.requests if one.method == "PATCH"]
        assert changes == [{PAUSED_REPLICAS: "6"}, {PAUSED_REPLICAS: None}, {PAUSED: "true"}, {PAUSED: None}]


async def test_more_pods_than_the_maximum_cannot_be_pinned(tmp_path, server) -> None:
    async with watching(tmp_path, server) as cluster:
        with pytest.raises(NotPossible, match="0 to 10"):
            await cluster.pin(11)


async def test_killed_pod_is_deleted_without_notice(tmp_path, server) -> None:
    async with watching(tmp_path, server) as cluster:
        await until(all_watched(server))
        assert await cluster.kill_pod() == "vllm-7d9c5b7b6f-k2x9p"
        await until(lambda: "k2x9p" not in pod_names(cluster))
        (request,) = [one for one in server.requests if one.method == "DELETE"]
        assert json.loads(request.body)["gracePeriodSeconds"] == 0
        assert sorted(one.what for one in cluster.snapshot().happenings) == ["kill", "lost"]
        with pytest.raises(NotPossible, match="no pod is ready"):
            await cluster.kill_pod()


async def test_pod_that_is_not_ours_cannot_be_killed(tmp_path, server) -> None:
    async with watching(tmp_path, server) as cluster:
        with pytest.raises(NotPossible, match="no pod redis-0 of ours"):
            await cluster.kill_pod("redis-0")
        assert not [one for one in server.requests if one.method == "DELETE"]


async def test_verb_without_the_right_says_what_to_apply(tmp_path, server) -> None:
    server.refused_verbs |= {"PATCH", "DELETE"}
    async with watching(tmp_path, server) as cluster:
        with pytest.raises(NotPossible, match="components/operator"):
            await cluster.pin(3)
        with pytest.raises(NotPossible, match="components/operator"):
            await cluster.kill_pod()


async def test_verb_without_keda_says_what_would_help(tmp_path, server) -> None:
    server.served.discard(SCALED_OBJECTS)
    async with watching(tmp_path, server) as cluster:
        with pytest.raises(NotPossible, match="install KEDA"):
            await cluster.hold(True)


async def test_what_only_the_cloud_can_do_says_how(tmp_path, server) -> None:
    async with watching(tmp_path, server) as cluster:
        with pytest.raises(NotPossible, match="aws:ec2:send-spot-instance-interruptions"):
            await cluster.interrupt_node()
        with pytest.raises(NotPossible, match="NodePool"):
            await cluster.set_unavailable("g5.xlarge", True)
