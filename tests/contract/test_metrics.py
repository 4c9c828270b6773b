"""`/metrics`: the families of vLLM 0.32, and figures that follow each request exactly."""

from __future__ import annotations

import random
from collections.abc import Mapping

import pytest

from tests.contract import differences
from tests.contract.crowd import crowd
from tests.contract.exchange import RECORDED
from tests.contract.metrics import forms
from tests.contract.requests import CHAT_PATH, MESSAGES, PROMPT, TEXT_PATH, WITH_USAGE

# One observation a request.
EACH_REQUEST = (
    "time_to_first_token_seconds",
    "e2e_request_latency_seconds",
    "request_queue_time_seconds",
    "request_prefill_time_seconds",
    "request_decode_time_seconds",
    "request_inference_time_seconds",
    "request_time_per_output_token_seconds",
    "request_prompt_tokens",
    "request_generation_tokens",
    "request_max_num_generation_tokens",
    "request_params_n",
    "request_params_max_tokens",
    "request_num_preemptions",
    "request_prefill_kv_computed_tokens",
)


def test_families_have_the_recorded_types_labels_and_buckets(server, client):
    recorded = forms((RECORDED / "metrics-idle.txt").read_text(encoding="utf-8"))
    expected = differences.simulated(recorded) if server.simulated else recorded
    exported = forms(client.get("/metrics").text)
    assert sorted(exported) == sorted(expected)
    assert {name: exported[name] for name in expected if exported[name] != expected[name]} == {}


async def test_token_counters_grow_by_what_usage_says(server):
    async with crowd(server.url) as callers:
        before = await callers.values()
        whole = {"messages": MESSAGES, "max_tokens": 7, "ignore_eos": True}
        used = (await callers.client.post(CHAT_PATH, json=whole)).json()["usage"]
        # Drawn at random, as the real server would take a prompt that it knows from its prefix cache.
        streamed = {"prompt": random.sample(range(5, 1500), 300), "max_tokens": 11, "ignore_eos": True, **WITH_USAGE}
        await callers.client.post(TEXT_PATH, json=streamed)
        grown = await _after(callers, before, requests=2)
        assert used["completion_tokens"] == 7
        assert grown["generation_tokens_total"] == 7 + 11
        assert grown["prompt_tokens_total"] == used["prompt_tokens"] + 300
        assert grown["request_success_total length"] == 2
        assert grown["request_success_total stop"] == grown["request_success_total abort"] == 0
        assert grown["request_prompt_tokens_sum"] == grown["prompt_tokens_total"]
        assert grown["request_generation_tokens_sum"] == grown["generation_tokens_total"]
        assert grown["request_params_max_tokens_sum"] == grown["request_max_num_generation_tokens_sum"] == 18
        assert grown["iteration_tokens_total_sum"] == grown["prompt_tokens_total"] + 18


async def test_each_histogram_sees_each_request_once(server):
    async with crowd(server.url) as callers:
        before = await callers.values()
        for _ in range(3):
            await callers.client.post(TEXT_PATH, json={"prompt": PROMPT, "max_tokens": 9, "ignore_eos": True})
        grown = await _after(callers, before, requests=3)
        assert {name: grown[f"{name}_count"] for name in EACH_REQUEST} == dict.fromkeys(EACH_REQUEST, 3)
        assert grown["inter_token_latency_seconds_count"] == 3 * 8
        assert grown["num_preemptions_total"] == 0


async def test_times_of_a_request_add_up(server):
    async with crowd(server.url) as callers:
        before = await callers.values()
        await callers.client.post(TEXT_PATH, json={"prompt": PROMPT, "max_tokens": 40, "ignore_eos": True})
        grown = await _after(callers, before, requests=1)
        prefill, decode = grown["request_prefill_time_seconds_sum"], grown["request_decode_time_seconds_sum"]
        assert 0 < prefill <= grown["time_to_first_token_seconds_sum"] <= grown["e2e_request_latency_seconds_sum"]
        assert grown["request_inference_time_seconds_sum"] == pytest.approx(prefill + decode)
        assert grown["inter_token_latency_seconds_sum"] == pytest.approx(decode)
        assert grown["request_time_per_output_token_seconds_sum"] == pytest.approx(decode / 39)


async def test_a_stopped_answer_counts_as_stop(server):
    async with crowd(server.url) as callers:
        asked = {"prompt": PROMPT, "max_tokens": 30, "ignore_eos": True, "temperature": 0}
        full = (await callers.client.post(TEXT_PATH, json=asked)).json()["choices"][0]["text"]
        before = await callers.values()
        await callers.client.post(TEXT_PATH, json={**asked, "stop": full[len(full) // 2 :][:4]})
        grown = await _after(callers, before, requests=1)
        assert grown["request_success_total stop"] == 1


async def test_who_left_counts_nowhere(server):
    async with crowd(server.url) as callers:
        before = await callers.values()
        callers.join(2)
        await callers.wait_load(running=2, waiting=0)
        await callers.leave_all()
        await callers.wait_load(running=0, waiting=0)
        await callers.client.post(TEXT_PATH, json={"prompt": PROMPT, "max_tokens": 1})
        grown = await _after(callers, before, requests=1)
        assert grown["request_success_total"] == grown["e2e_request_latency_seconds_count"] == 1
        assert grown["request_success_total abort"] == 0


async def test_refused_requests_count_nowhere(server):
    async with crowd(server.url) as callers:
        before = await callers.values()
        await callers.client.post(TEXT_PATH, json={"prompt": PROMPT, "max_tokens": -1})
        await callers.client.post(TEXT_PATH, json={"prompt": PROMPT, "max_tokens": 1})
        grown = await _after(callers, before, requests=1)
        assert grown["request_success_total"] == 1


async def _after(callers, before: Mapping[str, float], requests: int) -> Mapping[str, float]:
    """By how much each figure grew, once so many requests have been counted: vLLM counts just after it has answered."""
    done = before["request_success_total"] + requests
    after = await callers.wait(lambda v: v["request_success_total"] >= done)
    return {name: after[name] - before[name] for name in after}
