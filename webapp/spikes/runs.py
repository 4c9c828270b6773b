"""The load runs of this process's rooms: started, told what the log says, and recorded, also those that a process left
behind that was killed.

Everything goes through the room's log: whoever arms, fires or stops a run only adds an event, in whatever web process,
and the one whose child it is carries it out. That one holds a lock on the run's `runner.log`, and so does its child: a
run is left behind when the lock is free.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import secrets
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from loadgen.spike.progress import Progress
from webapp.errors import AppError, NotSaved
from webapp.live_room import LiveRoom
from webapp.room import spike_commands as commands
from webapp.room import spikes
from webapp.room.commands import CommandRefused
from webapp.room.events import SpikeArmed, SpikeEnded
from webapp.room.spikes import Spike
from webapp.rooms import Rooms
from webapp.spikes import keeping
from webapp.spikes.choice import Choice
from webapp.spikes.runner import Runner

log = logging.getLogger("crowdspike.spikes")

COMMAND = (sys.executable, "-m", "webapp.cli", "spike")
ERRORS = "runner.log"
ARMED_S = 15 * 60
"""A run that is not fired within so long is stopped."""
LOST_AFTER_MS = 60_000
LOOK_EVERY_S = 0.5
SETTLE_EVERY_S = 3.0
STOPPED_WITHIN_S = 30.0
CLOSED_WITHIN_S = 20.0
STORE_AGAIN_S = 1.0
TAIL_BYTES = 2000


class Runs:
    """`clock` gives milliseconds since the epoch. `environment` makes a run's, with its secrets. `command` is before
    the scenario. `stopping` ends all runs."""

    def __init__(
        self,
        rooms: Rooms,
        folder: Path,
        clock: Callable[[], int],
        environment: Callable[[SpikeArmed, bool], Mapping[str, str]],
        stopping: asyncio.Event,
        command: Sequence[str] = COMMAND,
    ) -> None:
        self.folder = folder
        self._rooms = rooms
        self._clock = clock
        self._environment = environment
        self._stopping = stopping
        self._command = command
        self._runners: dict[str, Runner] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._targets: dict[str, str] = {}
        self._settler: asyncio.Task[None] | None = None

    # ---- what a presenter does

    async def arm(self, room: LiveRoom, choice: Choice, spike: str) -> Spike:
        """Makes a run ready; one of the same id is given back. Raises CommandRefused, NotSaved."""
        if spike in room.state.spikes:
            return room.state.spikes[spike]
        if self._stopping.is_set():
            raise CommandRefused("This server is being stopped.")
        if choice.target in self._targets.values():
            raise CommandRefused("Another room's load run has this target. One at a time.")
        self._targets[spike] = choice.target
        try:
            await room.append_control(
                lambda state, now_ms: commands.arm(state, self._armed(room, choice, spike, now_ms))
            )
        except BaseException:
            del self._targets[spike]
            raise
        task = asyncio.create_task(self._run(room, room.state.spikes[spike].armed, choice))
        self._tasks[spike] = task
        task.add_done_callback(lambda _: self._forget(spike))
        return room.state.spikes[spike]

    def _armed(self, room: LiveRoom, choice: Choice, spike: str, now_ms: int) -> SpikeArmed:
        return SpikeArmed(
            id=secrets.token_hex(8),
            at_ms=now_ms,
            spike=spike,
            scenario=choice.scenario,
            tool=choice.tool,
            peak=choice.peak,
            unit=choice.preset.unit,
            duration_s=choice.duration_s,
            target=choice.target,
            by=room.writer,
            until_ms=now_ms + (ARMED_S + choice.duration_s + commands.DRAIN_S) * 1000,
        )

    async def fire(self, room: LiveRoom, spike: str) -> None:
        """Raises CommandRefused, NotSaved."""
        id = secrets.token_hex(8)
        await room.append_control(lambda state, now_ms: commands.fire(state, spike, id, now_ms))

    async def stop(self, room: LiveRoom, spike: str) -> None:
        """Raises CommandRefused, NotSaved."""
        id = secrets.token_hex(8)
        await room.append_control(lambda state, now_ms: commands.stop(state, spike, id, now_ms))

    def progress(self, spike: str) -> Progress | None:
        """Of a run that is this process's; None for another's."""
        if spike not in self._tasks:
            return None
        runner = self._runners.get(spike)
        return runner.progress if runner else Progress(state="arming")

    def pid(self, spike: str) -> int | None:
        """Of its runner."""
        runner = self._runners.get(spike)
        return runner.pid if runner else None

    # ---- one run

    def folder_of(self, code: str, spike: str) -> Path:
        return self.folder / f"{code}-{spike}"

    async def _run(self, room: LiveRoom, armed: SpikeArmed, choice: Choice) -> None:
        """From its start to the event that it has ended. What goes wrong on our side ends it, too."""
        folder = self.folder_of(room.info.code, armed.spike)
        try:
            folder.mkdir(parents=True, mode=0o700)
            errors = (folder / ERRORS).open("ab")
        except OSError as error:
            await self._record(room, armed.spike, folder, "failed", f"{folder} can't be used: {error.strerror}.")
            return
        with errors:
            fcntl.flock(errors, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                headline = await self._follow(room, armed, choice, folder, errors)
            except OSError as error:
                headline = f"The run can't be started: {error}"
            await self._record(room, armed.spike, folder, "failed", headline)

    async def _follow(self, room: LiveRoom, armed: SpikeArmed, choice: Choice, folder: Path, errors: IO[bytes]) -> str:
        """Carries out what the log says until the runner has ended. Its headline."""
        command = [*self._command, *choice.arguments(room.info.code, folder)]
        runner = Runner(command, self._environment(armed, choice.own), errors, room.notify)
        self._runners[armed.spike] = runner
        try:
            await _obey(room, armed.spike, runner, self._clock, self._stopping)
        finally:
            if not runner.ended.is_set():
                runner.kill()
        said = str(runner.last.get("headline", ""))
        problems = [str(one) for one in runner.last.get("problems", ())]
        return said or " ".join(problems) or _tail(folder / ERRORS) or f"It ended with exit status {runner.exit_code}."

    async def _record(self, room: LiveRoom, spike: str, folder: Path, otherwise: str, headline: str) -> None:
        """Stores what was measured, then says so in the log. Tried again for as long as the store fails."""
        code = room.info.code
        summary = await asyncio.to_thread(keeping.summary, folder)
        kept = await keeping.keep(self._rooms.store, code, spike, folder)
        id = secrets.token_hex(8)

        def end(state, now_ms: int) -> SpikeEnded:
            return commands.end(state, keeping.ended(id, now_ms, spike, summary, otherwise, headline, kept))

        while True:
            try:
                await room.append_control(end)
            except CommandRefused:
                pass  # another process was faster
            except NotSaved:
                await asyncio.sleep(STORE_AGAIN_S)
                kept = kept or await keeping.keep(self._rooms.store, code, spike, folder)
                continue
            (folder / ERRORS).unlink(missing_ok=True)
            return

    def _forget(self, spike: str) -> None:
        for known in (self._runners, self._tasks, self._targets):
            known.pop(spike, None)

    # ---- those that were left behind

    async def start(self) -> None:
        self._settler = asyncio.create_task(self._settle_always())

    async def _settle_always(self) -> None:
        codes = {path.parent.name.partition("-")[0] for path in self.folder.glob(f"*-*/{ERRORS}")}
        for code in sorted(codes):
            with suppress(AppError):
                await self._rooms.get(code)
        while True:
            for room in list(self._rooms.live):
                try:
                    await self.settle(room)
                except Exception:
                    log.exception("room %s: a load run could not be settled", room.info.code)
            await asyncio.sleep(SETTLE_EVERY_S)

    async def settle(self, room: LiveRoom) -> None:
        """Records the end of a run whose processes are gone."""
        spike = spikes.active(room.state.spikes)
        if spike is None or spike.id in self._tasks:
            return
        folder = self.folder_of(room.info.code, spike.id)
        try:
            errors = (folder / ERRORS).open("ab")
        except OSError:
            if self._clock() > spike.until_ms + LOST_AFTER_MS:
                words = "The process that ran it is gone, and nobody knows what it measured."
                await self._record(room, spike.id, folder, "lost", words)
            return
        with errors:
            try:
                fcntl.flock(errors, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            words = "The web process that ran it was ended, and the run with it."
            await self._record(room, spike.id, folder, "lost", words)

    async def close(self) -> None:
        """Stops what runs and records it. What does not end in time is killed, and is left to be settled."""
        self._stopping.set()
        if self._settler is not None:
            self._settler.cancel()
            await asyncio.gather(self._settler, return_exceptions=True)
        tasks = list(self._tasks.values())
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=CLOSED_WITHIN_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _obey(room: LiveRoom, spike: str, runner: Runner, clock: Callable[[], int], stopping: asyncio.Event) -> None:
    """Tells the runner what the log says, until it has ended."""
    fired, stopped_ms = False, None
    async for _ in room.changes(LOOK_EVERY_S, runner.ended):
        now_ms, state = clock(), room.state.spikes[spike]
        room.used_ms = now_ms
        if state.fired and not fired and runner.progress.state == "armed":
            runner.say("fire")
            fired = True
        over = now_ms > state.until_ms or (not state.fired and now_ms > state.armed.at_ms + ARMED_S * 1000)
        archived = room.state.archived_ms is not None
        if stopped_ms is None and (state.stopped_ms is not None or over or archived or stopping.is_set()):
            runner.say("stop")
            stopped_ms = now_ms
        if stopped_ms is not None and now_ms > stopped_ms + STOPPED_WITHIN_S * 1000:
            runner.kill()


def _tail(path: Path) -> str:
    """The last line of a log."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - TAIL_BYTES))
            lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    except OSError:
        return ""
    return lines[-1].strip() if lines else ""


def folder_for(setting: str, store: str) -> Path:
    """Where runs write: as set, or beside a store in a folder, or in the machine's folder for temporary files."""
    if setting:
        return Path(setting).expanduser().absolute()
    if store.startswith("s3://"):
        return Path(tempfile.gettempdir()) / f"crowdspike-spikes-{os.getuid()}"
    path = Path(store).expanduser().absolute()
    return path.with_name(f"{path.name}-spikes")
