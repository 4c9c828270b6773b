"""What Prometheus knows of the replicas: queue by pod, KEDA's own queries, latency, tokens. By instant queries."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlencode

from inference.upstream import Upstream, UpstreamError

EVERY_S = 5.0  # the PodMonitor's interval: more often would bring nothing new
TIMEOUT_S = 4.0
WINDOW = "30s"

GAUGE = "sum by (pod) (vllm:num_requests_{state}{{namespace={namespace}}})"
TTFT = (
    "histogram_quantile({quantile}, sum by (le) "
    "(rate(vllm:time_to_first_token_seconds_bucket{{namespace={namespace}}}[" + WINDOW + "])))"
)
TOKENS = "sum(rate(vllm:generation_tokens_total{{namespace={namespace}}}[" + WINDOW + "]))"


class QueryFailed(Exception):
    """Prometheus can't be reached, is late, or refuses a query."""


@dataclass(frozen=True, slots=True)
class Readings:
    """`gauges` are requests running and waiting by pod; `triggers` the values of KEDA's queries by the trigger's name.
    What has no value is None, and all is while Prometheus fails: then `trouble` says how."""

    at_s: float | None = None
    gauges: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    triggers: Mapping[str, float | None] | None = None
    ttft_p50_s: float | None = None
    ttft_p95_s: float | None = None
    tokens_per_s: float | None = None
    trouble: str = ""

    def sentence(self) -> str:
        """For people: latency and throughput of all replicas, whoever asked them."""
        figures = [
            f"{name} {value:{form}}{unit}"
            for name, value, form, unit in (
                ("first token p50", self.ttft_p50_s, ".2f", " s"),
                ("p95", self.ttft_p95_s, ".2f", " s"),
                ("tokens a second", self.tokens_per_s, ",.0f", ""),
            )
            if value is not None
        ]
        if self.trouble:
            return f"Prometheus: {self.trouble}"
        return f"All replicas, by Prometheus: {', '.join(figures)}" if figures else ""


class Prometheus:
    """One server, asked every few seconds. `url` may carry a path; `queries` says which queries KEDA makes, by name."""

    def __init__(
        self,
        url: str,
        namespace: str,
        queries: Callable[[], Mapping[str, str]],
        tell: Callable[[Readings], None],
        clock: Callable[[], float],
        every_s: float = EVERY_S,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._upstream = Upstream(url)
        self._namespace = json.dumps(namespace)
        self._queries = queries
        self._tell = tell
        self._clock = clock
        self._every_s = every_s
        self._timeout_s = timeout_s

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            self._tell(await self.read())
            await asyncio.sleep(self._every_s)

    def close(self) -> None:
        self._upstream.close()

    async def read(self) -> Readings:
        """All queries at once; never raises. One that fails fails them all: half a reading would mislead."""
        triggers = self._queries()
        ours = [
            GAUGE.format(state="running", namespace=self._namespace),
            GAUGE.format(state="waiting", namespace=self._namespace),
            *(TTFT.format(quantile=quantile, namespace=self._namespace) for quantile in (0.5, 0.95)),
            TOKENS.format(namespace=self._namespace),
        ]
        asked = [asyncio.ensure_future(self._query(query)) for query in (*ours, *triggers.values())]
        try:
            async with asyncio.timeout(self._timeout_s):
                running, waiting, p50, p95, tokens, *values = await asyncio.gather(*asked)
        except TimeoutError:
            return Readings(trouble=f"no answer within {self._timeout_s:g} s")
        except QueryFailed as error:
            return Readings(trouble=str(error))
        finally:
            for one in asked:
                one.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
        pods = running.keys() | waiting.keys()
        return Readings(
            at_s=self._clock(),
            gauges={pod: (int(running.get(pod, 0)), int(waiting.get(pod, 0))) for pod in pods},
            triggers={name: _only(value) for name, value in zip(triggers, values, strict=True)} or None,
            ttft_p50_s=_only(p50),
            ttft_p95_s=_only(p95),
            tokens_per_s=_only(tokens),
        )

    async def _query(self, query: str) -> dict[str, float]:
        """The elements of an instant vector by their `pod` label; those without a number are left out."""
        try:
            exchange = await self._upstream.get(f"/api/v1/query?{urlencode({'query': query})}")
            try:
                body = await exchange.read()
            finally:
                exchange.close()
            answer = json.loads(body)
            if answer["status"] != "success":
                raise QueryFailed(f"{answer.get('errorType', 'error')}: {answer.get('error', '')} in {query}")
            return _elements(answer["data"])
        except UpstreamError as error:
            raise QueryFailed(str(error)) from error
        except (ValueError, LookupError, TypeError) as error:
            raise QueryFailed(f"not an answer of Prometheus (HTTP {exchange.status})") from error


def _elements(data: Mapping) -> dict[str, float]:
    """https://prometheus.io/docs/prometheus/latest/querying/api/#instant-queries: a value is `[time, "number"]`."""
    if data["resultType"] == "scalar":
        found = {"": float(data["result"][1])}
    else:
        found = {one["metric"].get("pod", ""): float(one["value"][1]) for one in data["result"]}
    return {pod: value for pod, value in found.items() if math.isfinite(value)}


def _only(values: Mapping[str, float]) -> float | None:
    return next(iter(values.values())) if len(values) == 1 else None
