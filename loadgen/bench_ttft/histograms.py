"""What the server's own histograms counted while a tool was at work: the difference of two readings."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import httpx

from inference.cluster.scraping import Malformed
from loadgen.spike.server import ServerSample, parse

QUIET_S = 1.0
QUIET_WITHIN_S = 60.0


class Unreadable(Exception):
    """The server's metrics can't be had, or don't come to rest; the text says which."""


@dataclass(frozen=True, slots=True)
class Served:
    """Means in seconds, over `ttft_count` first tokens and `e2e_count` requests that ended; tokens of all of them."""

    ttft_mean_s: float
    ttft_count: int
    e2e_mean_s: float
    e2e_count: int
    prompt_tokens: int
    completion_tokens: int


def between(before: ServerSample, after: ServerSample) -> Served:
    """vLLM keeps sum and count of each since it started (Prometheus' histograms), so the mean of what came between two
    readings is the sums' difference over the counts'. Raises Unreadable where nothing came."""
    ttft_count, e2e_count = after.ttft_count - before.ttft_count, after.e2e_count - before.e2e_count
    if ttft_count <= 0 or e2e_count <= 0:
        raise Unreadable("the server counted no request")
    return Served(
        (after.ttft_sum_s - before.ttft_sum_s) / ttft_count,
        int(ttft_count),
        (after.e2e_sum_s - before.e2e_sum_s) / e2e_count,
        int(e2e_count),
        int(after.prompt_tokens - before.prompt_tokens),
        int(after.generation_tokens - before.generation_tokens),
    )


async def reading(url: str) -> ServerSample:
    """Once nothing of it has moved for QUIET_S: a request is counted when it ends. Raises Unreadable."""
    give_up_at = time.monotonic() + QUIET_WITHIN_S
    async with httpx.AsyncClient(base_url=url, trust_env=False) as http:
        last = await _sample(http)
        while time.monotonic() < give_up_at:
            await asyncio.sleep(QUIET_S)
            now = await _sample(http)
            if _counters(now) == _counters(last):
                return now
            last = now
    raise Unreadable(f"{url} still had requests {QUIET_WITHIN_S:.0f} s after the last answer")


def _counters(sample: ServerSample) -> tuple[float | None, ...]:
    return (sample.ttft_count, sample.e2e_count, sample.generation_tokens)


async def _sample(http: httpx.AsyncClient) -> ServerSample:
    try:
        page = (await http.get("/metrics")).raise_for_status().content
        sample = parse(page, "", time.time())
    except (httpx.HTTPError, Malformed) as error:
        raise Unreadable(f"{http.base_url}/metrics: {error}") from None
    if sample is None or None in (*_counters(sample), sample.ttft_sum_s, sample.e2e_sum_s, sample.prompt_tokens):
        raise Unreadable(f"{http.base_url}/metrics is not a vLLM server's")
    return sample
