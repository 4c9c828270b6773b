"""What the other side says of itself while a run goes on: a vLLM server's or the gateway's metrics, a room's cluster.

A page that does not come in time is left out: the run goes on without it.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import httpx

from inference.cluster.scraping import Labels, Malformed, read

EVERY_S = 1.0
TIMEOUT_S = 2.0
HISTORY_EVERY_S = 30.0
PAGE_BYTES_MAX = 8_000_000
EVENT_BYTES_MAX = 2_000_000

VLLM = {
    "running": "vllm:num_requests_running",
    "waiting": "vllm:num_requests_waiting",
    "ttft_sum_s": "vllm:time_to_first_token_seconds_sum",
    "ttft_count": "vllm:time_to_first_token_seconds_count",
    "e2e_sum_s": "vllm:e2e_request_latency_seconds_sum",
    "e2e_count": "vllm:e2e_request_latency_seconds_count",
    "prompt_tokens": "vllm:prompt_tokens_total",
    "generation_tokens": "vllm:generation_tokens_total",
}
GATEWAY = {
    "running": "crowdspike_gateway_in_flight",
    "waiting": "crowdspike_gateway_waiting",
    "ttft_sum_s": "crowdspike_gateway_ttft_seconds_sum",
    "ttft_count": "crowdspike_gateway_ttft_seconds_count",
    "e2e_sum_s": "crowdspike_gateway_e2e_seconds_sum",
    "e2e_count": "crowdspike_gateway_e2e_seconds_count",
    "prompt_tokens": "crowdspike_gateway_prompt_tokens_total",
    "generation_tokens": "crowdspike_gateway_completion_tokens_total",
}
CLUSTER = ("pods", "ready", "nodes", "desired", "usd_per_hour")
WANTED = frozenset([*VLLM.values(), *GATEWAY.values()])


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSample:
    """A moment. `at_s` is Unix time while the run goes on, and counts from its start afterwards. `running` and
    `waiting` are the requests on the server, whoever sent them; the sums and counts are the server's own counters since
    it started: of all requests at a vLLM server, of the run's source at a gateway. None is not known."""

    at_s: float
    source: Literal["vllm", "gateway", ""] = ""
    running: float | None = None
    waiting: float | None = None
    ttft_sum_s: float | None = None
    ttft_count: float | None = None
    e2e_sum_s: float | None = None
    e2e_count: float | None = None
    prompt_tokens: float | None = None
    generation_tokens: float | None = None
    pods: int | None = None
    ready: int | None = None
    nodes: int | None = None
    desired: int | None = None
    usd_per_hour: float | None = None

    def to_json(self) -> str:
        """A line; what is not known is left out."""
        known = {name: value for name, value in asdict(self).items() if value is not None and value != ""}
        return json.dumps(known, separators=(",", ":"))

    @classmethod
    def from_json(cls, line: str | bytes) -> ServerSample:
        """Raises ValueError, TypeError."""
        return cls(**json.loads(line))


@dataclass(frozen=True, slots=True)
class Counted:
    """What a server's own histograms counted in the run; means in seconds, None where it counted nothing."""

    source: str
    ttft_mean_s: float | None
    ttft_count: int
    e2e_mean_s: float | None


def parse(text: bytes | str, source: str, at_s: float) -> ServerSample | None:
    """A metrics page. Of a gateway's histograms and token counts only those of `source` are read. None when the page
    is neither a vLLM server's nor a gateway's. Raises Malformed."""
    found: dict[str, list[tuple[Labels, float]]] = {}
    for name, labels, value in read(text, WANTED):
        found.setdefault(name, []).append((labels, value))
    if GATEWAY["running"] in found:
        everyone = {GATEWAY["running"], GATEWAY["waiting"]}
        sums = {
            name: sum(value for labels, value in rows if name in everyone or labels.get("source") == source)
            for name, rows in found.items()
        }
        sample = ServerSample(at_s=at_s, source="gateway", **{field: sums.get(name) for field, name in GATEWAY.items()})
        return replace(sample, running=max(0.0, (sample.running or 0.0) - (sample.waiting or 0.0)))
    if VLLM["running"] in found:
        sums = {name: sum(value for _, value in rows) for name, rows in found.items()}
        return ServerSample(at_s=at_s, source="vllm", **{field: sums.get(name) for field, name in VLLM.items()})
    return None


def counted(samples: Iterable[ServerSample]) -> Counted | None:
    """Between the last sample before the run, or the first there is, and the last one. None without two samples, or
    when a counter fell meanwhile: the server was started again, or another one answered."""
    pages = sorted((one for one in samples if one.ttft_count is not None), key=lambda one: one.at_s)
    before = [one for one in pages if one.at_s <= 0]
    pages = [*before[-1:], *(one for one in pages if one.at_s > 0)]
    falls = (later.ttft_count < one.ttft_count for one, later in pairwise(pages))
    if len(pages) < 2 or any(falls):
        return None
    first, last = pages[0], pages[-1]
    count = int(last.ttft_count - first.ttft_count)
    return Counted(
        last.source,
        _mean(first.ttft_sum_s, last.ttft_sum_s, count),
        count,
        _mean(first.e2e_sum_s, last.e2e_sum_s, (last.e2e_count or 0) - (first.e2e_count or 0)),
    )


def cost_usd(samples: Iterable[ServerSample], to_s: float) -> float | None:
    """What the cluster cost from the run's start until `to_s`: each price holds until the next. None when no price was
    known."""
    prices = sorted((one.at_s, one.usd_per_hour) for one in samples if one.usd_per_hour is not None and one.at_s < to_s)
    if not prices:
        return None
    ends = [at_s for at_s, _ in prices[1:]] + [to_s]
    return sum(max(0.0, end - max(0.0, at_s)) * usd for (at_s, usd), end in zip(prices, ends, strict=True)) / 3600


def relative(samples: Iterable[ServerSample], began_s: float) -> list[ServerSample]:
    """With times since the run's start, in their order."""
    return sorted((replace(one, at_s=round(one.at_s - began_s, 3)) for one in samples), key=lambda one: one.at_s)


class Sampler:
    """Reads `url`/metrics, and of a `room` its cluster, while `watch` runs; what it has learnt is in `samples` with
    Unix times and in `chain`. Ask for one `sample` before the run and one after the last answer: the difference of the
    server's counters is between those two."""

    def __init__(
        self, url: str, source: str, *, room: str = "", insecure: bool = False, clock: Callable[[], float] = time.time
    ) -> None:
        self._url = url.rstrip("/")
        self._source = source
        self._room = room
        self._clock = clock
        self._client = httpx.AsyncClient(verify=not insecure, timeout=TIMEOUT_S, trust_env=False)
        self._pages: list[ServerSample] = []
        self._seconds: dict[int, ServerSample] = {}
        self._since_s = clock()
        self._chain_before: object = None
        self.chain: list[dict[str, Any]] | None = None

    @property
    def samples(self) -> list[ServerSample]:
        return sorted([*self._pages, *self._seconds.values()], key=lambda one: one.at_s)

    async def begin(self) -> None:
        """Before anything is sent: the counters, and the delay chain of an earlier spike, which is not this run's."""
        self._since_s = self._clock()
        cluster, _ = await asyncio.gather(self._cluster(), self.sample())
        self._chain_before = cluster.get("chain")

    async def watch(self) -> None:
        """Until it is cancelled."""
        loop = asyncio.get_running_loop()
        history_s = loop.time() + HISTORY_EVERY_S
        while True:
            due_s = loop.time() + EVERY_S
            await self.sample()
            if loop.time() >= history_s:
                history_s += HISTORY_EVERY_S
                await self._history()
            await asyncio.sleep(max(0.0, due_s - loop.time()))

    async def finish(self) -> None:
        """After the last answer: the counters once more, the cluster's history and the run's own delay chain."""
        cluster, *_ = await asyncio.gather(self._cluster(), self.sample(), self._history())
        chain, since_s = cluster.get("chain"), cluster.get("since_edge_s")
        ours = isinstance(since_s, int | float) and since_s <= self._clock() - self._since_s + EVERY_S
        if isinstance(chain, list) and chain != self._chain_before and ours:
            self.chain = chain

    async def sample(self) -> None:
        page = await self._get("/metrics")
        if page is None:
            return
        try:
            sample = parse(page, self._source, self._clock())
        except Malformed:
            return
        if sample is not None:
            self._pages.append(sample)

    async def close(self) -> None:
        await self._client.aclose()

    async def _history(self) -> None:
        if not self._room:
            return
        page = await self._get(f"/stage/{self._room}/history")
        try:
            self._seconds.update((int(one.at_s), one) for one in seconds(json.loads(page or b"{}")))
        except (ValueError, TypeError, AttributeError):
            return

    async def _cluster(self) -> Mapping[str, Any]:
        """`cluster` of the stage's first snapshot; empty when it does not come."""
        if not self._room:
            return {}
        try:
            async with asyncio.timeout(TIMEOUT_S):
                found = await self._first_snapshot()
            return found["cluster"] if isinstance(found["cluster"], dict) else {}
        except (httpx.HTTPError, TimeoutError, ValueError, TypeError, KeyError):
            return {}

    async def _first_snapshot(self) -> Any:
        read_bytes = 0
        async with self._client.stream("GET", f"{self._url}/stage/{self._room}/events") as answer:
            async for line in answer.raise_for_status().aiter_lines():
                read_bytes += len(line)
                if line.startswith("data: {") or read_bytes > EVENT_BYTES_MAX:
                    return json.loads(line.removeprefix("data: "))
        raise ValueError("the stage ended its events before the first one")

    async def _get(self, path: str) -> bytes | None:
        try:
            async with asyncio.timeout(TIMEOUT_S), self._client.stream("GET", self._url + path) as answer:
                if answer.status_code != 200:
                    return None
                body = bytearray()
                async for part in answer.aiter_bytes():
                    body += part
                    if len(body) > PAGE_BYTES_MAX:
                        return None
                return bytes(body)
        except (httpx.HTTPError, TimeoutError, OSError):
            return None


def seconds(columns: Mapping[str, Sequence[Any]]) -> list[ServerSample]:
    """A room's history, columns by name, as one sample of the cluster a second; a column that is not there is not
    known."""
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return [ServerSample(at_s=float(row["t"]), **{name: row.get(name) for name in CLUSTER}) for row in rows]


def _mean(before: float | None, after: float | None, count: float) -> float | None:
    return None if before is None or after is None or count <= 0 else (after - before) / count
