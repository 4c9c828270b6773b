"""What a run is asked for, and what comes of it: verdict, exit code, and what to tell people. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from loadgen.spike.plan import Plan
from loadgen.spike.preflight import Target
from loadgen.spike.report.words import took
from loadgen.spike.summary import Summary
from loadgen.spike.supervisor import Ended

PASS, BAD_INPUT, NOT_WRITTEN, INVALID, FAIL, STOPPED, INTERRUPTED, SCRIPT = 0, 2, 74, 98, 99, 103, 105, 107
"""Exit codes: where k6 has one it is k6's; 74 is sysexits.h's EX_IOERR."""
_CODES = {"pass": PASS, "fail": FAIL, "invalid": INVALID, "stopped": STOPPED}


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """`folder` is there and holds no other run. `armed`: wait for the command `fire`. `room` is the code of the room
    whose cluster is measured along. `on` is where the tool runs: `here` or `kubernetes`."""

    plan: Plan
    tool: str
    target: Target
    folder: Path
    api_key: str = ""
    presenter_token: str = ""
    insecure: bool = False
    armed: bool = False
    room: str = ""
    on: str = "here"


@dataclass(frozen=True, slots=True)
class Outcome:
    """`problems` are for people: what went wrong besides a missed threshold."""

    summary: Summary
    exit_code: int
    problems: tuple[str, ...]

    @property
    def headline(self) -> str:
        counts, ttft = self.summary.counts, self.summary.latency.ttft_s.user(self.summary.about.loop)
        of = counts.sent if counts.planned is None else counts.planned
        lost = {"failed": counts.failed, "refused": counts.refused, "dropped": counts.dropped}
        lost["unfinished"] = counts.unfinished
        parts = [f"{counts.served:,} of {of:,} served", *(f"{n:,} {what}" for what, n in lost.items() if n)]
        parts += [f"TTFT p95 {took(ttft.p95)} ({self.summary.ttft_by})"] if ttft else []
        return ", ".join(parts)


def exit_code(told: Summary, ended: Ended, written: bool) -> int:
    """Who ended it comes first, then whether it could run at all, its verdict, and at last whether its files are there.
    A script that throws in every iteration is an error of the script, whatever the tool itself calls it."""
    if ended.asked == "interrupt" or ended.ending == "interrupted":
        return INTERRUPTED
    if ended.asked or ended.ending == "stopped":
        return STOPPED
    if ended.ending == "script" or (
        ended.ending in ("done", "thresholds") and told.troubles and not told.counts.served
    ):
        return SCRIPT
    if ended.ending in ("options", "port", "failed") and not ended.fired:
        return BAD_INPUT
    code = _CODES[told.verdict.verdict]
    return code if written or code != PASS else NOT_WRITTEN
