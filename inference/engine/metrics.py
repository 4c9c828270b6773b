"""What a simulated replica exports: those of vLLM 0.32's metrics that it can fill truthfully, under the same names."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from inference.engine.seats import Seats

FINISHED = ("stop", "length", "abort", "error", "repetition")


class Metrics:
    def __init__(self, model: str, seats: Seats) -> None:
        self._registry = CollectorRegistry()
        labels = {"engine": "0", "model_name": model}

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(name, text, list(labels), registry=self._registry).labels(**labels)

        def counter(name: str, text: str) -> Counter:
            return Counter(name, text, list(labels), registry=self._registry).labels(**labels)

        running = gauge("vllm:num_requests_running", "Number of requests in model execution batches.")
        running.set_function(lambda: seats.running)
        waiting = gauge("vllm:num_requests_waiting", "Number of requests waiting to be processed.")
        waiting.set_function(lambda: seats.waiting)
        self.prompt_tokens = counter("vllm:prompt_tokens", "Number of prefill tokens processed.")
        self.generation_tokens = counter("vllm:generation_tokens", "Number of generation tokens processed.")
        success = Counter(
            "vllm:request_success",
            "Count of successfully processed requests.",
            [*labels, "finished_reason"],
            registry=self._registry,
        )
        self.finished = {reason: success.labels(**labels, finished_reason=reason) for reason in FINISHED}

    def text(self) -> bytes:
        return generate_latest(self._registry)
