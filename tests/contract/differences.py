"""All that a simulated replica cannot have, on purpose. The suite holds it to exactly this list."""

from __future__ import annotations

from tests.contract.metrics import Form

FINGERPRINT = {True: "crowdspike-sim", False: "vllm-0.32.0"}  # by whether the server is simulated

# It has no prefix cache, no KV transfer, no images, no sleep and no count of operations: absent rather than zero.
ABSENT_FAMILIES = (
    "engine_sleep_state",
    "estimated_",
    "external_prefix_cache_",
    "mm_cache_",
    "prefix_cache_",
    "prompt_tokens_cached",
)
ABSENT_LABELS = {("source", "external_kv_transfer"), ("source", "local_cache_hit"), ("reason", "max_num_queued_tokens")}
INFO_LABELS = {"block_size", "enable_prefix_caching", "engine", "kv_cache_size_tokens", "num_gpu_blocks"}
# Ignoring these would give another answer than was asked for, so it refuses them.
NOT_SIMULATED = {
    "several answers": {"n": 2},
    "JSON": {"response_format": {"type": "json_object"}},
    "structured outputs": {"structured_outputs": {"choice": ["yes", "no"]}},
}


def simulated(real: dict[str, Form]) -> dict[str, Form]:
    """What of the real server's families a simulated replica exports."""
    kept = {name: form for name, form in real.items() if not name.removeprefix("vllm:").startswith(ABSENT_FAMILIES)}
    return {name: Form(form.type, _possible(name, form)) for name, form in kept.items()}


def _possible(family: str, form: Form) -> frozenset[tuple[str, frozenset[tuple[str, str]]]]:
    if family == "vllm:cache_config_info":
        return frozenset(
            (n, frozenset(pair for pair in labels if pair[0] in INFO_LABELS)) for n, labels in form.samples
        )
    return frozenset((n, labels) for n, labels in form.samples if not labels & ABSENT_LABELS)
