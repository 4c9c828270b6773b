"""What a simulated replica exports: those of vLLM 0.32's metrics that its scheduler can fill truthfully, under the same
names, labels and buckets. What it has no part of (prefix cache, FLOPs, other media …) is absent, not zero.

Definitions after vllm/v1/metrics/{stats,loggers,buckets}.py: a request is queued, scheduled, gets its first and its
last token; a client that leaves is in no per-request histogram and no count of finished ones.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from inference.engine.generation import Generation
from inference.engine.scheduler import Scheduler
from inference.engine.scheduler import Sequence as Request
from inference.histogram import Histogram

LATENCY_S = (0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680)
TTFT_S = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640),
    2560,
)
ITL_S = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80)
STEP_TOKENS = tuple(2**i for i in (0, *range(3, 15)))
PREEMPTIONS = (1, 2, 3, 4, 5, 10, 20)
N = (1, 2, 5, 10, 20)
FINISHED = ("stop", "length", "abort", "error", "repetition")


def token_bounds(max_model_len: int) -> tuple[int, ...]:
    """1, 2, 5, 10 … as far as a request of this model can be long."""
    series = (m * 10**e for e in range(12) for m in (1, 2, 5))
    return tuple(bound for bound in series if bound <= max_model_len)


class Stats:
    """Plain numbers, counted once a step."""

    def __init__(self, max_model_len: int) -> None:
        tokens = token_bounds(max_model_len)
        self.created = time.time()
        self.prompt_tokens = 0
        self.generation_tokens = 0
        self.rejections = 0
        self.finished = dict.fromkeys(FINISHED, 0)
        self.ttft_s = Histogram(TTFT_S)
        self.itl_s = Histogram(ITL_S)
        self.step_tokens = Histogram(STEP_TOKENS)
        self.request_prompt_tokens = Histogram(tokens)
        self.request_generation_tokens = Histogram(tokens)
        self.request_max_generation_tokens = Histogram(tokens)
        self.request_max_tokens = Histogram(tokens)
        self.request_kv_computed_tokens = Histogram(tokens)
        self.request_n = Histogram(N)
        self.request_preemptions = Histogram(PREEMPTIONS)
        self.time_per_output_token_s = Histogram(ITL_S)
        self.e2e_s = Histogram(LATENCY_S)
        self.queue_s = Histogram(LATENCY_S)
        self.inference_s = Histogram(LATENCY_S)
        self.prefill_s = Histogram(LATENCY_S)
        self.decode_s = Histogram(LATENCY_S)

    def step(self, got: Sequence[Request], step_s: float, now_s: float) -> None:
        """A step ended at `step_s` of the engine's clock and gave these requests a token; it is told at `now_s`."""
        tokens = len(got)
        self.generation_tokens += tokens
        last_s = 0.0  # most requests had their previous token at the same time: those are counted as one
        same = 0
        for seq in got:
            generation: Generation = seq.payload  # type: ignore[assignment]
            if seq.generated == 1:
                tokens += seq.prompt_tokens
                self.prompt_tokens += seq.prompt_tokens
                self.ttft_s.observe(now_s - generation.arrived_s)
            elif generation.last_s == last_s:
                same += 1
            else:
                if same:
                    self.itl_s.observe(step_s - last_s, same)
                last_s, same = generation.last_s, 1
            generation.last_s = step_s
            if seq.finished:
                self._finish(seq, generation, now_s)
        if same:
            self.itl_s.observe(step_s - last_s, same)
        self.step_tokens.observe(tokens)

    def _finish(self, seq: Request, generation: Generation, now_s: float) -> None:
        assert seq.scheduled_s is not None and seq.first_token_s is not None and seq.last_token_s is not None
        decode_s = seq.last_token_s - seq.first_token_s
        self.finished[generation.output.finish_reason] += 1
        self.e2e_s.observe(now_s - generation.arrived_s)
        # A step's end is an ideal time: a request may have come a moment after it and still be in the next one.
        self.queue_s.observe(max(0.0, seq.scheduled_s - seq.arrived_s))
        self.prefill_s.observe(seq.first_token_s - seq.scheduled_s)
        self.decode_s.observe(decode_s)
        self.inference_s.observe(seq.last_token_s - seq.scheduled_s)
        self.time_per_output_token_s.observe(decode_s / (seq.generated - 1) if seq.generated > 1 else 0.0)
        self.request_prompt_tokens.observe(seq.prompt_tokens)
        self.request_kv_computed_tokens.observe(seq.prompt_tokens)
        self.request_generation_tokens.observe(seq.generated)
        self.request_max_generation_tokens.observe(seq.generated)
        self.request_max_tokens.observe(generation.max_tokens)
        self.request_preemptions.observe(seq.preemptions)
        self.request_n.observe(1)


class Exporter:
    """Prometheus' text from `Stats` and the scheduler, read when it is asked for."""

    def __init__(self, model: str, stats: Stats, scheduler: Scheduler) -> None:
        self._model = model
        self._stats = stats
        self._scheduler = scheduler
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def text(self) -> bytes:
        return generate_latest(self._registry)

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        yield from self._gauges()
        yield from self._counters()
        yield from self._histograms()

    def _gauges(self) -> Iterable[Metric]:
        counts, capacity = self._scheduler.counts, self._scheduler.capacity
        yield self._gauge("num_requests_running", "Requests that are being computed.", {"": counts.running})
        yield self._gauge("num_requests_waiting", "Requests that wait to be computed.", {"": counts.waiting})
        yield self._gauge(
            "num_requests_waiting_by_reason",
            "Waiting requests by reason; nothing defers one here.",
            {"capacity": counts.waiting, "deferred": 0},
            "reason",
        )
        yield self._gauge("kv_cache_usage_perc", "Share of the KV blocks in use, 0 to 1.", {"": counts.kv_usage})
        facts = {
            "block_size": capacity.kv_block_size,
            "enable_prefix_caching": False,
            "engine": 0,
            "kv_cache_size_tokens": capacity.usable_blocks * capacity.kv_block_size,
            "num_gpu_blocks": capacity.num_kv_blocks,
        }
        info = GaugeMetricFamily("vllm:cache_config_info", "The KV cache that is simulated.", labels=list(facts))
        info.add_metric([str(value) for value in facts.values()], 1)
        yield info

    def _counters(self) -> Iterable[Metric]:
        stats = self._stats
        prompt = stats.prompt_tokens
        preemptions = self._scheduler.preemptions
        yield self._counter("num_preemptions", "Requests preempted for want of KV blocks.", {"": preemptions})
        yield self._counter("prompt_tokens", "Prompt tokens of the requests that have a first token.", {"": prompt})
        yield self._counter(
            "prompt_tokens_by_source", "The same; all of them are computed here.", {"local_compute": prompt}, "source"
        )
        yield self._counter("generation_tokens", "Tokens generated.", {"": stats.generation_tokens})
        yield self._counter("request_success", "Finished requests.", stats.finished, "finished_reason")
        rejections = CounterMetricFamily(
            "vllm:admission_rejections", "Requests refused at the door.", labels=["model_name", "reason"]
        )
        rejections.add_metric([self._model, "max_num_queued_reqs"], stats.rejections, created=stats.created)
        yield rejections

    def _histograms(self) -> Iterable[Metric]:
        stats = self._stats
        for name, text, histogram in (
            ("request_prompt_tokens", "Prompt tokens of a finished request.", stats.request_prompt_tokens),
            ("request_generation_tokens", "Tokens generated for a finished request.", stats.request_generation_tokens),
            ("iteration_tokens_total", "Tokens of a step.", stats.step_tokens),
            ("request_max_num_generation_tokens", "The same, most of n.", stats.request_max_generation_tokens),
            ("request_params_n", "The n of a finished request.", stats.request_n),
            ("request_params_max_tokens", "The max_tokens of a finished request.", stats.request_max_tokens),
            ("time_to_first_token_seconds", "From arrival to the first token.", stats.ttft_s),
            ("inter_token_latency_seconds", "From one token of a request to its next.", stats.itl_s),
            (
                "request_time_per_output_token_seconds",
                "Decode time by tokens after the first.",
                stats.time_per_output_token_s,
            ),
            ("e2e_request_latency_seconds", "From arrival to the last token.", stats.e2e_s),
            ("request_queue_time_seconds", "From queued to first scheduled.", stats.queue_s),
            ("request_inference_time_seconds", "From first scheduled to the last token.", stats.inference_s),
            ("request_prefill_time_seconds", "From first scheduled to the first token.", stats.prefill_s),
            ("request_decode_time_seconds", "From the first token to the last.", stats.decode_s),
            ("request_num_preemptions", "How often a finished request was preempted.", stats.request_preemptions),
            ("request_prefill_kv_computed_tokens", "Prompt tokens computed.", stats.request_kv_computed_tokens),
        ):
            family = HistogramMetricFamily(f"vllm:{name}", text, labels=["engine", "model_name"])
            family.add_metric(["0", self._model], histogram.buckets(), histogram.sum)
            family.add_sample(f"vllm:{name}_created", {"engine": "0", "model_name": self._model}, stats.created)
            yield family

    def _gauge(self, name: str, text: str, values: dict[str, float], label: str = "") -> Metric:
        family = GaugeMetricFamily(f"vllm:{name}", text, labels=self._labels(label))
        for value, number in values.items():
            family.add_metric(self._values(label, value), number)
        return family

    def _counter(self, name: str, text: str, values: dict[str, int], label: str = "") -> Metric:
        family = CounterMetricFamily(f"vllm:{name}", text, labels=self._labels(label))
        for value, number in values.items():
            family.add_metric(self._values(label, value), number, created=self._stats.created)
        return family

    def _labels(self, label: str) -> list[str]:
        return ["engine", "model_name", *([label] if label else [])]

    def _values(self, label: str, value: str) -> list[str]:
        return ["0", self._model, *([value] if label else [])]
