"""What a run needs of a load tool: k6 and Locust on this machine, or on a cluster, behind one port."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from loadgen.spike.plan import Plan
from loadgen.spike.point import Report

Ending = Literal["done", "thresholds", "stopped", "interrupted", "script", "options", "port", "failed"]
"""How a tool ended: all sent; its own thresholds failed; as it was told to; by a signal; an error in the script;
options that it refused; its port was taken; in any other way."""


class ToolFailed(Exception):
    """The tool can't be found, does not start or does not answer; the text is for the person, with the tool's own words
    where it had some. `ending` says which kind."""

    def __init__(self, text: str, ending: Ending = "failed") -> None:
        super().__init__(text)
        self.ending = ending


@dataclass(frozen=True, slots=True)
class Job:
    """What a tool is to do. `target` is `http(s)://host[:port]` without a path. `api_key` goes to the tool by its
    environment, never by its arguments. `holds_headers`: the target sends them with the first token. `folder` is the
    run's, with `plan.json` in it; the tool's own words go to `tool.log` there. `insecure` takes any certificate."""

    plan: Plan
    target: str
    folder: Path
    api_key: str = ""
    presenter_token: str = ""
    holds_headers: bool = False
    insecure: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)


class Tool(Protocol):
    """One run of a tool. `arm`, then `fire`, while `reports` is read; `stop` and `kill` at any time, and again."""

    name: str
    version: str

    async def arm(self) -> None:
        """Everything is loaded and waits. Raises ToolFailed."""

    async def fire(self) -> None:
        """Begin. Raises ToolFailed."""

    def reports(self) -> AsyncIterator[Report]:
        """Until the tool has ended and all that it said was read."""

    async def stop(self) -> None:
        """Send nothing more and end within seconds; what is under way is given up."""

    def kill(self) -> None:
        """kill -9, with everything that it has started."""

    async def ending(self) -> tuple[Ending, str]:
        """How it ended and its last words, once it has."""

    @property
    def pids(self) -> list[int]:
        """Of its processes on this machine, for measuring what they use."""
