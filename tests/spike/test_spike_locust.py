"""The real Locust sends what the plan has, when it has it, tells of each request, and never outlives its run."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from loadgen.gateway import wire
from loadgen.machine import family
from loadgen.processes import Process, free_port
from loadgen.spike.plan import Cell, Plan, Prompt, Stage
from loadgen.spike.point import Began, Dropped, Point, Report, Sent, Trouble
from loadgen.spike.tools.locust import FILES, Locust
from loadgen.spike.tools.tool import Ending, Job, ToolFailed
from tests.processes import runs
from tests.spike.spike_targets import Busy, Silent, listening, own_certificate

WORK = (Prompt("What does a crowd cost?", 80),)


def plan(level: float, *stages: Stage, **more: Any) -> Plan:
    usual = {
        "scenario": "spike",
        "loop": "open",
        "source": "locust",
        "model": wire.MODEL,
        "work": WORK,
        "start": level,
        "stages": stages,
    }
    return Plan(**{**usual, **more})


def tool(of: Plan, target: str, folder: Path, **more: Any) -> Locust:
    (folder / "plan.json").write_text(of.to_json())
    return Locust(Job(of, target, folder, **more))


class Heard:
    """What a run of Locust said. `until` ends when so many of a kind were heard."""

    def __init__(self, locust: Locust) -> None:
        self.reports: list[Report] = []
        self._more = asyncio.Event()
        self._reading = asyncio.create_task(self._read(locust))

    async def _read(self, locust: Locust) -> None:
        async for report in locust.reports():
            self.reports.append(report)
            self._more.set()

    def of(self, kind: type) -> list[Any]:
        return [one for one in self.reports if isinstance(one, kind)]

    async def until(self, kind: type, count: int = 1) -> None:
        async with asyncio.timeout(30):
            while len(self.of(kind)) < count:
                self._more.clear()
                await self._more.wait()

    async def all(self) -> None:
        async with asyncio.timeout(45):
            await self._reading


async def whole(of: Plan, target: str, folder: Path, **more: Any) -> tuple[Heard, Ending, str]:
    """A run from arming to its end. It leaves no process."""
    locust = tool(of, target, folder, **more)
    try:
        await locust.arm()
        pids = locust.pids
        await locust.fire()
        heard = Heard(locust)
        await heard.all()
        ending, words = await locust.ending()
    finally:
        locust.kill()
    assert not any(map(runs, pids))
    return heard, ending, words


def most_at_once(points: list[Point]) -> int:
    edges = sorted([(p.ended_s, -1) for p in points] + [(p.sent_s, 1) for p in points])
    under_way = most = 0
    for _, step in edges:
        under_way += step
        most = max(most, under_way)
    return most


async def test_an_open_loop_sends_every_arrival_when_it_is_due_whatever_the_answers_do(tmp_path: Path) -> None:
    of = plan(4, Stage(4, 0.5), Stage(20, 0), Stage(20, 0.5), Stage(4, 0), Stage(4, 0.5))
    async with listening() as target:
        heard, ending, words = await whole(of, target, tmp_path)
    assert (ending, words) == ("done", "")
    (began,) = heard.of(Began)
    assert isinstance(heard.reports[0], Began)
    points = sorted(heard.of(Point), key=lambda point: point.n)
    assert [point.n for point in points] == list(range(of.planned))
    assert Counter(sent.n for sent in heard.of(Sent)) == Counter(range(of.planned))
    assert [point.due_s - began.at_s for point in points] == pytest.approx(list(of.arrivals()), abs=1e-3)
    for point in points:
        assert (point.by, point.outcome, point.first_by) == ("locust", "served", "token")
        assert point.due_s - 1e-3 <= point.sent_s <= point.headers_s <= point.first_s <= point.ended_s
        assert (point.completion_tokens, len(point.gaps_ms)) == (wire.TOKENS, wire.TOKENS - 1)
    assert most_at_once(points) > 4, "an answer takes 0.7 s: others were sent meanwhile"


async def test_several_processes_share_the_arrivals(tmp_path: Path) -> None:
    of = plan(16, Stage(16, 1))
    async with listening() as target:
        heard, ending, _ = await whole(of, target, tmp_path, environment={"LOCUST_PROCESSES": "2"})
    assert ending == "done"
    (began,) = heard.of(Began)
    points = sorted(heard.of(Point), key=lambda point: point.n)
    assert [point.n for point in points] == list(range(of.planned))
    assert {point.outcome for point in points} == {"served"}
    assert [point.due_s - began.at_s for point in points] == pytest.approx(list(of.arrivals()), abs=1e-3)


async def test_more_than_may_be_in_flight_are_dropped_and_told(tmp_path: Path) -> None:
    async with listening(Silent) as target:
        of = plan(20, Stage(20, 0.5), max_in_flight=3, timeout_s=2)
        heard, ending, _ = await whole(of, target, tmp_path)
    assert ending == "done"
    assert (len(heard.of(Point)), sum(drop.count for drop in heard.of(Dropped))) == (3, 7)
    assert {(point.outcome, point.error) for point in heard.of(Point)} == {("failed", "no answer within 2 s")}


async def test_in_a_closed_loop_as_many_ask_as_the_plan_has_users(tmp_path: Path) -> None:
    of = plan(1, Stage(1, 1), Stage(3, 0), Stage(3, 1), loop="closed")
    async with listening() as target:
        heard, ending, _ = await whole(of, target, tmp_path)
    assert ending == "done"
    (began,) = heard.of(Began)
    points = heard.of(Point)
    assert {(point.outcome, point.due_s) for point in points} == {("served", None)}
    assert most_at_once([point for point in points if point.sent_s < began.at_s + 0.99]) == 1
    assert most_at_once(points) == 3
    assert sorted(point.n for point in points) == list(range(len(points)))


async def test_a_matrix_goes_through_its_cells_and_sends_in_batches(tmp_path: Path) -> None:
    cells = (Cell("", 1, 3, 0, 0.5), Cell("", 2, 2, 0.5, 1.5))
    of = plan(2, Stage(2, 1.5), loop="closed", scenario="matrix", cells=cells)
    async with listening() as target:
        heard, ending, _ = await whole(of, target, tmp_path)
    assert ending == "done"
    first, second = ([point for point in heard.of(Point) if point.cell == cell] for cell in (0, 1))
    assert (len(first) % 3, len(second) % 2) == (0, 0)
    assert (most_at_once(first), most_at_once(second)) == (3, 4)
    assert {point.outcome for point in heard.of(Point)} == {"served"}


async def test_a_stop_ends_it_with_what_was_under_way_left_open(tmp_path: Path) -> None:
    async with listening(Silent) as target:
        locust = tool(plan(5, Stage(5, 600)), target, tmp_path)
        await locust.arm()
        pids = locust.pids
        heard = Heard(locust)
        await locust.fire()
        await heard.until(Sent, 2)
        await locust.stop()
        await heard.all()
        assert await locust.ending() == ("stopped", "")
        await locust.stop()
        locust.kill()
    assert heard.of(Point) == []
    assert not any(map(runs, pids))
    assert locust.pids == []


async def test_a_stop_before_it_was_fired_sends_nothing(tmp_path: Path) -> None:
    async with listening() as target:
        locust = tool(plan(50, Stage(50, 1)), target, tmp_path)
        await locust.arm()
        heard = Heard(locust)
        await locust.stop()
        await heard.all()
        assert await locust.ending() == ("stopped", "")
    assert heard.reports == []
    with pytest.raises(ToolFailed):
        await locust.fire()


async def test_a_kill_takes_its_workers_along(tmp_path: Path) -> None:
    async with listening(Silent) as target:
        locust = tool(plan(5, Stage(5, 600)), target, tmp_path, environment={"LOCUST_PROCESSES": "2"})
        await locust.arm()
        pids = locust.pids
        assert len(pids) == 3
        heard = Heard(locust)
        locust.kill()
        await heard.all()
        assert (await locust.ending())[0] == "stopped"
    await gone(pids)


async def test_it_dies_with_its_runner_even_by_kill_9(tmp_path: Path) -> None:
    async with listening(Silent) as target:
        of = plan(5, Stage(5, 600))
        (tmp_path / "plan.json").write_text(of.to_json())
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", RUNNER, str(tmp_path), target, stdout=asyncio.subprocess.PIPE
        )
        async with asyncio.timeout(30):
            assert await process.stdout.readline() == b"sent\n"
        pids = family([process.pid])
        assert len(pids) == 4
        os.kill(process.pid, signal.SIGKILL)
        await process.wait()
        await gone(pids)


RUNNER = """
import asyncio, sys
from pathlib import Path
from loadgen.spike.plan import Plan
from loadgen.spike.point import Sent
from loadgen.spike.tools.locust import Locust
from loadgen.spike.tools.tool import Job

async def main(folder, target):
    plan = Plan.from_json((folder / "plan.json").read_text())
    locust = Locust(Job(plan, target, folder, environment={"LOCUST_PROCESSES": "2"}))
    await locust.arm()
    await locust.fire()
    async for report in locust.reports():
        if isinstance(report, Sent):
            print("sent", flush=True)

asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
"""


def command_line(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


async def gone(pids: list[int] | set[int]) -> None:
    async with asyncio.timeout(20):
        while any(map(runs, pids)):  # noqa: ASYNC110
            await asyncio.sleep(0.05)  # a process of somebody else's says nothing when it ends


async def test_what_throws_in_every_request_is_told_once(tmp_path: Path) -> None:
    async with listening() as target:
        heard, ending, _ = await whole(plan(10, Stage(10, 0.5), work=()), target, tmp_path)
    assert ending == "done"
    (trouble,) = heard.of(Trouble)
    assert trouble.text.startswith("ZeroDivisionError: ")
    assert trouble.text.endswith(".py:" + trouble.text.rpartition(":")[2]), "it names the place"
    assert heard.of(Point) == []


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        ({"plan": '{"version": 1}'}, "BadPlan: Not a plan"),
        ({"target": "http://nowhere.invalid:1"}, "gaierror: "),
        ({"environment": {"LOCUST_USERS": "many"}}, "--users: invalid int"),
    ],
)
async def test_what_cannot_begin_is_told_in_its_own_words(tmp_path: Path, spoil: dict[str, Any], words: str) -> None:
    more = {"environment": spoil.get("environment", {})}
    locust = tool(plan(5, Stage(5, 1)), spoil.get("target", "http://127.0.0.1:9"), tmp_path, **more)
    if "plan" in spoil:
        (tmp_path / "plan.json").write_text(spoil["plan"])
    with pytest.raises(ToolFailed, match=words) as failed:
        await locust.arm()
    assert failed.value.ending == ("options" if "environment" in spoil else "script")
    assert locust.pids == []
    assert (tmp_path / "tool.log").read_text()


async def test_a_target_that_is_not_there_is_in_the_points(tmp_path: Path) -> None:
    heard, ending, _ = await whole(plan(10, Stage(10, 0.3)), f"http://127.0.0.1:{free_port()}", tmp_path)
    assert ending == "done"
    # The third is due at the very end, when nothing else is under way.
    assert [(point.outcome, point.error) for point in heard.of(Point)] == [("failed", "connection refused")] * 3


async def test_a_strange_certificate_is_taken_only_when_insecure(tmp_path: Path) -> None:
    of = plan(10, Stage(10, 0.3))
    async with listening(context=own_certificate(tmp_path)) as target:
        refused, _, _ = await whole(of, target, tmp_path)
        taken, _, _ = await whole(of, target, tmp_path, insecure=True)
    assert {p.error for p in refused.of(Point)} == {"certificate: self-signed certificate"}
    assert {p.outcome for p in taken.of(Point)} == {"served"}


async def test_the_key_is_in_no_argument_and_a_reused_connection_serves_again(tmp_path: Path) -> None:
    asked: list[bytes] = []

    class Hears(Busy):
        def data_received(self, data: bytes) -> None:
            asked.append(data)
            super().data_received(data)

    connected: list[object] = []

    class Counts(Hears):
        def connection_made(self, transport: asyncio.Transport) -> None:
            connected.append(transport)
            super().connection_made(transport)

    async with listening(Counts) as target:
        locust = tool(plan(10, Stage(10, 0.5), ignore_eos=True), target, tmp_path, api_key="sk-secret")
        await locust.arm()
        arguments = b" ".join(map(command_line, locust.pids))
        await locust.fire()
        heard = Heard(locust)
        await heard.all()
        assert (await locust.ending())[0] == "done"
    assert b"sk-secret" not in arguments
    posts = [data for data in asked if data.startswith(b"POST ")]
    assert len(posts) == len(heard.of(Point)) == 5
    assert {(point.outcome, point.error) for point in heard.of(Point)} == {("refused", "503 queue full")}
    assert all(b"authorization: Bearer sk-secret\r\n" in data and b'"ignore_eos": true' in data for data in posts)
    assert all(b"x-load-source: locust\r\n" in data for data in posts)
    assert len(connected) < len(asked), "five requests one after the other need no five connections"


async def test_by_hand_locusts_own_page_starts_it_and_shows_it(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "locust", "-f", str(FILES / "completions.py"), "--web-host", "127.0.0.1"]
    environment = {"PEAK": "10", "DURATION": "1"}
    async with listening() as target:
        command += ["--web-port", str(port), "--host", target]
        page = Process(command, port, "/stats/requests", tmp_path / "page.log", environment)
        try:
            await asyncio.to_thread(page.wait_ready)
            async with httpx.AsyncClient(base_url=page.url) as http:
                assert (await http.post("/swarm", data={})).json()["success"]
                async with asyncio.timeout(20):
                    stats = {"state": ""}
                    while stats["state"] != "stopped":
                        stats = (await http.get("/stats/requests")).json()
                        await asyncio.sleep(0.1)
        finally:
            page.end()
    seen = {row["name"]: (row["num_requests"], row["num_failures"]) for row in stats["stats"]}
    assert seen["chat completions"] == seen["ttft"]
    assert seen["chat completions"][0] > 0
    assert stats["fail_ratio"] == 0
