"""A pod's container: real processes, started, probed, stopped with grace, killed."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from inference.cluster.local.command import engine_command
from inference.cluster.local.container import Container
from inference.cluster.spec import PodSpec
from tests.cluster.fakes import begun, finish_reason
from tests.inference.servers import profile_file, until
from tests.processes import runs

SPEC = PodSpec(
    cpu=3, memory_gib=12, gpus=1, replicas=1, args=(), port=8000, probe_path="/health", probe_period_s=0.1,
    probe_failures=3, pre_stop_s=0.05, grace_period_s=30,
)  # fmt: skip


class Heard:
    """What containers report, in order."""

    def __init__(self) -> None:
        self.said: list[tuple[str, object]] = []

    def step(self, pod: str, name: str) -> None:
        self.said.append(("step", name))

    def started(self, pod: str, url: str) -> None:
        self.said.append(("started", url))

    def probed(self, pod: str, ok: bool) -> None:
        if not self.said or self.said[-1] != ("probed", ok):
            self.said.append(("probed", ok))

    def ended(self, pod: str, why: str) -> None:
        self.said.append(("ended", why))


class Running:
    """One container and what was heard of it."""

    def __init__(self, command: list[str], starting: asyncio.Semaphore | None = None) -> None:
        self.heard = Heard()
        self.output: deque[str] = deque(maxlen=50)
        starting = starting or asyncio.Semaphore(1)
        self.container = Container("vllm-0", command, SPEC, starting, self.output, self.heard)

    @property
    def said(self) -> list[tuple[str, object]]:
        return self.heard.said

    async def ready(self) -> None:
        await until(lambda: ("probed", True) in self.said)


@asynccontextmanager
async def running(command: list[str], starting: asyncio.Semaphore | None = None) -> AsyncIterator[Running]:
    one = Running(command, starting)
    try:
        yield one
    finally:
        one.container.kill()
        await asyncio.wait_for(one.container.gone.wait(), 10)


def engine(profile: str = "instant", startup_scale: float = 0, **arguments: str) -> list[str]:
    named = {"--" + name.replace("_", "-"): value for name, value in arguments.items()}
    return engine_command(named, profile=profile, qa=None, startup_scale=startup_scale)


async def test_start_is_reported_step_by_step_and_then_the_probe_passes():
    async with running(engine("cpu-tiny-mistral", startup_scale=0.001)) as one:
        await one.ready()
        assert [what for what in one.said if what[0] != "probed"] == [
            *(("step", name) for name in ("imports", "weights", "compile")),
            ("started", one.container.url),
        ]
        assert one.said[-1] == ("probed", True)
        assert one.output[-1] == f"simulated vLLM replica on {one.container.url}"


async def test_kill_from_outside_is_heard_as_its_end():
    async with running(engine()) as one:
        await one.ready()
        os.kill(one.container.pid, signal.SIGKILL)
        await until(one.container.gone.is_set)
        assert one.said[-1] == ("ended", "killed by SIGKILL")
        assert not runs(one.container.pid)


async def test_stop_lets_a_stream_end(tmp_path):
    pace = profile_file(tmp_path, step_base_ms=10)
    async with running(engine(pace, shutdown_timeout="20")) as one:
        await one.ready()
        stream = await begun(one.container.url, 60)
        one.container.stop(30)
        assert await finish_reason(stream) == "length"
        await until(one.container.gone.is_set)
        assert one.said[-1] == ("ended", "exit status 0")


async def test_what_outlives_its_grace_is_killed(tmp_path):
    pace = profile_file(tmp_path, step_base_ms=50)
    async with running(engine(pace, shutdown_timeout="60")) as one:
        await one.ready()
        stream = await begun(one.container.url, 3000)
        one.container.stop(60)
        one.container.stop(0.1)
        await until(one.container.gone.is_set)
        assert one.said[-1] == ("ended", "killed by SIGKILL")
        stream.close()


async def test_replica_that_cannot_start_says_why():
    async with running(engine("no-such-profile")) as one:
        await until(one.container.gone.is_set)
        what, why = one.said[-1]
        assert what == "ended"
        assert why.startswith("exit status 2: no profile 'no-such-profile'")
        assert one.container.url is None


async def test_program_that_is_not_there_ends_it_once():
    async with running(["/no/such/program"]) as one:
        await until(one.container.gone.is_set)
        ((what, why),) = one.said
        assert what == "ended"
        assert "No such file or directory" in why


async def test_one_at_a_time_loads_its_code_and_one_that_waits_can_be_stopped():
    starting = asyncio.Semaphore(1)
    command = [sys.executable, "-c", "import sys; sys.stdin.read()"]  # never says that it has loaded
    async with running(command, starting) as first, running(engine(), starting) as second:
        await until(lambda: first.container.pid is not None)
        second.container.stop(0.1)
        await until(second.container.gone.is_set)
        assert (second.container.pid, second.said) == (None, [("ended", "ended before its process was started")])


async def test_replica_that_hangs_fails_its_probe_and_one_that_comes_back_passes():
    async with running(engine()) as one:
        await one.ready()
        os.kill(one.container.pid, signal.SIGSTOP)
        await until(lambda: one.said[-1] == ("probed", False))
        os.kill(one.container.pid, signal.SIGCONT)
        await until(lambda: one.said[-1] == ("probed", True))


async def test_interrupt_key_of_the_terminal_does_not_reach_it():
    async with running(engine()) as one:
        await one.ready()
        assert os.getpgid(one.container.pid) == one.container.pid != os.getpgrp()


async def test_only_the_last_lines_are_kept():
    async with running([sys.executable, "-c", "for i in range(500): print('line', i)"]) as one:
        await until(one.container.gone.is_set)
        assert list(one.output) == [f"line {i}" for i in range(450, 500)]
        assert one.said == [("ended", "exit status 0")]
