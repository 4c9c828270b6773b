"""One run, from arming its tool to the written folder: supervises the tool, hears it, measures beside it, judges."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime

from loadgen import machine
from loadgen.spike import drive, folder, thresholds
from loadgen.spike.beside import Beside
from loadgen.spike.collector import Collector
from loadgen.spike.order import NOT_WRITTEN, Order, Outcome, exit_code
from loadgen.spike.point import Began, Point, Report, Trouble
from loadgen.spike.progress import Live, Progress, State
from loadgen.spike.records import Records
from loadgen.spike.report.page import page
from loadgen.spike.summary import About, Summary, summarize
from loadgen.spike.supervisor import Ended, Limits, Supervisor
from loadgen.spike.tools.tool import Job, Tool
from loadgen.spike.tools.toolbox import tool_for

TICK_S = 1.0
TROUBLES_MAX = 20
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Make = Callable[[str, Job], Tool]


async def run(
    order: Order,
    commands: AsyncIterator[str],
    said: Callable[[Progress], None],
    make: Make = tool_for,
    limits: Limits | None = None,
) -> Outcome:
    """Obeys `fire`, `stop` and `kill`; the first SIGINT, SIGTERM or SIGHUP is a stop, the second a kill. `said` is told
    the progress each second and at every change of state, `ended` once the folder is written. No process of the run
    stays when this returns, raises or is cancelled.

    Raises before anything is sent: BadThreshold, BadFolder (somebody else's run goes on there), DriveFailed (no room
    for an audience that has none).
    """
    thresholds.thresholds_of(order.plan)  # a word that it would not understand at the end
    driven = order.plan.scenario == "audience" and not order.plan.room
    if driven:
        code = await drive.make_room(order.target.url, order.presenter_token, insecure=order.insecure)
        order = replace(order, plan=replace(order.plan, room=code), room=order.room or code)
    one = _Run(order, said, make, limits or Limits(), driven)
    with ExitStack() as stack:
        try:
            stack.enter_context(folder.held(order.folder))
            folder.write(order.folder / folder.PLAN, order.plan.to_json())
        except OSError as error:
            return one.not_begun(f"{order.folder} can't be written to: {error.strerror or error}.")
        stack.enter_context(_signals(one.supervisor.obey))
        return await one.through(commands)


class _Run:
    def __init__(
        self, order: Order, said: Callable[[Progress], None], make: Make, limits: Limits, driven: bool
    ) -> None:
        self._order = order
        self._said = said
        self._limits = limits
        plan, target = order.plan, order.target
        job = Job(
            plan,
            target.url,
            order.folder,
            api_key=order.api_key,
            presenter_token=order.presenter_token,
            holds_headers=target.holds_headers,
            insecure=order.insecure,
        )
        self._points = Collector(plan, target.holds_headers, order.tool)
        self._probed = Collector(plan, target.holds_headers, "probe")
        self._probe_idle = asyncio.Event()
        self._probe_idle.set()
        self._live = Live(plan)
        self._records = Records(order.folder)
        self._troubles: dict[str, None] = {}
        self._problems: list[str] = []
        self._made_s = self._heard_s = time.time()
        self._beside = Beside(order, driven, self._hear_probe)
        self.supervisor = Supervisor(
            lambda: make(order.tool, job), plan.deadline_s, self._hear, self._beside.begin, self._moved, limits
        )

    async def through(self, commands: AsyncIterator[str]) -> Outcome:
        self._records.open()
        self._moved(self.supervisor.state)
        try:
            async with asyncio.TaskGroup() as group:
                listening, ticking = group.create_task(self._listen(commands)), group.create_task(self._tick())
                async with self._beside:
                    ended = await self.supervisor.through(self._order.armed)
                    await self._beside.end(self._probe_idle, at_once=bool(ended.asked))
                listening.cancel()
                ticking.cancel()
        finally:
            self._records.close()
        outcome = self._judged(ended)
        self.supervisor.to("ended")
        return outcome

    def not_begun(self, problem: str) -> Outcome:
        """No tool can read its plan in a folder that can't be written to."""
        told = self._summary(Ended("failed", problem), [])
        return Outcome(told, NOT_WRITTEN, (problem,))

    async def _listen(self, commands: AsyncIterator[str]) -> None:
        async for command in commands:
            self.supervisor.obey(command)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._records.flush()
            progress = self._live.at(time.time(), self.supervisor.state)
            if progress.state == "running" and progress.t_s >= progress.of_s:
                self.supervisor.to("draining")  # which tells it
            else:
                self._said(progress)
            limit_s, quiet_s = self._limits.quiet_s, time.time() - self._heard_s
            if progress.state == "draining" and not progress.in_flight and quiet_s > limit_s:
                self.supervisor.expire(f"It had nothing to wait for and did not end within {limit_s:.0f} s.")

    def _moved(self, state: State) -> None:
        self._said(self._live.at(time.time(), state))

    def _hear(self, report: Report) -> None:
        self._heard_s = time.time()
        point = self._points.hear(report)
        self._live.hear(point or report, self._heard_s)
        if point is not None:
            self._records.add(point)
        elif isinstance(report, Trouble) and len(self._troubles) < TROUBLES_MAX:
            self._troubles[report.text] = None
        elif isinstance(report, Began) and self._probed.began_s is None:
            self._probed.hear(report)
            self._beside.started(report.at_s)

    def _hear_probe(self, report: Report) -> None:
        point = self._probed.hear(report)
        if self._probed.under_way:
            self._probe_idle.clear()
        else:
            self._probe_idle.set()
        if point is not None:
            self._live.hear_probe(point, time.time())
            self._records.add(point)

    def _judged(self, ended: Ended) -> Outcome:
        points = [*self._points.close(), *self._probed.close()]
        told = self._summary(ended, points)
        self._records.whole(folder.SUMMARY, told.to_json())
        self._records.whole(folder.REPORT, page(told, self._order.plan))
        self._records.samples(self._beside.samples(self._began_s))
        self._records.points(points)
        problems = [*self._problems, *self._beside.problems, *self._troubles, self._records.problem]
        code = exit_code(told, ended, written=not self._records.problem)
        return Outcome(told, code, tuple(dict.fromkeys(filter(None, problems))))

    @property
    def _began_s(self) -> float:
        return self._made_s if self._points.began_s is None else self._points.began_s

    def _summary(self, ended: Ended, points: list[Point]) -> Summary:
        self._account_for(ended)
        return summarize(
            self._order.plan,
            points,
            self._beside.samples(self._began_s),
            self._beside.usage,
            self._about(ended),
            run_id=self._order.folder.name,
            chain=self._beside.chain,
            troubles=tuple(self._troubles),
        )

    def _account_for(self, ended: Ended) -> None:
        """A tool that ended before its time and of itself is trouble; one that was told to, or that found its own
        thresholds missed, is not."""
        if not ended.words or ended.asked or ended.ending == "thresholds":
            return
        self._problems.append(ended.words)
        if ended.ending not in ("done", "stopped"):
            self._troubles.setdefault(ended.words)

    def _about(self, ended: Ended) -> About:
        order, plan, target, tool = self._order, self._order.plan, self._order.target, self.supervisor.tool
        return About(
            scenario=plan.scenario,
            tool=order.tool,
            tool_version=tool.version if tool else "",
            tool_on="kubernetes" if order.on == "kubernetes" else "here",
            target=target.url,
            what=target.what,
            model=plan.model or target.model,
            simulated=target.simulated,
            loop=plan.loop,
            unit="requests/s" if plan.loop == "open" else "users",
            seed=plan.seed,
            peak=plan.peak,
            duration_s=plan.duration_s,
            started_at=datetime.fromtimestamp(self._began_s, UTC).isoformat(timespec="milliseconds"),
            machine=machine.description(),
            holds_headers=target.holds_headers,
            room=order.room,
            stopped=bool(ended.asked) or ended.ending in ("stopped", "interrupted"),
        )


@contextmanager
def _signals(obey: Callable[[str], None]) -> Iterator[None]:
    """The first is a stop in order, every other one a kill."""
    loop = asyncio.get_running_loop()
    words = iter(["interrupt"])

    def heard() -> None:
        obey(next(words, "kill"))

    for number in SIGNALS:
        loop.add_signal_handler(number, heard)
    try:
        yield
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)
