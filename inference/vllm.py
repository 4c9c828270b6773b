"""How vLLM is told to serve Mistral-7B-Instruct (AWQ) on one GPU: arguments, probes, and the time it gets to end.

The one place that holds them; the Kubernetes manifest says the same, and tests hold both against vLLM's own parser.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

PORT = 8000
SERVED_MODEL_NAME = "mistral"
MAX_MODEL_LEN = 4096
MAX_NUM_SEQS = 32


@dataclass(frozen=True, slots=True)
class Probe:
    """A Kubernetes HTTP probe on the server's port."""

    path: str
    period_s: int
    timeout_s: int
    failure_threshold: int

    @property
    def patience_s(self) -> int:
        """For how long it may fail before Kubernetes acts."""
        return self.period_s * self.failure_threshold


# /health answers as soon as the engine can serve, and a busy engine answers late: only repeated silence is a failure.
STARTUP = Probe("/health", period_s=2, timeout_s=2, failure_threshold=450)  # image there; weights, compilation: minutes
READINESS = Probe("/health", period_s=2, timeout_s=2, failure_threshold=3)
LIVENESS = Probe("/health", period_s=10, timeout_s=5, failure_threshold=6)

# From SIGTERM on vLLM answers new requests with errors while /health stays 200 (tests/inference/recorded/README.md). So
# the pod first waits until no endpoint list names it any more, and then lets the running answers end.
PRE_STOP_S = 15
SHUTDOWN_TIMEOUT_S = 60
TEARDOWN_S = 15  # seen: 1 s after the timeout; killing stuck workers may take it longer
TERMINATION_GRACE_PERIOD_S = PRE_STOP_S + SHUTDOWN_TIMEOUT_S + TEARDOWN_S


@dataclass(frozen=True, slots=True)
class Serving:
    """What a deployment may choose. `model` is an s3:// URL of safetensors, or a folder or name that vLLM knows."""

    model: str
    gpu_memory_utilization: float = 0.9
    streamer_concurrency: int = 16  # parallel reads: 15 GB in 28 s with 4, in 5 s with 32 (Run:ai's benchmark)

    def arguments(self) -> tuple[str, ...]:
        """The command line after `vllm serve`. Valid for 0.32 and 0.33."""
        return (
            self.model,
            *("--served-model-name", SERVED_MODEL_NAME),
            *("--port", str(PORT)),
            *("--load-format", "runai_streamer"),
            *("--model-loader-extra-config", json.dumps({"concurrency": self.streamer_concurrency})),
            *("--quantization", "awq_marlin"),  # needs sm_75 (T4) or newer; plain `awq` is slower than 16 bits
            *("--dtype", "half"),  # what AWQ computes in, and all that a T4 can: it has no bfloat16
            *("--max-model-len", str(MAX_MODEL_LEN)),
            *("--max-num-seqs", str(MAX_NUM_SEQS)),
            *("--gpu-memory-utilization", str(self.gpu_memory_utilization)),
            *("--shutdown-timeout", str(SHUTDOWN_TIMEOUT_S)),
        )
