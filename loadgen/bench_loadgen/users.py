"""A thousand users of our gateway before four simulated replicas: what they get, as our own harness measures it."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from inference.engine import profile as profiles
from inference.engine import tokens
from inference.engine.core import Core
from inference.engine.profile import Profile
from inference.engine.simulation import Arrival
from inference.engine.simulation import run as simulated
from loadgen import machine, processes
from loadgen.processes import Process
from loadgen.spike import folder as folders
from loadgen.spike import preflight, scenarios
from loadgen.spike.order import INTERRUPTED, Order
from loadgen.spike.plan import Loop, Plan, Prompt
from loadgen.spike.run import run
from loadgen.spike.scenarios import Options
from loadgen.spike.summary import Summary

PROFILE = "a10g-mistral-7b-awq"
REPLICAS = 4
USERS = 1000
PER_S = 100.0
PROMPT_TOKENS, MAX_TOKENS = (16, 64), (16, 100)
WARM_SHARE = 1 / 6
"""Of the run, in which a closed loop's users have all begun at once: what came then is left out of the rate."""

Shape = Literal["at 100/s", "as fast as answered"]
"""Both have the users at most: in the first a free one asks when it is due, and a request that finds none is dropped;
in the second each asks again when it has its answer."""
SHAPES: dict[Shape, Loop] = dict(zip(get_args(Shape), ("open", "closed"), strict=True))


@dataclass(frozen=True, slots=True)
class Crowd:
    """One run. `rate` is of answers in full, after the warm-up. `lost` were sent and not served. Latencies count from
    when a request was due (open loop) or sent, in seconds; `ttft_by` says who saw the first token. Of the CPU in cores;
    `generator_share` is of what the tool can use, `others_share` of the machine."""

    tool: str
    tool_version: str
    shape: Shape
    users: int
    for_s: float
    rate: float
    sent: int
    served: int
    lost: int
    dropped: int
    errors: dict[str, int]
    ttft_p50_s: float | None
    ttft_p95_s: float | None
    ttft_by: str
    e2e_p50_s: float | None
    e2e_p95_s: float | None
    completion_tokens: float
    gateway_cores: float
    replicas_cores: float
    generator_share: float | None
    others_share: float
    verdict: str
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Servers:
    gateway: Process
    replicas: tuple[Process, ...]

    def cpu_s(self) -> tuple[float, float]:
        return machine.cpu_s(self.gateway.pid), sum(machine.cpu_s(one.pid) for one in self.replicas)


@contextmanager
def servers(folder: Path, profile: str = PROFILE) -> Iterator[Servers]:
    """The web app as `crowdspike serve` runs it, but without keys: their limits are not what is measured. Raises
    NotReady."""
    with ExitStack() as stack:
        replicas = []
        for seed in range(REPLICAS):
            replicas.append(processes.engine(folder / f"replica-{seed}.log", "--profile", profile, "--seed", str(seed)))
            stack.callback(replicas[-1].end)
        for one in replicas:
            one.wait_ready()
        gateway = processes.web_app(
            folder / "web.log",
            str(folder / "store"),
            inference_url=",".join(one.url for one in replicas),
            environment={"CROWDSPIKE_API_KEYS": "off"},
        )
        stack.callback(gateway.end)
        gateway.wait_ready()
        yield Servers(gateway, tuple(replicas))


def plan(tool: str, shape: Shape, users: int, for_s: float, model: str = "") -> Plan:
    """`users` at most; the rate of an open loop is a tenth of their number, as 1,000 of them are at 100 a second."""
    closed = SHAPES[shape] == "closed"
    return scenarios.plan(
        "soak",
        Options(
            tool=tool,
            peak=users if closed else users * PER_S / USERS,
            duration_s=for_s,
            closed=closed,
            model=model,
            prompt_tokens=PROMPT_TOKENS,
            max_tokens=MAX_TOKENS,
            ignore_eos=True,
            max_in_flight=users,
        ),
    )


def capacity_per_s(profile: Profile, work: Sequence[Prompt], replicas: int = REPLICAS) -> float:
    """Requests a second that so many replicas make by their profile alone when every seat is always taken: the work is
    there twice from the start, and the middle half counts, which is about all of it once."""
    prompts = (len(tokens.of_chat([{"role": "user", "content": one.text}])) for one in work)
    trace = [Arrival(0.0, count, one.max_tokens) for count, one in zip(prompts, work, strict=True)]
    core = Core(profile.capacity, profile.step_s, async_scheduling=profile.async_scheduling)
    ends_s = sorted(served.token_s[-1] for served in simulated(core, trace * 2))
    first, last = len(ends_s) // 4, 3 * len(ends_s) // 4
    return replicas * (last - first) / (ends_s[last] - ends_s[first])


async def crowd(tool: str, shape: Shape, users: int, for_s: float, at: Servers, folder: Path) -> Crowd:
    """One run of our own harness; its report stays in `folder`. Raises BadTarget, BadFolder, KeyboardInterrupt."""
    target = await preflight.look(at.gateway.url)
    folders.make(folder)
    order = Order(plan=plan(tool, shape, users, for_s, target.model), tool=tool, target=target, folder=folder)
    before_s, began_s = at.cpu_s(), time.monotonic()
    outcome = await run(order, _nothing(), lambda progress: None)
    if outcome.exit_code == INTERRUPTED:
        raise KeyboardInterrupt
    took_s, after_s = time.monotonic() - began_s, at.cpu_s()
    gateway_s, replicas_s = (after - before for after, before in zip(after_s, before_s, strict=True))
    found = _crowd(tool, shape, users, for_s, outcome.summary, folder, (gateway_s / took_s, replicas_s / took_s))
    print(f"{tool:6} {shape:20} {_in_short(found)}", flush=True)
    return found


def _crowd(
    tool: str, shape: Shape, users: int, for_s: float, told: Summary, folder: Path, cores: tuple[float, float]
) -> Crowd:
    counts, loop = told.counts, SHAPES[shape]
    ttft, e2e = told.latency.ttft_s.user(loop), told.latency.e2e_s.user(loop)
    warm_s = WARM_SHARE * for_s
    points = folders.read_run(folder).points()
    ended = sum(point.outcome == "served" and warm_s <= point.ended_s < for_s for point in points)
    others = told.generator.others_share or 0.0  # the servers are among them
    return Crowd(
        tool=tool,
        tool_version=told.about.tool_version,
        shape=shape,
        users=users,
        for_s=for_s,
        rate=ended / (for_s - warm_s),
        sent=counts.sent,
        served=counts.served,
        lost=counts.sent - counts.served,
        dropped=counts.dropped,
        errors=counts.errors,
        ttft_p50_s=ttft.p50 if ttft else None,
        ttft_p95_s=ttft.p95 if ttft else None,
        ttft_by=told.ttft_by,
        e2e_p50_s=e2e.p50 if e2e else None,
        e2e_p95_s=e2e.p95 if e2e else None,
        completion_tokens=told.tokens.completion / counts.served if counts.served else 0.0,
        gateway_cores=cores[0],
        replicas_cores=cores[1],
        generator_share=told.generator.cpu_share,
        others_share=max(0.0, others - sum(cores) / (os.cpu_count() or 1)),
        verdict=told.verdict.verdict,
        reasons=told.verdict.reasons,
    )


async def _nothing() -> AsyncIterator[str]:
    """Nobody commands the run."""
    for command in ():
        yield command


def profile() -> Profile:
    return profiles.load(PROFILE)


def _in_short(one: Crowd) -> str:
    text = f"{one.rate:6.1f}/s  {one.served:,} of {one.sent + one.dropped:,} served  E2E p50 {_s(one.e2e_p50_s)}"
    text += f" p95 {_s(one.e2e_p95_s)}  TTFT p50 {_s(one.ttft_p50_s)} p95 {_s(one.ttft_p95_s)} ({one.ttft_by})"
    text += f"  gateway {one.gateway_cores:.2f} cores, replicas {one.replicas_cores:.2f}, others {one.others_share:.0%}"
    return f"{text}  {one.verdict} {' '.join(one.reasons)}".rstrip()


def _s(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f} s"
