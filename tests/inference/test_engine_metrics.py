"""The replica's /metrics beside the recording of vLLM 0.32, and what its figures say after known requests."""

import re
from collections import defaultdict
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from inference.upstream import Upstream
from tests.inference.servers import STEADY, engine, get, profile, serving, until

RECORDED = (Path(__file__).parent / "recorded" / "metrics-idle.txt").read_text()
COMPLETIONS = "/v1/completions"
# What the simulation has no part of is absent rather than zero.
ABSENT = {
    *("vllm:estimated_flops_per_gpu", "vllm:estimated_read_bytes_per_gpu", "vllm:estimated_write_bytes_per_gpu"),
    *("vllm:prefix_cache_queries", "vllm:prefix_cache_hits", "vllm:prompt_tokens_cached"),
    *("vllm:external_prefix_cache_queries", "vllm:external_prefix_cache_hits", "vllm:prompt_tokens_cached_by_source"),
    *("vllm:mm_cache_queries", "vllm:mm_cache_hits", "vllm:engine_sleep_state"),
}


def types(text: str) -> dict[str, str]:
    """Types by name, of the families that are vLLM's own; a counter's as `x`, not as `x_total`."""
    rows = re.findall(r"^# TYPE (vllm:\S+) (\w+)$", text, re.MULTILINE)
    return {name.removesuffix("_total") if kind == "counter" else name: kind for name, kind in rows}


def samples(text: str) -> dict[str, set[tuple[tuple[str, str], ...]]]:
    found = defaultdict(set)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name].add(tuple(sorted(sample.labels.items())))
    return found


class Figures:
    """One reading of /metrics: `figures["name"]`, with labels as keywords of `value`."""

    def __init__(self, text: str) -> None:
        self._samples = [s for family in text_string_to_metric_families(text) for s in family.samples]

    def __getitem__(self, name: str) -> float:
        return self.value(name)

    def value(self, name: str, **labels: str) -> float:
        found = [s.value for s in self._samples if s.name == f"vllm:{name}" and labels.items() <= s.labels.items()]
        assert len(found) == 1, (name, labels, found)
        return found[0]


async def read(url: str) -> Figures:
    return Figures((await get(url, "/metrics"))[1].decode())


async def complete(url: str, body: bytes) -> bytes:
    return await (await Upstream(url).post(COMPLETIONS, body)).read()


async def test_every_family_has_the_recorded_type_and_the_rest_is_absent():
    async with serving(engine(max_model_len=1024)) as url:
        ours = types((await get(url, "/metrics"))[1].decode())
    recorded = types(RECORDED)
    assert ours == {name: recorded[name] for name in ours}
    assert {n.removesuffix("_created") for n in recorded.keys() - ours.keys()} == ABSENT


async def test_every_sample_has_the_recorded_labels_and_buckets():
    async with serving(engine(max_model_len=1024)) as url:
        ours = samples((await get(url, "/metrics"))[1].decode())
    recorded = samples(RECORDED)
    for name, labels in ours.items():
        if name == "vllm:cache_config_info":
            assert {key for key, _ in next(iter(labels))} <= {key for key, _ in next(iter(recorded[name]))}
        elif name.startswith(("vllm:prompt_tokens_by_source", "vllm:admission_rejections")):
            assert labels < recorded[name]  # only the sources and reasons that it has
        else:
            assert labels == recorded[name], name


async def test_finished_requests_are_counted_by_reason_and_length():
    async with serving(engine(max_model_len=1024)) as url:
        await complete(url, b'{"prompt":"pod","max_tokens":3}')
        await complete(url, b'{"prompt":"pod"}')
        figures = await read(url)
    words = len(["A", " pod", " is", " a", " group", ".", "end"])
    assert figures.value("request_success_total", finished_reason="length") == 1
    assert figures.value("request_success_total", finished_reason="stop") == 1
    assert figures["prompt_tokens_total"] == figures.value("prompt_tokens_by_source_total") == 4
    assert figures["generation_tokens_total"] == figures["request_generation_tokens_sum"] == 3 + words
    assert figures["request_max_num_generation_tokens_sum"] == 3 + words
    assert figures["request_params_max_tokens_sum"] == 3 + 16
    assert figures["request_prefill_kv_computed_tokens_sum"] == figures["request_prompt_tokens_sum"] == 4
    assert figures["iteration_tokens_total_sum"] == 4 + 3 + words
    assert figures["iteration_tokens_total_count"] == 3 + words
    assert figures["time_to_first_token_seconds_count"] == 2
    assert figures["inter_token_latency_seconds_count"] == 2 + words - 1
    for name in ("request_params_n", "request_num_preemptions", "e2e_request_latency_seconds"):
        assert figures[f"{name}_count"] == 2
    for name in ("queue", "inference", "prefill", "decode"):
        assert figures[f"request_{name}_time_seconds_count"] == 2
    assert figures["kv_cache_usage_perc"] == figures["num_requests_running"] == 0


async def test_times_add_up():
    async with serving(engine(STEADY)) as url:
        for _ in range(3):
            await complete(url, b'{"prompt":"story","max_tokens":20}')
        figures = await read(url)
    decode, prefill = figures["request_decode_time_seconds_sum"], figures["request_prefill_time_seconds_sum"]
    assert decode + prefill == pytest.approx(figures["request_inference_time_seconds_sum"])
    assert decode == pytest.approx(figures["inter_token_latency_seconds_sum"])
    assert figures["request_time_per_output_token_seconds_sum"] == pytest.approx(decode / 19)
    # The first step of each costs the prompt, the other nineteen 5 ms each; only a stalled machine makes them longer.
    assert decode >= 3 * 19 * 0.005 - 1e-9


async def test_gauges_show_what_runs_and_waits_and_the_blocks_in_use():
    replica = engine(profile(step_base_ms=20), max_num_seqs=2, num_kv_blocks=257)
    async with serving(replica) as url:
        asked = [await Upstream(url).post(COMPLETIONS, STREAM) for _ in range(3)]
        await until(lambda: (replica.running, replica.waiting) == (2, 1))
        figures = await read(url)
        assert (figures["num_requests_running"], figures["num_requests_waiting"]) == (2, 1)
        assert figures.value("num_requests_waiting_by_reason", reason="capacity") == 1
        assert 0 < figures["kv_cache_usage_perc"] < 1
        assert figures.value("cache_config_info", num_gpu_blocks="257", block_size="16") == 1
        for exchange in asked:
            exchange.close()
        # The gauges are counted when a step has ended.
        await until(lambda: (replica.unfinished, replica.running, replica.waiting) == (0, 0, 0))
        figures = await read(url)
    assert (figures["num_requests_running"], figures["num_requests_waiting"]) == (0, 0)
    assert figures["kv_cache_usage_perc"] == 0
    assert figures["e2e_request_latency_seconds_count"] == 0  # who leaves is in no histogram


async def test_preemptions_are_counted():
    # 16 blocks of 16 tokens hold one request of 256; two of 200 want more in the end.
    replica = engine(max_num_seqs=2, num_kv_blocks=17, max_model_len=256)
    async with serving(replica) as url:
        bodies = [b'{"prompt":"story","max_tokens":200,"stream":true}'] * 2
        asked = [await Upstream(url).post(COMPLETIONS, body) for body in bodies]
        for exchange in asked:
            await exchange.read()
        figures = await read(url)
    assert figures["num_preemptions_total"] >= 1
    assert figures["request_num_preemptions_sum"] == figures["num_preemptions_total"]


STREAM = b'{"prompt":"story","max_tokens":1000,"stream":true}'
