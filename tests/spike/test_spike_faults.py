"""What must hold when things go wrong around a run: a message that says it, the right exit status, no process left.
Real k6 and Locust, real processes."""

from __future__ import annotations

import asyncio
import json
import os
import queue
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from loadgen.processes import Process, free_port
from loadgen.spike import folder
from loadgen.spike.order import Order, Outcome
from loadgen.spike.plan import Plan, Prompt, Stage
from loadgen.spike.preflight import Target
from loadgen.spike.progress import Progress
from loadgen.spike.run import run
from loadgen.spike.supervisor import Limits
from loadgen.spike.tools.k6 import K6
from loadgen.spike.tools.tool import Job, Tool
from loadgen.spike.tools.toolbox import TOOLS, tool_for
from tests.processes import descendants, runs

PATIENCE_S = 40
MODEL = "stub"
PLAN = Plan("spike", "open", 10, (Stage(10, 1.05),), "k6", work=(Prompt("Why?", 8),), model=MODEL, timeout_s=2.0)


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A replica that costs next to nothing."""
    port = free_port()
    command = [sys.executable, "-m", "loadgen.gateway.stub", str(port)]
    process = Process(command, port, "/health", tmp_path_factory.mktemp("stub") / "stub.log")
    try:
        process.wait_ready()
        yield process
    finally:
        process.end()


def target(url: str) -> Target:
    return Target(url=url, model=MODEL, models=(MODEL,), holds_headers=False, simulated=False, what="a stub")


async def nobody() -> AsyncIterator[str]:
    await asyncio.Event().wait()
    yield ""


async def ran(
    path: Path,
    url: str,
    tool: str,
    plan: Plan = PLAN,
    make: Callable[[str, Job], Tool] = tool_for,
    said: Callable[[Progress], None] = lambda _: None,
) -> Outcome:
    """A run in this process, which has ended with all that it started."""
    order = Order(plan=replace(plan, source=tool), tool=tool, target=target(url), folder=path)
    pids: set[int] = set()

    def heard(progress: Progress) -> None:
        pids.update(descendants(os.getpid()))
        said(progress)

    before = descendants(os.getpid())
    outcome = await asyncio.wait_for(run(order, nobody(), heard, make, Limits()), PATIENCE_S)
    assert not [pid for pid in pids - before if runs(pid)]
    return outcome


@pytest.mark.parametrize("tool", TOOLS)
async def test_a_script_that_throws_in_every_iteration_is_an_error_of_the_script(stub, tmp_path, tool: str) -> None:
    """A plan without work gives it nothing to send; k6 itself would end with 0."""
    outcome = await ran(tmp_path, stub.url, tool, replace(PLAN, work=()))
    assert outcome.exit_code == 107
    assert outcome.summary.verdict.verdict == "invalid" and outcome.summary.counts.served == 0
    assert "Error" in outcome.summary.troubles[0] and outcome.summary.troubles[0] in outcome.problems


@pytest.mark.parametrize("tool", TOOLS)
async def test_a_script_that_cannot_be_loaded_says_where(stub, tmp_path, tool: str) -> None:
    def make(name: str, job: Job) -> Tool:
        (job.folder / "plan.json").write_text('{"version": ')
        return tool_for(name, job)

    outcome = await ran(tmp_path, stub.url, tool, make=make)
    assert outcome.exit_code == 107
    assert "did not start" in outcome.problems[0]
    assert folder.SUMMARY in os.listdir(tmp_path)


@pytest.mark.parametrize("tool", TOOLS)
async def test_a_target_that_goes_away_says_nothing_of_itself(tmp_path, tool: str) -> None:
    outcome = await ran(tmp_path, f"http://127.0.0.1:{free_port()}", tool)
    assert (outcome.exit_code, outcome.summary.verdict.verdict) == (98, "invalid")
    counts = outcome.summary.counts
    assert counts.served == 0 and counts.failed == counts.sent > 0
    assert any("refused" in text for text in counts.errors)


async def test_a_port_that_k6_finds_taken_is_exchanged_for_another(stub, tmp_path) -> None:
    tried: list[str] = []
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        taken = f"127.0.0.1:{other.getsockname()[1]}"

        def make(name: str, job: Job) -> Tool:
            tried.append(taken if not tried else "")
            return K6(job, address=tried[-1])

        outcome = await ran(tmp_path, stub.url, "k6", make=make)
        assert tried == [taken, ""]
        assert outcome.summary.counts.served == PLAN.planned and outcome.problems == ()

        again = tmp_path / "again"
        again.mkdir()
        outcome = await ran(again, stub.url, "k6", make=lambda name, job: K6(job, address=taken))
    assert outcome.exit_code == 2 and taken in outcome.problems[0]


@pytest.mark.parametrize("tool", TOOLS)
async def test_a_disk_that_fills_up_costs_the_files_but_not_the_figures(stub, small_disk, tool: str) -> None:
    def fill(progress: Progress) -> None:
        if progress.state == "running":
            with suppress(OSError), (small_disk / "filler").open("ab", buffering=0) as file:
                while True:
                    file.write(b"x" * 512)

    outcome = await ran(small_disk, stub.url, tool, said=fill)
    assert outcome.summary.counts.served == PLAN.planned
    assert outcome.exit_code in (74, 98), "74, unless this machine was too busy to be believed"
    assert "No space left" in outcome.problems[-1]
    assert not (small_disk / folder.SUMMARY).exists(), "no half of it either"


class Runner:
    """A `crowdspike spike` of its own, and what it says line by line."""

    def __init__(self, out: Path, url: str, *options: str) -> None:
        self.out = out
        words = ["soak", "--target", url, "--peak", "10", "--out", str(out), *options]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "webapp.cli", "spike", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self.said: list[str] = []
        self._threads = [threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True)]
        self._threads += [threading.Thread(target=self._read, args=(self.process.stderr,), daemon=True)]
        for thread in self._threads:
            thread.start()

    def _read(self, stream) -> None:
        for line in stream:
            self._lines.put(line)

    def wait_for(self, holds: Callable[[str], bool], what: str) -> str:
        give_up_at = time.monotonic() + PATIENCE_S
        while (left_s := give_up_at - time.monotonic()) > 0:
            try:
                self.said.append(self._lines.get(timeout=left_s))
            except queue.Empty:
                break
            if holds(self.said[-1]):
                return self.said[-1]
        pytest.fail(f"not within {PATIENCE_S} s: {what}\n{''.join(self.said[-5:])}")

    def tell(self, command: str) -> None:
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def ends(self) -> int:
        status = self.process.wait(PATIENCE_S)
        for thread in self._threads:
            thread.join(PATIENCE_S)
        while not self._lines.empty():
            self.said.append(self._lines.get())
        return status

    @property
    def last(self) -> dict:
        return json.loads(next(line for line in reversed(self.said) if line.startswith("{")))

    def close(self) -> None:
        with suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            with suppress(OSError):
                stream.close()


@contextmanager
def runner(out: Path, url: str, *options: str) -> Iterator[Runner]:
    one = Runner(out, url, *options)
    try:
        yield one
    finally:
        one.close()


def state(name: str, at_least: int = 0) -> Callable[[str], bool]:
    """Holds for a line that tells this state, with so many requests sent."""

    def holds(line: str) -> bool:
        if not line.startswith("{"):
            return False
        told = json.loads(line)
        return told["state"] == name and told.get("sent", 0) >= at_least

    return holds


def gone(pids: set[int]) -> None:
    give_up_at = time.monotonic() + PATIENCE_S
    while any(runs(pid) for pid in pids):
        assert time.monotonic() < give_up_at, "processes stayed"
        time.sleep(0.02)


def test_a_target_that_refuses_is_told_before_anything_starts(tmp_path: Path) -> None:
    with runner(tmp_path / "run", f"http://127.0.0.1:{free_port()}") as one:
        assert one.ends() == 2
        text = "".join(one.said)
    assert "refused" in text and "Traceback" not in text
    assert not (tmp_path / "run").exists()


def test_a_wrong_certificate_is_told_with_what_can_be_done(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl here to make a certificate with")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=another.example"]
    subprocess.run([*make, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    def serve(listening: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection, _ = listening.accept()
                with suppress(OSError), context.wrap_socket(connection, server_side=True):
                    pass

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        threading.Thread(target=serve, args=(listening,), daemon=True).start()
        with runner(tmp_path / "run", f"https://127.0.0.1:{listening.getsockname()[1]}") as one:
            assert one.ends() == 2
            text = "".join(one.said)
    assert "certificate" in text and "--insecure" in text and "Traceback" not in text


@pytest.mark.parametrize("times", [1, 2], ids=["once", "twice"])
def test_ctrl_c_ends_the_run_and_what_it_started_and_keeps_what_was_measured(stub, tmp_path, times: int) -> None:
    out = tmp_path / "run"
    with runner(out, stub.url, "--duration", "60s", "--control") as one:
        one.wait_for(state("running", at_least=1), "requests are sent")
        started = descendants(one.process.pid)
        assert started
        for _ in range(times):
            os.killpg(one.process.pid, signal.SIGINT)
        assert one.ends() == 105
        assert "Traceback" not in "".join(one.said)
        gone(started)
        assert (one.last["state"], one.last["verdict"], one.last["exit_code"]) == ("ended", "stopped", 105)
    kept = folder.read_run(out)
    assert kept.summary.about.stopped and kept.summary.counts.sent > 0
    assert "stopped" in (out / folder.REPORT).read_text().lower()


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("moment", ["armed", "running"])
def test_kill_9_of_the_runner_takes_its_tool_along(stub, tmp_path, tool: str, moment: str) -> None:
    options = ("--tool", tool, "--duration", "60s", "--control", "--paused")
    with runner(tmp_path / "run", stub.url, *options) as one:
        one.wait_for(state("armed"), "it is armed")
        if moment == "running":
            one.tell("fire")
            one.wait_for(state("running", at_least=1), "requests are sent")
        started = descendants(one.process.pid)
        assert started
        one.process.kill()
        one.process.wait()
        gone(started)
    assert not folder.is_held(tmp_path / "run")
    with pytest.raises(folder.BadFolder, match="broken off"):
        folder.read_run(tmp_path / "run")


@pytest.mark.parametrize("tool", TOOLS)
def test_the_end_of_the_input_stops_the_run_and_records_it(stub, tmp_path, tool: str) -> None:
    """As when the web process that started it has died."""
    out = tmp_path / "run"
    with runner(out, stub.url, "--tool", tool, "--duration", "60s", "--control") as one:
        one.wait_for(state("running", at_least=1), "requests are sent")
        started = descendants(one.process.pid)
        one.process.stdin.close()
        assert one.ends() == 103
        gone(started)
        assert (one.last["verdict"], one.last["folder"]) == ("stopped", str(out))
    assert folder.read_run(out).summary.about.stopped
