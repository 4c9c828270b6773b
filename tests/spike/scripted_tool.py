"""A load tool that does what a test wrote down for it, behind the same port as k6 and Locust."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace

from loadgen.spike.point import Began, Dropped, Point, Report, Sent
from loadgen.spike.tools.tool import Ending, Job, ToolFailed


@dataclass
class Script:
    """`reports`, whose times count from when it is fired, then the end, unless it `hangs` until it is stopped.
    `arming` and `firing` fail it there. `stuck` names the steps that never come back; `deaf`: it takes no stop.
    `dies_armed`: it ends before anybody fired it."""

    reports: Sequence[Report] = ()
    ending: tuple[Ending, str] = ("done", "")
    hangs: bool = False
    arming: ToolFailed | None = None
    firing: ToolFailed | None = None
    stuck: frozenset[str] = frozenset()
    deaf: bool = False
    dies_armed: bool = False
    ports_taken: int = 0


class ScriptedTool:
    name = "scripted"
    version = "1.0"

    def __init__(self, script: Script, job: Job) -> None:
        self.script = script
        self.job = job
        self.killed = False
        self.stopped = False
        self._fired, self._over = asyncio.Event(), asyncio.Event()
        self._ending = script.ending

    async def arm(self) -> None:
        if "arm" in self.script.stuck:
            await asyncio.Event().wait()
        if self.script.ports_taken:
            self.script.ports_taken -= 1
            raise ToolFailed("The port was taken.", "port")
        if self.script.arming:
            raise self.script.arming
        assert (self.job.folder / "plan.json").exists()
        if self.script.dies_armed:
            self._over.set()

    async def fire(self) -> None:
        if "fire" in self.script.stuck:
            await asyncio.Event().wait()
        if self.script.firing:
            raise self.script.firing
        self._fired.set()

    async def reports(self) -> AsyncIterator[Report]:
        fired, over = asyncio.create_task(self._fired.wait()), asyncio.create_task(self._over.wait())
        try:
            await asyncio.wait({fired, over}, return_when=asyncio.FIRST_COMPLETED)
            if fired.done():
                now_s = time.time()
                for report in self.script.reports:
                    yield later(report, now_s)
                if self.script.hangs:
                    await over
        finally:
            fired.cancel()
            over.cancel()

    async def stop(self) -> None:
        self.stopped = True
        if not self.script.deaf:
            self._ending = "stopped", ""
            self._over.set()

    def kill(self) -> None:
        self.killed = True
        if not self._over.is_set():
            self._ending = "failed", "killed"
        self._over.set()

    async def ending(self) -> tuple[Ending, str]:
        return self._ending

    @property
    def pids(self) -> list[int]:
        return []


def later(report: Report, by_s: float) -> Report:
    match report:
        case Began() | Sent() | Dropped():
            return replace(report, at_s=report.at_s + by_s)
        case Point():
            names = ("due_s", "sent_s", "headers_s", "first_s", "ended_s")
            known = {name: at_s for name in names if (at_s := getattr(report, name)) is not None}
            return replace(report, **{name: at_s + by_s for name, at_s in known.items()})
    return report
