"""What a vLLM server says about itself in /metrics, as far as a measurement needs it."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass

from inference.upstream import Upstream, UpstreamError

_GAUGE = re.compile(rb"^vllm:num_requests_(running|waiting)(?:\{[^}\n]*\})? ([0-9.e+-]+)$", re.MULTILINE)
_CACHE_CONFIG = re.compile(rb"^vllm:cache_config_info\{([^\n]*)\} ", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, slots=True)
class Sample:
    """The server's gauges at one moment, all its engines together."""

    at_s: float
    running: float
    waiting: float


def sample(metrics: bytes, at_s: float) -> Sample | None:
    """None when the page has no such gauges."""
    found = _GAUGE.findall(metrics)
    totals = {name: sum(float(value) for of, value in found if of == name) for name, _ in found}
    return Sample(at_s, totals[b"running"], totals[b"waiting"]) if len(totals) == 2 else None


def cache_config(metrics: bytes) -> Mapping[str, str]:
    """The labels of vllm:cache_config_info (block_size, num_gpu_blocks …); empty when there is none."""
    found = _CACHE_CONFIG.search(metrics)
    return dict(_LABEL.findall(found[1].decode("utf-8", "replace"))) if found else {}


async def follow(upstream: Upstream, every_s: float, start_s: float, samples: list[Sample]) -> None:
    """Adds a sample every so often until it is cancelled; a page that does not come is left out. `at_s` counts from
    `start_s` by time.monotonic()."""
    next_s = max(start_s, time.monotonic())
    while True:
        await asyncio.sleep(next_s - time.monotonic())
        next_s = max(next_s + every_s, time.monotonic())
        try:
            exchange = await upstream.get("/metrics")
            found = sample(await exchange.read(), time.monotonic() - start_s)
            exchange.close()
        except UpstreamError:
            continue
        if found:
            samples.append(found)
