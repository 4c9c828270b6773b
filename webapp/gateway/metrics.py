"""The gateway's Prometheus metrics. Every request carries its source, so that real and scripted load never mix."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

SOURCES = ("audience", "amplified", "k6", "locust", "batch", "api")
# vLLM's own buckets for the time to first token, so that both sides compare.
TTFT_BUCKETS_S = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    *(20.0, 40.0, 80.0, 160.0, 640.0),
)


class Metrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "crowdspike_gateway_requests",
            "Requests that ended, by HTTP status; 499 when the client left.",
            ["source", "status"],
            registry=registry,
        )
        self.in_flight = Gauge(
            "crowdspike_gateway_in_flight",
            "Requests that have come in and not ended.",
            ["source"],
            registry=registry,
        )
        self.waiting = Gauge("crowdspike_gateway_waiting", "Requests that wait for a ready replica.", registry=registry)
        self.ttft = Histogram(
            "crowdspike_gateway_ttft_seconds",
            "Time from a request's arrival to the first token of its stream.",
            ["source"],
            buckets=TTFT_BUCKETS_S,
            registry=registry,
        )
        self.replicas_ready = Gauge("crowdspike_gateway_replicas_ready", "Replicas that are ready.", registry=registry)
        self.retries = Counter(
            "crowdspike_gateway_retries", "Requests sent again before their first token.", registry=registry
        )
        for source in SOURCES:
            self.in_flight.labels(source)

    def observe(self, waiting: Callable[[], int], replicas_ready: Callable[[], int]) -> None:
        """Read these two when they are asked for."""
        self.waiting.set_function(waiting)
        self.replicas_ready.set_function(replicas_ready)
