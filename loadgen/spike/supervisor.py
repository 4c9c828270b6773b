"""Takes one tool from arming to its end, within limits: whatever it does, the end comes and no process of it stays."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from loadgen.spike.point import Report
from loadgen.spike.progress import State
from loadgen.spike.tools.tool import Ending, Tool, ToolFailed

ARM_TRIES = 3
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Limits:
    """How long each step may take: being ready, waiting to be fired, beginning, ending after the plan's deadline, or
    after its end with nothing to wait for, ending when it is stopped, and vanishing when it is killed."""

    arm_s: float = 60.0
    armed_s: float = 15 * 60.0
    fire_s: float = 15.0
    over_s: float = 10.0
    quiet_s: float = 10.0
    stop_s: float = 15.0
    kill_s: float = 5.0


@dataclass(frozen=True, slots=True)
class Ended:
    """`asked`: the command that ended it (`stop`, `interrupt`, `kill`), empty where the tool ended by itself or a limit
    did it, which `words` says then. `fired`: it may have sent something."""

    ending: Ending
    words: str = ""
    asked: str = ""
    fired: bool = False


class Supervisor:
    """`make` gives the tool, `hear` takes what it reports, `ready` is waited for before it is fired, and `moved` is
    told each new state."""

    def __init__(
        self,
        make: Callable[[], Tool],
        deadline_s: float,
        hear: Callable[[Report], None],
        ready: Callable[[Tool], Awaitable[None]],
        moved: Callable[[State], None],
        limits: Limits,
    ) -> None:
        self._make = make
        self._deadline_s = deadline_s
        self._hear = hear
        self._ready = ready
        self._moved = moved
        self._limits = limits
        self._asked = self._why = ""
        self._to_fire, self._to_end = asyncio.Event(), asyncio.Event()
        self._fired = False
        self.state: State = "arming"
        self.tool: Tool | None = None

    def obey(self, command: str) -> None:
        """`fire`, `stop`, `interrupt` (a stop by a signal) or `kill`. The first that ends it is the one that counts."""
        if command == "fire":
            self._to_fire.set()
            return
        self._asked = self._asked or command
        self._to_end.set()
        if command == "kill" and self.tool is not None:
            self.tool.kill()

    def expire(self, why: str) -> None:
        """Stops it because a limit was reached, which is no command."""
        self._why = self._why or why
        self._to_end.set()

    def to(self, state: State) -> None:
        if state != self.state:
            self.state = state
            self._moved(state)

    async def through(self, armed: bool) -> Ended:
        """`armed`: wait for `fire`. The tool has ended when this returns, and when it raises."""
        to_end = asyncio.create_task(self._to_end.wait())
        reading: asyncio.Task[None] | None = None
        try:
            if not await self._arm(to_end):
                return self._given_up()
            reading = asyncio.create_task(self._read())
            self.to("armed")
            if (armed and not await self._wait_for_fire(reading, to_end)) or to_end.done():
                return self._given_up()
            words = await self._follow(reading, to_end)
            ending, last = await self._within(self._limits.kill_s, self.tool.ending(), "end")
            return Ended("done" if words else ending, words or last, self._asked, self._fired)
        except ToolFailed as error:
            return Ended(error.ending, str(error), self._asked, self._fired)
        finally:
            await self._clear_away(to_end, reading)

    def _given_up(self) -> Ended:
        return Ended("stopped", "", self._asked, self._fired)

    async def _arm(self, to_end: asyncio.Task) -> bool:
        """Whether it is ready; False when the end was asked for meanwhile. A port that another program took between
        choosing and using it is no reason to give up. Raises ToolFailed."""
        for left in reversed(range(ARM_TRIES)):
            self.tool = self._make()
            arming = asyncio.create_task(self.tool.arm())
            try:
                await asyncio.wait({arming, to_end}, timeout=self._limits.arm_s, return_when=asyncio.FIRST_COMPLETED)
                if to_end.done():
                    return False
                if not arming.done():
                    raise ToolFailed(f"{self.tool.name} was not ready within {self._limits.arm_s:.0f} s.")
                arming.result()
                return True
            except ToolFailed as error:
                if error.ending != "port" or not left:
                    raise
                self.tool.kill()
            finally:
                arming.cancel()
                await asyncio.gather(arming, return_exceptions=True)
        raise AssertionError("the last try returns or raises")

    async def _wait_for_fire(self, reading: asyncio.Task, to_end: asyncio.Task) -> bool:
        """Whether to go on: it was fired, or it has ended by itself. Raises ToolFailed."""
        to_fire = asyncio.create_task(self._to_fire.wait())
        try:
            tasks = {to_fire, to_end, reading}
            done, _ = await asyncio.wait(tasks, timeout=self._limits.armed_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            to_fire.cancel()
        if not done:
            raise ToolFailed(f"Nobody fired it within {self._limits.armed_s:.0f} s: it was given up.", "stopped")
        return to_end not in done

    async def _follow(self, reading: asyncio.Task, to_end: asyncio.Task) -> str:
        """Until it has ended; why it had to be ended, where a limit did it. Raises ToolFailed."""
        if not reading.done():
            await self._ready(self.tool)
            self._fired = True
            await self._within(self._limits.fire_s, self.tool.fire(), "begin")
            self.to("running")
        within_s = self._deadline_s + self._limits.over_s
        await asyncio.wait({reading, to_end}, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
        if not reading.done() and not to_end.done():
            self.expire(f"It had not ended after {within_s:.0f} s and was stopped.")
        if not reading.done():
            self.to("draining")
            await self._stop(reading)
        if reading.done():
            reading.result()  # an error of ours in hearing it
        return self._why

    async def _stop(self, reading: asyncio.Task) -> None:
        stopping = asyncio.create_task(self.tool.stop())
        await asyncio.wait({reading}, timeout=self._limits.stop_s)
        stopping.cancel()
        await asyncio.gather(stopping, return_exceptions=True)
        if not reading.done():
            self.tool.kill()
            await asyncio.wait({reading}, timeout=self._limits.kill_s)

    async def _within(self, limit_s: float, step: Awaitable[T], verb: str) -> T:
        """Raises ToolFailed."""
        try:
            return await asyncio.wait_for(step, limit_s)
        except TimeoutError:
            raise ToolFailed(f"{self.tool.name} did not {verb} within {limit_s:.0f} s.") from None

    async def _read(self) -> None:
        async for report in self.tool.reports():
            self._hear(report)

    async def _clear_away(self, to_end: asyncio.Task, reading: asyncio.Task | None) -> None:
        to_end.cancel()
        if self.tool is not None:
            self.tool.kill()
        if reading is not None:
            await asyncio.wait({reading}, timeout=self._limits.kill_s)  # what it said until then counts
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
