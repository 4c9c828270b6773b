"""k6 from arming to its end: a real k6 against a stub replica."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from loadgen import processes
from loadgen.processes import Process
from loadgen.spike.plan import Cell, Plan, Prompt, Stage
from loadgen.spike.point import Began, Dropped, Point, Report, Sent, Trouble
from loadgen.spike.tools import k6
from loadgen.spike.tools.k6 import K6
from loadgen.spike.tools.rest import Rest
from loadgen.spike.tools.tool import Job, ToolFailed
from tests.processes import runs

WITHIN_S = 30.0
WORK = (Prompt("hi", 10), Prompt("why?", 10))
SPIKE = Plan(
    "spike", "open", 5, (Stage(5, 0.4), Stage(40, 0), Stage(40, 0.5), Stage(0, 0.4)), "k6", work=WORK, max_in_flight=50
)
LONG = replace(SPIKE, stages=(Stage(5, 60),))


@pytest.fixture(scope="module")
def stub(tmp_path_factory) -> Iterator[str]:
    port = processes.free_port()
    log = tmp_path_factory.mktemp("stub") / "stub.log"
    process = Process([sys.executable, "-m", "loadgen.gateway.stub", str(port)], port, "/health", log)
    try:
        process.wait_ready()
        yield process.url
    finally:
        process.end()


def a_job(folder: Path, plan: Plan, target: str, **more) -> Job:
    (folder / "plan.json").write_text(plan.to_json())
    return Job(plan, target, folder, **more)


@pytest.fixture
async def tools() -> AsyncIterator[list[K6]]:
    """What is put in ends with the test."""
    made: list[K6] = []
    yield made
    for tool in made:
        tool.kill()
        if tool.pids:
            await tool.ending()


async def armed(tools: list[K6], job: Job, address: str = "") -> K6:
    tool = K6(job, address)
    tools.append(tool)
    await tool.arm()
    return tool


async def ran(tools: list[K6], job: Job) -> tuple[K6, list[Report]]:
    tool = await armed(tools, job)
    await tool.fire()
    async with asyncio.timeout(WITHIN_S):
        return tool, [report async for report in tool.reports()]


def of(kind: type, reports: list[Report]) -> list:
    return [report for report in reports if isinstance(report, kind)]


@pytest.mark.parametrize(
    "plan",
    [
        SPIKE,
        replace(SPIKE, start=0, stages=(Stage(30, 1),)),
        replace(SPIKE, start=2 / 3, stages=(Stage(2 / 3, 1.5),)),
        replace(SPIKE, start=20, stages=(Stage(20, 1),), cache_busting=True, ignore_eos=True),
    ],
    ids=["a step and down to none", "up from none", "a fraction", "the last at the very end"],
)
async def test_every_planned_arrival_goes_out_once_and_comes_back(tools, stub, tmp_path, plan):
    tool, reports = await ran(tools, a_job(tmp_path, plan, stub))
    assert await tool.ending() == ("done", "")
    assert len(of(Began, reports)) == 1
    numbers = list(range(plan.planned))
    assert sorted(sent.n for sent in of(Sent, reports)) == numbers
    points = of(Point, reports)
    assert sorted(point.n for point in points) == numbers
    assert {(p.by, p.kind, p.outcome, p.status, p.prompt_tokens, p.completion_tokens) for p in points} == {
        ("k6", "completion", "served", 200, 25, 74)
    }
    for point in points:
        assert of(Began, reports)[0].at_s < point.sent_s <= point.headers_s < point.ended_s
        assert point.due_s is None and point.first_s is None
    assert not of(Trouble, reports) and not of(Dropped, reports)


async def test_armed_it_sends_nothing_until_it_is_fired(tools, stub, tmp_path):
    address = f"127.0.0.1:{processes.free_port()}"
    tool = await armed(tools, a_job(tmp_path, SPIKE, stub), address)
    assert tool.version.startswith(("1.", "2."))
    assert [runs(pid) for pid in tool.pids] == [True]
    heard = asyncio.create_task(anext(tool.reports()))
    assert await Rest(address).waits()
    assert not heard.done()
    await tool.fire()
    async with asyncio.timeout(WITHIN_S):
        assert isinstance(await heard, Began)


async def test_arrivals_for_which_nobody_is_free_are_dropped_and_none_is_lost(tools, stub, tmp_path):
    plan = replace(SPIKE, start=10, stages=(Stage(10, 1),), max_in_flight=2)
    tool, reports = await ran(tools, a_job(tmp_path, plan, stub))
    dropped = sum(report.count for report in of(Dropped, reports))
    assert dropped > 0
    assert len(of(Sent, reports)) == len(of(Point, reports)) == plan.planned - dropped
    assert (await tool.ending())[0] == "done"


async def test_users_of_a_closed_loop_wait_for_their_answers(tools, stub, tmp_path):
    plan = replace(SPIKE, loop="closed", start=2, stages=(Stage(2, 1), Stage(1, 0.5)))
    tool, reports = await ran(tools, a_job(tmp_path, plan, stub))
    points = of(Point, reports)
    assert len({point.n for point in points}) == len(points) == len(of(Sent, reports)) >= 3
    # A script's clock has whole milliseconds: a request may seem to go out a little before it does.
    edges = sorted([(p.sent_s, 1) for p in points] + [(p.ended_s - 0.001, -1) for p in points])
    under_way = most = 0
    for _, change in edges:
        under_way += change
        most = max(most, under_way)
    assert most == 2
    assert len(of(Began, reports)) == 1
    assert (await tool.ending())[0] == "done"


async def test_the_cells_of_a_matrix_come_one_after_the_other_in_whole_batches(tools, stub, tmp_path):
    # Between them is time for what is under way on a busy machine; it would be given up when the second begins.
    cells = (Cell("", 2, 1, 0, 1), Cell("other", 1, 9, 5, 6))
    plan = replace(SPIKE, scenario="matrix", loop="closed", start=2, stages=(Stage(2, 5), Stage(1, 1)), cells=cells)
    tool, reports = await ran(tools, a_job(tmp_path, plan, stub))
    assert (await tool.ending())[0] == "done"
    points = of(Point, reports)
    assert len({point.n for point in points}) == len(points) == len(of(Sent, reports))
    assert Counter(point.cell for point in points)[1] % 9 == 0
    first, second = ([p for p in points if p.cell == cell] for cell in (0, 1))
    assert max(p.ended_s for p in first) <= min(p.sent_s for p in second)
    assert len({p.sent_s for p in second}) == len(second) / 9
    assert len(of(Began, reports)) == 1
    assert not of(Trouble, reports)


async def test_a_stop_ends_it_with_requests_under_way(tools, stub, tmp_path):
    tool = await armed(tools, a_job(tmp_path, LONG, stub))
    await tool.fire()
    reports: list[Report] = []
    async with asyncio.timeout(WITHIN_S):
        async for report in tool.reports():
            if isinstance(report, Sent) and not of(Sent, reports):
                stopping = asyncio.create_task(tool.stop())
            reports.append(report)
        await stopping
    assert await tool.ending() == ("stopped", "")
    assert tool.pids == []
    await tool.stop()
    assert len(of(Sent, reports)) > len(of(Point, reports))
    assert not of(Trouble, reports)


async def test_a_stop_ends_it_before_it_was_fired(tools, stub, tmp_path):
    tool = await armed(tools, a_job(tmp_path, LONG, stub))
    await tool.stop()
    assert await tool.ending() == ("stopped", "")


async def test_a_kill_leaves_nothing(tools, stub, tmp_path):
    tool = await armed(tools, a_job(tmp_path, LONG, stub))
    (pid,) = tool.pids
    await tool.fire()
    tool.kill()
    assert await tool.ending() == ("stopped", "")
    assert not runs(pid)
    tool.kill()


async def test_a_signal_from_elsewhere_interrupts_it(tools, stub, tmp_path):
    tool = await armed(tools, a_job(tmp_path, LONG, stub))
    await tool.fire()
    async with asyncio.timeout(WITHIN_S):
        async for report in tool.reports():
            if isinstance(report, Began):
                os.kill(tool.pids[0], 15)
    ending, said = await tool.ending()
    assert ending == "interrupted"
    assert "terminated" in said


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells a process that its parent died")
@pytest.mark.parametrize("fired", [False, True], ids=["armed", "running"])
def test_it_dies_with_the_runner_even_by_kill_9(stub, tmp_path, fired):
    job = a_job(tmp_path, LONG, stub)
    runner = """
import asyncio, sys
from pathlib import Path
from loadgen.spike.plan import Plan
from loadgen.spike.tools.k6 import K6
from loadgen.spike.tools.rest import Rest
from loadgen.spike.tools.tool import Job

async def main(target, folder, fired):
    tool = K6(Job(Plan.from_json((folder / "plan.json").read_bytes()), target, folder))
    await tool.arm()
    if fired:
        await tool.fire()
        await anext(tool.reports())
    print(tool.pids[0], flush=True)
    await asyncio.sleep(60)

asyncio.run(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3] == "True"))
"""
    command = [sys.executable, "-c", runner, job.target, str(tmp_path), str(fired)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        pid = int(process.stdout.readline())
        assert runs(pid)
    finally:
        process.kill()
        process.wait()
    give_up_at = time.monotonic() + WITHIN_S
    while runs(pid):
        assert time.monotonic() < give_up_at, f"k6 {pid} still runs"
        time.sleep(0.02)


async def test_a_script_that_throws_in_every_iteration_is_told_once_with_its_place(tools, stub, tmp_path):
    tool, reports = await ran(tools, a_job(tmp_path, replace(SPIKE, work=()), stub))
    assert (await tool.ending())[0] == "done"  # k6 sees nothing wrong
    (trouble,) = of(Trouble, reports)
    assert trouble.text.startswith("TypeError:")
    assert "plan.js:" in trouble.text and str(k6.SCRIPTS) not in trouble.text
    assert not of(Point, reports)
    assert (tmp_path / "tool.log").read_text().count("TypeError") == SPIKE.planned


async def test_an_error_while_the_script_is_read_is_its_own(tools, stub, tmp_path):
    with pytest.raises(ToolFailed, match="a plan of version 2; version 1 is read here") as failed:
        await armed(tools, a_job(tmp_path, replace(SPIKE, version=2), stub))
    assert failed.value.ending == "script"
    assert "version 2" in (tmp_path / "tool.log").read_text()


async def test_options_that_k6_refuses_are_told_in_its_words(tools, stub, tmp_path):
    with pytest.raises(ToolFailed, match="preAllocatedVUs") as failed:
        await armed(tools, a_job(tmp_path, replace(SPIKE, max_in_flight=-1), stub))
    assert failed.value.ending == "options"


async def test_a_port_that_is_taken_is_named(tools, stub, tmp_path):
    in_use = pytest.raises(ToolFailed, match="address already in use")
    with socket.create_server(("127.0.0.1", 0)) as other, in_use as failed:
        await armed(tools, a_job(tmp_path, SPIKE, stub), f"127.0.0.1:{other.getsockname()[1]}")
    assert failed.value.ending == "port"


async def test_a_scenario_without_a_script_is_refused(tools, stub, tmp_path):
    with pytest.raises(ToolFailed, match="no script for the scenario 'other'") as failed:
        await armed(tools, a_job(tmp_path, replace(SPIKE, scenario="other"), stub))
    assert failed.value.ending == "options"


async def test_a_folder_that_takes_no_log_stops_no_run(tools, stub, tmp_path):
    (tmp_path / "tool.log").mkdir()
    _, reports = await ran(tools, a_job(tmp_path, replace(SPIKE, work=()), stub))
    assert of(Trouble, reports)


def test_settings_of_other_runs_stay_out_and_secrets_are_no_arguments(tmp_path):
    seen = tmp_path / "seen.json"
    binary = tmp_path / "k6"
    binary.write_text(
        f"#!{sys.executable}\n"
        "import json, os, sys\n"
        "if sys.argv[1] == 'version':\n"
        "    sys.exit(print('k6 v9.8.7 (any)'))\n"
        f"json.dump([sys.argv, dict(os.environ)], open({str(seen)!r}, 'w'))\n"
        "sys.exit('no more')\n"
    )
    binary.chmod(0o755)
    job = a_job(tmp_path, SPIKE, "http://127.0.0.1:1", api_key="sesame", presenter_token="open", insecure=True)
    program = """
import asyncio, pickle, sys
from loadgen.spike.tools.k6 import K6
from loadgen.spike.tools.rest import Rest
from loadgen.spike.tools.tool import ToolFailed

async def main(job):
    tool = K6(job)
    try:
        await tool.arm()
    except ToolFailed as error:
        print(tool.version, error)

asyncio.run(main(pickle.load(sys.stdin.buffer)))
"""
    environment = {**os.environ, "K6": str(binary), "K6_OUT": "csv=x", "CROWDSPIKE_PRESENTER_TOKEN": "other"}
    command = [sys.executable, "-c", program]
    ended = subprocess.run(command, input=pickle.dumps(job), capture_output=True, env=environment)
    assert ended.stdout.decode() == "9.8.7 k6 did not start: no more\n"
    arguments, environment = json.loads(seen.read_text())
    assert "--summary-mode=disabled" in arguments and "--insecure-skip-tls-verify" in arguments
    assert not any("sesame" in argument or argument == "open" for argument in arguments)
    assert environment["API_KEY"] == "sesame" and environment["PRESENTER_TOKEN"] == "open"
    assert not [name for name in environment if name.startswith(("K6", "CROWDSPIKE_"))]
