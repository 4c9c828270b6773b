"""Latency, queues and triggers from Prometheus' HTTP API, and what is left of them while it fails."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

import pytest

from inference.cluster.kubernetes.cluster import KubernetesCluster
from inference.cluster.kubernetes.prometheus import Prometheus, Readings
from tests.cluster.kube_server import ALL, kube_server
from tests.cluster.recorded import SCOPE, items
from tests.cluster.test_kubernetes_cluster import QUICK, RECORDED, kubeconfig, told
from tests.inference.servers import scripted, until, whole

TRIGGERS = {
    "running": 'sum(vllm:num_requests_running{model_name="mistral"})',
    "waiting": "sum(vllm:num_requests_waiting)",
}
POD = "vllm-7d9c5b7b6f-k2x9p"


def vector(*elements: tuple[dict[str, str], str]) -> dict:
    result = [{"metric": labels, "value": [1795255200.123, value]} for labels, value in elements]
    return {"status": "success", "data": {"resultType": "vector", "result": result}}


ANSWERS: dict[str, dict] = {
    "sum by (pod) (vllm:num_requests_running": vector(({"pod": POD}, "31"), ({"pod": "vllm-b"}, "12")),
    "sum by (pod) (vllm:num_requests_waiting": vector(({"pod": POD}, "7"), ({"pod": "vllm-b"}, "0")),
    "histogram_quantile(0.5,": vector(({}, "0.042")),
    "histogram_quantile(0.95,": vector(({}, "NaN")),
    "sum(rate(vllm:generation_tokens_total": vector(({}, "1423.5")),
    "sum(vllm:num_requests_running": vector(({}, "43")),
    "sum(vllm:num_requests_waiting": vector(),
}


@dataclass
class FakePrometheus:
    """Answers each query by what it begins with. `status` and `stalled` make it fail."""

    status: int = 200
    stalled: bool = False
    queries: list[str] = field(default_factory=list)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                parts = urlsplit(head.decode().split(" ")[1])
                query = parse_qs(parts.query)["query"][0]
                self.queries.append(query)
                if self.stalled:
                    await reader.read()
                    return
                answer = next(body for start, body in ANSWERS.items() if query.startswith(start))
                if self.status != 200:
                    answer = {"status": "error", "errorType": "bad_data", "error": "no such metric"}
                writer.write(whole(self.status, json.dumps(answer).encode()))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving() -> AsyncIterator[tuple[str, FakePrometheus]]:
    fake = FakePrometheus()
    server = await asyncio.start_server(fake.handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", fake
    finally:
        server.close()


async def read(url: str, timeout_s: float = 4.0) -> Readings:
    prometheus = Prometheus(url, "talk", lambda: TRIGGERS, lambda _: None, lambda: 100.0, timeout_s=timeout_s)
    try:
        return await prometheus.read()
    finally:
        prometheus.close()


async def test_readings_have_queues_by_pod_latency_tokens_and_triggers() -> None:
    async with serving() as (url, fake):
        found = await read(url)
        assert found.trouble == ""
        assert found.gauges == {POD: (31, 7), "vllm-b": (12, 0)}
        assert (found.ttft_p50_s, found.tokens_per_s, found.at_s) == (0.042, 1423.5, 100.0)
        assert found.ttft_p95_s is None  # NaN: no first token in the window
        assert found.triggers == {"running": 43.0, "waiting": None}
        assert 'sum by (pod) (vllm:num_requests_running{namespace="talk"})' in fake.queries


async def refused(fake: FakePrometheus) -> None:
    fake.status = 400


async def stalled(fake: FakePrometheus) -> None:
    fake.stalled = True


@pytest.mark.parametrize(
    ("failing", "trouble"),
    [(refused, "bad_data: no such metric"), (stalled, "no answer within 0.2 s")],
)
async def test_failing_leaves_nothing_and_says_how(failing: Callable, trouble: str) -> None:
    async with serving() as (url, fake):
        await failing(fake)
        found = await read(url, timeout_s=0.2)
        assert trouble in found.trouble
        assert (found.gauges, found.triggers, found.ttft_p50_s, found.tokens_per_s) == ({}, None, None, None)


async def test_server_that_is_no_prometheus_is_named_as_such() -> None:
    async def say_hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise AssertionError("asked with GET alone")

    async with scripted(say_hello) as (url, _):
        assert "not an answer of Prometheus (HTTP 404)" in (await read(url)).trouble


async def test_cluster_shows_the_gauges_and_tells_when_prometheus_is_lost(tmp_path) -> None:
    async with kube_server() as server, serving() as (url, fake):
        for path, name in RECORDED.items():
            for it in items(name):
                server.put(path, it)
        config = kubeconfig(tmp_path, server)
        cluster = KubernetesCluster(SCOPE, kubeconfig=config, prometheus_url=url, timing=QUICK, prometheus_every_s=0.05)
        await cluster.start()
        try:
            await until(lambda: all(server.is_watched(path) for path in ALL))

            def pod() -> tuple[int | None, int | None]:
                return next((one.running, one.waiting) for one in cluster.snapshot().pods if one.name == POD)

            def triggers() -> object:
                autoscaler = cluster.snapshot().autoscaler
                return autoscaler and autoscaler.triggers

            await until(lambda: pod() == (31, 7))
            await until(lambda: triggers() == {"running": 43.0, "waiting": None})
            fake.status = 503
            await until(lambda: told(cluster.snapshot(), "source") == ["lost"])
            assert pod() == (None, None)
            fake.status = 200
            await until(lambda: told(cluster.snapshot(), "source") == ["lost", "found"])
        finally:
            await cluster.close()
