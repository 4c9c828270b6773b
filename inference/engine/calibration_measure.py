"""Measures a running vLLM from outside: what it says of itself, what it can complete, and traces at a share of that."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from inference.engine.simulation import Arrival
from inference.openloop.client import Run, Target, replay, saturate
from inference.openloop.gauges import cache_config
from inference.openloop.summary import tokens_per_s
from inference.openloop.trace import Mix, poisson
from inference.upstream import Upstream, UpstreamError

WARM_UP_S = 5.0
CLOSED_LOOP_S = 10.0


class NotCalibrated(Exception):
    """Why there is no profile, and what to do."""


@dataclass(frozen=True, slots=True)
class Server:
    """What the server says about itself."""

    model: str
    version: str
    max_model_len: int
    kv_block_size: int
    num_kv_blocks: int


@dataclass(frozen=True, slots=True)
class Load:
    """One open-loop trace and what came of it; `share` is of the capacity."""

    share: float
    duration_s: float
    trace: list[Arrival]
    run: Run


async def describe(url: str, api_key: str | None = None) -> Server:
    """Raises NotCalibrated."""
    upstream = Upstream(url, api_key=api_key)

    async def get(path: str) -> bytes:
        exchange = await upstream.get(path)
        body = await exchange.read()
        exchange.close()
        if exchange.status != 200:
            raise NotCalibrated(f"{url}{path} answers {exchange.status}")
        return body

    try:
        card = json.loads(await get("/v1/models"))["data"][0]
        version = json.loads(await get("/version"))["version"]
        cache = cache_config(await get("/metrics"))
        sizes = int(card["max_model_len"]), int(cache["block_size"]), int(cache["num_gpu_blocks"])
        return Server(card["id"], version, *sizes)
    except (UpstreamError, ValueError, LookupError, TypeError) as error:
        raise NotCalibrated(f"{url} is not a vLLM that can be calibrated: {type(error).__name__} {error}") from error
    finally:
        upstream.close()


async def find_capacity(target: Target, concurrency: int, mix: Mix, seed: int) -> float:
    """Requests a second that the server completes when `concurrency` are always there. Raises NotCalibrated."""
    run = await saturate(target, concurrency, WARM_UP_S + CLOSED_LOOP_S, seed, mix)
    got = tokens_per_s([*run.served, *run.unfinished], WARM_UP_S, WARM_UP_S + CLOSED_LOOP_S)
    if not got:
        raise NotCalibrated(f"{target.url} gave no tokens: {_failures(run) or 'it is too slow for this'}")
    return got / mix.mean_output_tokens


async def measure(
    target: Target, capacity_per_s: float, shares: Sequence[float], duration_s: float, mix: Mix, seed: int
) -> list[Load]:
    """One trace after the other. Raises NotCalibrated when requests fail."""
    loads = []
    for i, share in enumerate(shares):
        trace = poisson(share * capacity_per_s, duration_s, seed + i, mix)
        run = await replay(target, trace)
        if run.failed:
            raise NotCalibrated(f"at {share:.0%} of the capacity requests failed: {_failures(run)}")
        loads.append(Load(share, duration_s, trace, run))
    return loads


def _failures(run: Run) -> str:
    return ", ".join(f"{count} × {error}" for error, count in run.failed.most_common(3))
