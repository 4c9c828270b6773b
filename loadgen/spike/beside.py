"""What goes by beside the tool: the server's own metrics, our own load, the probe, and an audience's presenter."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress

from loadgen.spike import drive, generator
from loadgen.spike.order import Order
from loadgen.spike.plan import Plan
from loadgen.spike.point import Report
from loadgen.spike.probe import Probe
from loadgen.spike.server import Sampler, ServerSample, relative
from loadgen.spike.tools.tool import Tool

PROBE_ENDS_WITHIN_S = 10.0


class Beside:
    """`begin` before the first request, `started` at moment 0, `end` after the tool's end; nothing of it runs after the
    block. `driven`: the room is led through its talk. `hear` takes what the probe says. What broke off is told in
    `problems`: a run goes on without it."""

    def __init__(self, order: Order, driven: bool, hear: Callable[[Report], None]) -> None:
        self._order = order
        self._driven = driven
        self._hear = hear
        self._tasks: list[asyncio.Task[None]] = []
        self._open = AsyncExitStack()
        self._begun = False
        self._watch: generator.Watch | None = None
        self._probe: Probe | None = None
        self._sampler = Sampler(order.target.url, order.plan.source, room=order.room, insecure=order.insecure)
        self.problems: list[str] = []

    async def __aenter__(self) -> Beside:
        self._open.push_async_callback(self._sampler.close)
        self._open.push_async_callback(self._give_up)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()

    async def begin(self, tool: Tool) -> None:
        self._begun = True
        await self._sampler.begin()
        self._tasks.append(asyncio.create_task(self._sampler.watch()))
        if self._order.on == "here":
            watching = generator.watching(lambda: tool.pids, one_core_each=self._order.tool == "locust")
            self._watch = await self._open.enter_async_context(watching)

    def started(self, began_s: float) -> None:
        order, plan, target = self._order, self._order.plan, self._order.target
        if self._driven:
            self._tasks.append(asyncio.create_task(self._drive(plan)))
        blind = order.tool == "k6" and not target.holds_headers
        if blind and plan.work and plan.scenario != "audience" and (plan.model or target.model):
            self._probe = Probe(
                plan, target.url, target.model, self._hear, api_key=order.api_key, insecure=order.insecure
            )
            self._probe.start(max(began_s, time.time()))  # what was due before we heard of it would come in a heap

    async def end(self, probe_idle: asyncio.Event, at_once: bool) -> None:
        """Unless it is `at_once`, the probe's last request is waited for: it may end a little after the tool's."""
        if self._probe is not None and not at_once:
            with suppress(TimeoutError):
                await asyncio.wait_for(probe_idle.wait(), PROBE_ENDS_WITHIN_S)
        await self._give_up()
        if self._begun:
            await self._sampler.finish()

    @property
    def usage(self) -> generator.Usage:
        return self._watch.usage() if self._watch else generator.UNKNOWN

    def samples(self, began_s: float) -> list[ServerSample]:
        return relative(self._sampler.samples, began_s)

    @property
    def chain(self) -> list[dict] | None:
        return self._sampler.chain

    async def _drive(self, plan: Plan) -> None:
        order = self._order
        url, token = order.target.url, order.presenter_token
        try:
            await drive.drive(url, token, plan.room, plan.duration_s, _unheard, insecure=order.insecure)
        except drive.DriveFailed as error:
            self.problems.append(f"The room was not led through its talk: {error}")

    async def _give_up(self) -> None:
        tasks, self._tasks = self._tasks, []
        probe, self._probe = self._probe, None
        for task in tasks:
            task.cancel()
        stopping = [probe.stop()] if probe else []
        for result in await asyncio.gather(*tasks, *stopping, return_exceptions=True):
            if isinstance(result, Exception):
                self.problems.append(f"What was measured beside the tool broke off: {result!r}")


def _unheard(_: str) -> None:
    """What the presenter does is in the room's own log."""
