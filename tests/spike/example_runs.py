"""Runs to look at: points as a tool would report them of a small queue that is simulated here, made into summaries and
folders by the program itself."""

from __future__ import annotations

import heapq
import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from random import Random

from loadgen.spike import folder
from loadgen.spike.generator import Usage
from loadgen.spike.plan import Plan, Prompt, Stage
from loadgen.spike.point import Point
from loadgen.spike.server import ServerSample
from loadgen.spike.summary import About, Summary, summarize

PLAN = Plan(
    scenario="spike",
    loop="open",
    start=2,
    stages=(
        Stage(2, 30, "before"),
        Stage(30, 0, "spike"),
        Stage(30, 60, "spike"),
        Stage(2, 0, "after"),
        Stage(2, 60, "after"),
    ),
    source="k6",
    seed=7,
    work=(Prompt("What is a pod?", 120),),
    thresholds=("ttft_p95_ms<1000",),
)
ABOUT = About(
    scenario="spike",
    tool="k6",
    tool_version="1.1.0",
    target="http://127.0.0.1:8000",
    what="crowdspike gateway",
    model="mistral-7b",
    simulated=True,
    holds_headers=True,
    loop="open",
    unit="requests/s",
    seed=7,
    peak=30,
    duration_s=150,
    started_at="2026-11-21T19:00:00+00:00",
    machine="2 cores, Linux",
)
CHAIN = [
    {"step": "edge", "label": "Load rises", "short": "spike", "t_s": 0.0, "why_not": ""},
    {"step": "crossed", "label": "Metric above target", "short": "metric over", "t_s": 1.2, "why_not": ""},
    {"step": "decision", "label": "More pods asked for", "short": "more asked", "t_s": 9.4, "why_not": ""},
    {"step": "node", "label": "Node ready", "short": "node ready", "t_s": None, "why_not": "there was room for it"},
    {"step": "ready", "label": "Pod ready", "short": "pod ready", "t_s": 31.0, "why_not": ""},
    {"step": "recovered", "label": "TTFT target met again", "short": "TTFT met", "t_s": 58.7, "why_not": ""},
]
USAGE = Usage(cpu_cores=2.0, cpu_share=0.41, others_share=0.3, loop_lag_p99_s=0.004, rss_mb=212.0)
REFUSED_AFTER_S = 12.0
TOKEN_S = 0.02


@dataclass(frozen=True)
class Fleet:
    """`more` slots beside the first ones are there from `ready_s` on. `slow` stretches what a request takes."""

    slots: int = 30
    more: int = 60
    ready_s: float = 61.0
    slow: float = 1.0


def points(plan: Plan = PLAN, fleet: Fleet | None = None, seed: int = 1) -> list[Point]:
    """Requests in order of arrival, each served by the slot that is free first."""
    fleet, random = fleet or Fleet(), Random(seed)
    free = [0.0] * fleet.slots
    grown, found = False, []
    for n, due_s in enumerate(plan.arrivals()):
        if not grown and due_s >= fleet.ready_s:
            free, grown = [*free, *[fleet.ready_s] * fleet.more], True
            heapq.heapify(free)
        sent_s = due_s + random.expovariate(1 / 0.002)
        begins_s = max(sent_s, free[0])
        if begins_s - sent_s > REFUSED_AFTER_S:
            refusal = replace(_point(n, due_s, sent_s), headers_s=sent_s + 0.01, ended_s=sent_s + 0.011, status=429)
            found.append(replace(refusal, error="429: the line is full"))
            continue
        tokens = min(120, max(8, round(random.lognormvariate(math.log(60), 0.5))))
        first_s = begins_s + fleet.slow * random.lognormvariate(math.log(0.15), 0.3)
        ended_s = first_s + fleet.slow * (tokens - 1) * random.lognormvariate(math.log(TOKEN_S), 0.1)
        heapq.heapreplace(free, ended_s)
        if random.random() < 0.004:
            broken = replace(_point(n, due_s, sent_s), headers_s=first_s, first_s=first_s, ended_s=ended_s, status=200)
            found.append(replace(broken, first_by="held headers", error="the stream broke off"))
            continue
        found.append(
            replace(
                _point(n, due_s, sent_s),
                headers_s=first_s,
                first_s=first_s,
                first_by="held headers",
                ended_s=ended_s,
                status=200,
                prompt_tokens=48,
                completion_tokens=tokens,
            )
        )
    return found


def _point(n: int, due_s: float, sent_s: float) -> Point:
    return Point(n=n, by="k6", due_s=due_s, sent_s=sent_s)


def dropped(found: Sequence[Point], every: int = 5) -> list[Point]:
    """The same, but one in so many never went out."""
    return [Point(n=p.n, by=p.by, due_s=p.due_s) if p.n % every == 0 else p for p in found]


def samples(found: Sequence[Point], fleet: Fleet | None = None) -> list[ServerSample]:
    """As the target would tell of these points, every other second, with the cluster beside it."""
    fleet = fleet or Fleet()
    seen = [one for one in found if one.first_s is not None and one.ended_s is not None]
    sent, ended = sorted(one.sent_s for one in seen), sorted(one.ended_s for one in seen)
    by_first = sorted(seen, key=lambda one: one.first_s)
    first = [one.first_s for one in by_first]
    waited = list(accumulate((one.first_s - one.sent_s for one in by_first), initial=0.0))
    last_s = max((one.ended_s or 0.0 for one in found), default=0.0)
    taken = []
    for at_s in range(0, math.ceil(last_s) + 2, 2):
        under_way = bisect_right(sent, at_s) - bisect_right(ended, at_s)
        told = bisect_right(first, at_s)
        slots = fleet.slots + (fleet.more if at_s >= fleet.ready_s else 0)
        taken.append(
            ServerSample(
                at_s=at_s,
                source="gateway",
                running=min(slots, under_way),
                waiting=max(0, under_way - slots),
                ttft_sum_s=waited[told],
                ttft_count=told,
                pods=3 if at_s >= 40 else 1,
                ready=3 if at_s >= fleet.ready_s else 1,
                desired=3 if at_s >= 38 else 1,
                nodes=3 if at_s >= 55 else 1,
                usd_per_hour=3.018 if at_s >= 55 else 1.006,
            )
        )
    return taken


def summary(
    plan: Plan = PLAN,
    found: Sequence[Point] | None = None,
    fleet: Fleet | None = None,
    troubles: Sequence[str] = (),
    **about: object,
) -> Summary:
    found = points(plan, fleet) if found is None else found
    told = samples(found, fleet)
    said = replace(ABOUT, **about)
    return summarize(plan, found, told, USAGE, said, run_id="example", chain=CHAIN, troubles=troubles)


def written(path: Path, plan: Plan = PLAN, fleet: Fleet | None = None, seed: int = 1, **about: object) -> Path:
    """A run's folder."""
    path.mkdir(parents=True)
    found = points(plan, fleet, seed)
    folder.write(path / folder.PLAN, plan.to_json())
    folder.write(path / folder.POINTS, "".join(one.to_json() + "\n" for one in found))
    folder.write(path / folder.SUMMARY, summary(plan, found, fleet, **about).to_json())
    return path
