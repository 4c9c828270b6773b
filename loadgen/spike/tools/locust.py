"""Runs Locust on this machine: a headless process that waits for `fire` on its input and tells all on its output.

Not by its REST API: that needs a port, which another program may have, and would go on after we were killed. An input
that ends tells Locust to stop on every system; on Linux it is tied to us besides.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from loadgen.machine import family
from loadgen.processes import free_port
from loadgen.spike.point import Report
from loadgen.spike.tools.lines import decode
from loadgen.spike.tools.tied import tied
from loadgen.spike.tools.tool import Ending, Job, ToolFailed

FILES = Path(__file__).parents[2] / "locustfiles"
FILE_OF = {
    "spike": "completions.py",
    "staged": "completions.py",
    "soak": "completions.py",
    "matrix": "matrix.py",
    "audience": "audience.py",
    "amplify": "amplify.py",
}
ARMED = b'{"crowdspike":"armed"}\n'
ARM_WITHIN_S = 60.0
STOP_WITHIN_S = 5.0
LINE_BYTES = 1 << 20
LAST_LINES = 40
LOG_BYTES = 4 << 20
_WRONG = re.compile(r"(?:\w+\.)+\w+: .*|\w*(?:Error|Exception)(?:: .*)?|\[.*/ERROR/.*?: (.*)")
"""The last line of a traceback or of what argparse says, and a line that Locust logs."""


class Locust:
    """A Tool. `LOCUST_PROCESSES=2` in the job's environment, or in ours, is for a machine where one core is too few.
    Raises ToolFailed when there is no Locust."""

    name = "locust"

    def __init__(self, job: Job) -> None:
        if importlib.util.find_spec("locust") is None:  # looked for and not imported: it changes the whole process
            raise ToolFailed("Locust is not installed: install crowdspike[load].")
        self.version = version("locust")
        self._job = job
        self._process: asyncio.subprocess.Process | None = None
        self._hearing: asyncio.Task[None] | None = None
        self._last: deque[str] = deque(maxlen=LAST_LINES)
        self._given_up = False

    @property
    def pids(self) -> list[int]:
        return sorted(family([self._process.pid])) if self._runs else []

    @property
    def _runs(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def arm(self) -> None:
        assert self._process is None
        self._process = await asyncio.create_subprocess_exec(
            *tied(self._command()),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=LINE_BYTES,
            env=self._environment(),
            process_group=0,  # Ctrl-C in the terminal is for us, and we end it in order
        )
        self._hearing = asyncio.create_task(self._hear())
        try:
            async with asyncio.timeout(ARM_WITHIN_S):
                while (line := await self._process.stdout.readline()) not in (ARMED, b""):
                    self._last.append(_text(line))
                if not line:
                    ending, words = await self.ending()
                    raise ToolFailed(f"Locust did not start: {words}", ending)
        except TimeoutError:
            self.kill()
            raise ToolFailed(f"Locust was not ready within {ARM_WITHIN_S:.0f} s. {self._words()}") from None

    async def fire(self) -> None:
        if not await self._say(b"fire\n"):
            raise ToolFailed(f"Locust has ended before it could begin: {self._words()}")

    async def reports(self) -> AsyncIterator[Report]:
        assert self._process is not None and self._process.stdout is not None
        while line := await self._process.stdout.readline():
            if (report := decode(line)) is not None:
                yield report

    async def stop(self) -> None:
        self._given_up = True
        if await self._say(b"stop\n"):
            with suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), STOP_WITHIN_S)
        self.kill()

    def kill(self) -> None:
        self._given_up = self._given_up or self._runs
        if self._process is not None:
            with suppress(ProcessLookupError):  # its workers may outlive it
                os.killpg(self._process.pid, signal.SIGKILL)

    async def ending(self) -> tuple[Ending, str]:
        assert self._process is not None and self._hearing is not None
        status = await self._process.wait()
        await self._hearing
        self._process.stdin.close()
        with suppress(BrokenPipeError, ConnectionResetError):
            await self._process.stdin.wait_closed()
        if self._given_up:
            return "stopped", ""
        if status == 0:
            return "done", ""
        if status in (-signal.SIGTERM, -signal.SIGINT):
            return "interrupted", self._words()
        words = self._words() or f"exit status {status}"
        if any("master port" in line and "was busy" in line for line in self._last):
            return "port", words
        if status < 0:
            return "failed", f"ended by {signal.Signals(-status).name}"
        return ("options" if ": error: " in words else "script"), words

    async def _say(self, command: bytes) -> bool:
        """Whether somebody was there to hear it."""
        if not self._runs:
            return False
        try:
            self._process.stdin.write(command)
            await self._process.stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def _command(self) -> list[str]:
        name = FILE_OF.get(self._job.plan.scenario)
        if name is None:
            raise ToolFailed(f"Locust has no file for the scenario {self._job.plan.scenario!r}.", "options")
        command = [sys.executable, "-m", "locust", "--headless", "-f", str(FILES / name), "--host", self._job.target]
        # Requests that fail are ours to judge: an exit status is left for what went wrong in Locust itself.
        command += ["--plan", str((self._job.folder / "plan.json").absolute()), "--exit-code-on-error", "0"]
        return [*command, "--only-summary", *(["--insecure"] if self._job.insecure else [])]

    def _environment(self) -> dict[str, str]:
        """What is secret is here and in no argument."""
        ours = {name: value for name, value in os.environ.items() if not name.startswith("CROWDSPIKE_")}
        secrets = {"API_KEY": self._job.api_key, "PRESENTER_TOKEN": self._job.presenter_token}
        said = {name: value for name, value in secrets.items() if value}
        # The port of the master that several processes have: not Locust's usual, where others' workers would come too.
        port = str(free_port())
        ports = {
            "LOCUST_MASTER_BIND_HOST": "127.0.0.1",
            "LOCUST_MASTER_BIND_PORT": port,
            "LOCUST_MASTER_NODE_PORT": port,
        }
        return {**ours, **said, **ports, "REPORT": "1", "HOLD": "1", **self._job.environment}

    async def _hear(self) -> None:
        """Locust's own words, to `tool.log`, until it has ended. A run goes on without them."""
        left_bytes, path = LOG_BYTES, self._job.folder / "tool.log"
        async for line in self._process.stderr:
            self._last.append(_text(line))
            left_bytes -= len(line)
            if left_bytes > 0:
                with suppress(OSError), path.open("ab") as file:
                    file.write(line)

    def _words(self) -> str:
        """The last line that tells what went wrong, else the last line."""
        raised = (found for line in reversed(self._last) if (found := _WRONG.fullmatch(line.strip())))
        first = next(raised, None)
        return (first[1] or first[0]) if first else next((line for line in reversed(self._last) if line.strip()), "")


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace").rstrip()
