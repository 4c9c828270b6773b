"""What a run was measured on, what a process used of it, and whether the generator itself kept up."""

from __future__ import annotations

import asyncio
import os
import platform
import resource
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

LAG_EVERY_S = 0.05
LAG_BOUND_MS = 100.0
"""Above this the generator was itself the bottleneck."""
OTHERS_BOUND = 0.1
"""Above this share of all cores other programs took part in what was measured."""

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """CPU time of the process so far, user and system, in steps of 10 ms (proc(5): utime and stime)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def busy_s() -> float:
    """CPU time of everything on this machine since it started, in seconds of one core (proc(5): /proc/stat)."""
    user, nice, system, _, _, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / _TICKS_PER_S


def peak_rss_mb(pid: int) -> float:
    """The most memory that the process has held, in 10^6 bytes (proc(5): VmHWM)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM"))


def children(pid: int) -> list[int]:
    """The processes that a process has started and that run (proc(5): task/*/children)."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return sorted(int(child) for of_one in lists for child in of_one.read_text().split())


def family(pids: Iterable[int]) -> set[int]:
    """These processes and all that they have started, as far as they still run."""
    found: set[int] = set()
    left = list(pids)
    while left:
        pid = left.pop()
        if pid not in found:
            found.add(pid)
            with suppress(OSError):  # ended while its list was read
                left += children(pid)
    return found


def cores() -> float:
    """How many cores this process may use: of its affinity, and no more than its container is allowed (docs.kernel.org,
    Control Group v2: cpu.max)."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = Path("/sys/fs/cgroup/cpu.max")
    quota, _, period = limit.read_text().partition(" ") if limit.exists() else ("max", "", "")
    return float(usable) if quota == "max" else min(float(usable), int(quota) / int(period))


def two_cores() -> tuple[int, int] | None:
    """One core for what is measured and one for the rest; None when this process may use only one."""
    cores = sorted(os.sched_getaffinity(0))
    return (cores[0], cores[1]) if len(cores) > 1 else None


def allow_connections(count: int) -> None:
    """Raises the limit of open files for `count` connections, as far as it may be raised."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + 200
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if hard < 0 else min(wanted, hard), hard))


def description() -> str:
    model = next((line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")), "unknown CPU")
    cores = len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    return (
        f"{model}, {cores} cores usable, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}; load average {load:.1f} at the start"
    )


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def quantiles(values: Iterable[float]) -> str:
    """p50, p99 and max as text."""
    ordered = sorted(values)
    if not ordered:
        return "none"
    return f"p50 {at(ordered, 0.50):8.1f}   p99 {at(ordered, 0.99):8.1f}   max {ordered[-1]:8.1f}"


def at(ordered: list[float], share: float) -> float:
    """The value that this share of the ordered values does not exceed (nearest rank)."""
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]


@dataclass
class Watch:
    """How late the generator's event loop woke, the share of a core that it used, and the share of all cores that
    programs used which have nothing to do with the run."""

    lag_ms: list[float] = field(default_factory=list)
    cpu_share: float = 0.0
    others_share: float = 0.0

    @property
    def saturated(self) -> bool:
        return bool(self.lag_ms) and at(sorted(self.lag_ms), 0.99) > LAG_BOUND_MS

    def report(self) -> str:
        text = f"generator        loop lag ms {quantiles(self.lag_ms)}   CPU {self.cpu_share:.0%} of a core"
        if self.saturated:
            text += "\n                 generator saturated: latencies are upper bounds"
        text += f"\nother programs   took {self.others_share:.0%} of this machine's cores meanwhile"
        if self.others_share > OTHERS_BOUND:
            text += ": latencies are upper bounds"
        return text


@asynccontextmanager
async def watching(pids: Sequence[int]) -> AsyncIterator[Watch]:
    """Watches while the block runs. `pids` are the processes under load, which are not other programs."""
    watch = Watch()
    started, cpu_started = time.monotonic(), time.process_time()
    theirs_started_s = _theirs_s(pids)
    task = asyncio.create_task(watch_lag(watch.lag_ms))
    try:
        yield watch
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        took_s = time.monotonic() - started
        watch.cpu_share = (time.process_time() - cpu_started) / took_s
        watch.others_share = max(0.0, (_theirs_s(pids) - theirs_started_s) / took_s / (os.cpu_count() or 1))


def _theirs_s(pids: Sequence[int]) -> float:
    return busy_s() - time.process_time() - sum(cpu_s(pid) for pid in pids)


async def watch_lag(lag_ms: list[float]) -> None:
    """Adds how late the event loop woke, again and again until it is cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + LAG_EVERY_S
        await asyncio.sleep(LAG_EVERY_S)
        lag_ms.append((loop.time() - due) * 1000)
