"""What vLLM is told on a GPU, as far as it can be judged without vLLM; tests/vllm asks vLLM's own parser."""

from __future__ import annotations

import json

from inference.vllm import (
    LIVENESS,
    PRE_STOP_S,
    READINESS,
    SHUTDOWN_TIMEOUT_S,
    STARTUP,
    TERMINATION_GRACE_PERIOD_S,
    Serving,
)

SPOT_NOTICE_S = 120


def options(arguments: tuple[str, ...]) -> dict[str, str]:
    return dict(zip(arguments[1::2], arguments[2::2], strict=True))


def test_each_option_is_given_once_with_a_value():
    model, *rest = Serving("s3://models/mistral").arguments()
    assert model == "s3://models/mistral"
    names, values = rest[::2], rest[1::2]
    assert len(names) == len(values) == len(set(names))
    assert all(name.startswith("--") for name in names)
    assert not any(value.startswith("--") for value in values)


def test_what_a_deployment_chooses_reaches_the_command_line():
    chosen = options(Serving("m", gpu_memory_utilization=0.85, streamer_concurrency=4).arguments())
    assert chosen["--gpu-memory-utilization"] == "0.85"
    assert json.loads(chosen["--model-loader-extra-config"]) == {"concurrency": 4}


def test_running_answers_may_end_before_the_pod_is_killed_and_before_a_spot_node_goes():
    assert PRE_STOP_S + SHUTDOWN_TIMEOUT_S < TERMINATION_GRACE_PERIOD_S < SPOT_NOTICE_S
    assert options(Serving("m").arguments())["--shutdown-timeout"] == str(SHUTDOWN_TIMEOUT_S)


def test_a_pod_leaves_the_endpoints_before_it_is_restarted():
    assert READINESS.patience_s < LIVENESS.patience_s < STARTUP.patience_s
