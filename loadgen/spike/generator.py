"""What the generator itself used while a run went on: the tool, what it has started, and this process beside it."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from loadgen import machine

EVERY_S = 1.0
SUSTAINED = 5
"""Looks in a row. A shorter burst only delays what was due in it, which the send lag shows."""


@dataclass(frozen=True, slots=True)
class Usage:
    """`cpu_cores` are those that the generator may use. `cpu_share` is how much of what it can use it did use in its
    busiest five seconds, 1 being all; `others_share` the share of all cores that programs used which are not the
    generator (a server on the same machine is one of them). `rss_mb` is the memory at most, in 10^6 bytes. None is not
    known: most of it needs Linux."""

    cpu_cores: float = 0.0
    cpu_share: float | None = None
    others_share: float | None = None
    loop_lag_p99_s: float | None = None
    rss_mb: float | None = None


UNKNOWN = Usage()
"""Of a generator that runs elsewhere."""


class Watch:
    """`pids` gives the tool's processes; what they have started counts too. `one_core_each`: each of them can use one
    core only, as Locust's can, so that a busy one is the bottleneck while other cores idle. This process, which reads
    what the tool reports, can use no more than that either."""

    def __init__(self, pids: Callable[[], Sequence[int]], one_core_each: bool = False) -> None:
        self._pids = pids
        self._one_core_each = one_core_each
        self._cores = machine.cores()
        self._spent_s: dict[int, float] = {}
        self._rss_mb: dict[int, float] = {}
        self._shares: list[float] = []
        self._used_s = 0.0
        self._began_s = self._looked_s = time.monotonic()
        self._busy_before_s = self._busy_s = _busy_s()
        self.lag_ms: list[float] = []
        for pid in self._family():
            self._new_s(pid)

    def look(self) -> None:
        """Once a second or so. In less than half of one the kernel's 10 ms steps would be most of what is seen."""
        now_s = time.monotonic()
        took_s = now_s - self._looked_s
        if took_s < EVERY_S / 2:
            return
        spent = {pid: self._new_s(pid) for pid in self._family()}
        total_s = sum(spent.values())
        alone = [s for pid, s in spent.items() if self._one_core_each or pid == os.getpid()]
        self._shares.append(max([total_s / self._cores, *alone]) / took_s)
        self._used_s += total_s
        self._looked_s, self._busy_s = now_s, _busy_s()

    def usage(self) -> Usage:
        """Until the last look."""
        known = bool(self._spent_s and self._shares)
        return Usage(
            cpu_cores=self._cores,
            cpu_share=sustained(self._shares) if known else None,
            others_share=self._others_share() if known else None,
            loop_lag_p99_s=machine.at(sorted(self.lag_ms), 0.99) / 1000 if self.lag_ms else None,
            rss_mb=sum(self._rss_mb.values()) if known else None,
        )

    def _family(self) -> set[int]:
        return machine.family([os.getpid(), *self._pids()])

    def _new_s(self, pid: int) -> float:
        """The CPU time that a process has used since the last look, all of it when it is new. 0 when it has ended."""
        with suppress(OSError, StopIteration):
            self._rss_mb[pid] = machine.peak_rss_mb(pid)
            before_s, self._spent_s[pid] = self._spent_s.get(pid, 0.0), machine.cpu_s(pid)
            return self._spent_s[pid] - before_s
        return 0.0

    def _others_share(self) -> float | None:
        if self._busy_s is None or self._busy_before_s is None:
            return None
        others_s = self._busy_s - self._busy_before_s - self._used_s
        return max(0.0, others_s / (self._looked_s - self._began_s) / (os.cpu_count() or 1))


def sustained(shares: Sequence[float]) -> float:
    """The greatest mean of five in a row; of fewer, their mean. At least one."""
    window = min(SUSTAINED, len(shares))
    return max(sum(shares[at : at + window]) / window for at in range(len(shares) - window + 1))


@asynccontextmanager
async def watching(pids: Callable[[], Sequence[int]], one_core_each: bool = False) -> AsyncIterator[Watch]:
    """Watches while the block runs. Begin when the tool is armed: what it needed to start is not the run's."""
    watch = Watch(pids, one_core_each)
    tasks = [asyncio.create_task(machine.watch_lag(watch.lag_ms)), asyncio.create_task(_look(watch))]
    try:
        yield watch
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        watch.look()


async def _look(watch: Watch) -> None:
    while True:
        await asyncio.sleep(EVERY_S)
        watch.look()


def _busy_s() -> float | None:
    try:
        return machine.busy_s()
    except OSError:
        return None
