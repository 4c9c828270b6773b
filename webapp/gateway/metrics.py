"""The gateway's Prometheus metrics. Every request carries its source, so that real and scripted load never mix.

Plain numbers that a scrape turns into families: prometheus-client's own counters cost more than a token may.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from inference.histogram import Histogram
from webapp.gateway.record import Record

SOURCES = ("audience", "amplified", "k6", "locust", "batch", "api")
# vLLM's own buckets, so that both sides compare.
TTFT_BUCKETS_S = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    *(20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
ITL_BUCKETS_S = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    *(20.0, 40.0, 80.0),
)
E2E_BUCKETS_S = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0),
    *(120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)
WAIT_BUCKETS_S = (0.01, 0.05, 0.1, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0, 90.0, 120.0, 240.0)
OTHER_MODEL = "other"


class Metrics:
    """A collector. `requests` by (model, source, status), the tokens by (model, source), `retries` by reason."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests: Counter[tuple[str, ...]] = Counter()
        self.prompt_tokens: Counter[tuple[str, ...]] = Counter()
        self.completion_tokens: Counter[tuple[str, ...]] = Counter()
        self.retries: Counter[tuple[str, ...]] = Counter()
        self.in_flight = dict.fromkeys(SOURCES, 0)
        self.ttft = {source: Histogram(TTFT_BUCKETS_S) for source in SOURCES}
        self.itl = {source: Histogram(ITL_BUCKETS_S) for source in SOURCES}
        self.e2e = {source: Histogram(E2E_BUCKETS_S) for source in SOURCES}
        self.wait = Histogram(WAIT_BUCKETS_S)
        self._waiting: Callable[[], int] = lambda: 0
        self._replicas: Callable[[], Mapping[str, int]] = dict
        registry.register(self)

    def observe(self, waiting: Callable[[], int], replicas: Callable[[], Mapping[str, int]]) -> None:
        """Read these when they are asked for: how many wait, and how many replicas are in each state."""
        self._waiting = waiting
        self._replicas = replicas

    def ended(self, record: Record, models: Collection[str]) -> None:
        """Count a request that has ended. A model that is none of `models` is counted as another one: clients name
        what they like."""
        model = record.model if record.model in models else OTHER_MODEL
        source = record.source
        self.requests[model, source, str(record.status)] += 1
        if record.prompt_tokens:
            self.prompt_tokens[model, source] += record.prompt_tokens
        if record.completion_tokens:
            self.completion_tokens[model, source] += record.completion_tokens
        if record.ttft_s is not None:
            self.ttft[source].observe(record.ttft_s)
        if record.status < 400:
            self.e2e[source].observe(record.e2e_s)
        if record.replica is not None or record.waited_s:
            self.wait.observe(record.waited_s)

    def streamed_tokens(self) -> int:
        """Of all streams so far, but the first of each."""
        return sum(itl.count for itl in self.itl.values())

    def collect(self) -> Iterator[Metric]:
        whose = ("model", "source")
        text = "Requests that ended, by HTTP status; 499 when the client left."
        yield _counter("requests", text, (*whose, "status"), self.requests)
        yield _counter("prompt_tokens", "Tokens of prompts, as replicas counted them.", whose, self.prompt_tokens)
        text = "Tokens of answers, as replicas counted them; events where they did not."
        yield _counter("completion_tokens", text, whose, self.completion_tokens)
        yield _counter("retries", "Requests sent again before their first token.", ("reason",), self.retries)
        in_flight = {(source,): count for source, count in self.in_flight.items()}
        yield _gauge("in_flight", "Requests that have come in and not ended.", ("source",), in_flight)
        yield _gauge("waiting", "Requests for which no replica has room.", (), {(): self._waiting()})
        replicas = self._replicas()
        ready = {(): replicas.get("ready", 0) + replicas.get("full", 0)}
        yield _gauge("replicas_ready", "Replicas that are ready, full ones too.", (), ready)
        states = {(state,): count for state, count in replicas.items()}
        yield _gauge("replicas", "Replicas by state: ready (with room), full, unready.", ("state",), states)
        yield _histogram("ttft_seconds", "From a request's arrival to the first token of its stream.", self.ttft)
        yield _histogram("itl_seconds", "Between two events of a stream.", self.itl)
        yield _histogram("e2e_seconds", "From a request's arrival to the end of its answer.", self.e2e)
        wait = HistogramMetricFamily(
            _name("wait_seconds"), "How long requests waited for a replica with room, those that gave up too."
        )
        wait.add_metric([], self.wait.buckets(), self.wait.sum)
        yield wait


def _name(name: str) -> str:
    return f"crowdspike_gateway_{name}"


def _counter(
    name: str, text: str, labels: tuple[str, ...], counts: Mapping[tuple[str, ...], float]
) -> CounterMetricFamily:
    family = CounterMetricFamily(_name(name), text, labels=labels)
    for values, count in counts.items():
        family.add_metric(values, count)
    return family


def _gauge(name: str, text: str, labels: tuple[str, ...], values: Mapping[tuple[str, ...], float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(_name(name), text, labels=labels)
    for which, value in values.items():
        family.add_metric(which, value)
    return family


def _histogram(name: str, text: str, by_source: Mapping[str, Histogram]) -> HistogramMetricFamily:
    family = HistogramMetricFamily(_name(name), text, labels=("source",))
    for source, histogram in by_source.items():
        family.add_metric([source], histogram.buckets(), histogram.sum)
    return family
