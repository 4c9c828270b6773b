"""That scripted phones take part in a room as phones do and are told from people; with the real tools."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadgen import processes
from loadgen.presenter import Presenter
from loadgen.processes import TOKEN
from loadgen.spike import drive
from loadgen.spike.plan import Plan, Prompt, Stage
from loadgen.spike.point import Began, Point, Report, Sent, Trouble
from loadgen.spike.tools.tool import Job, Tool
from loadgen.spike.tools.toolbox import TOOLS
from tests.processes import replica

PHONES = 20
LONGEST_S = 120.0
TALK = """\
title: A talk for scripts
activities:
  - quiz: Which <is> "right" & which is not?
    id: one
    time_limit: 20
    options: [{correct: This}, Not this]
  - quiz: Which of these?
    id: several
    time_limit: 20
    options: [{correct: A}, B, {correct: C}]
  - ask: Ask the model
    id: ask
  - survey: How was it?
    id: survey
    fields:
      - {rating: Stars, id: stars, required: true}
      - {choice: "Pace & <tempo>", id: pace, options: ["slow & steady", "it's fast"], required: true}
      - {choices: Topics, id: topics, options: [pods, nodes]}
      - {text: "Why?", id: why, max_length: 30}
"""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A web app that offers the talk, with a simulated replica."""
    folder = tmp_path_factory.mktemp("web")
    (folder / "talk.yaml").write_text(TALK)
    with replica(folder) as engine:
        web = processes.web_app(
            folder / "web.log",
            str(folder / "store"),
            talk=folder / "talk.yaml",
            inference_url=engine.url,
            environment={"CROWDSPIKE_API_KEYS": "off"},
        )
        try:
            web.wait_ready()
            yield web.url
        finally:
            web.end()


def plan(tool: str, code: str) -> Plan:
    return Plan(
        scenario="audience",
        loop="closed",
        start=0,
        stages=(Stage(PHONES, 1), Stage(PHONES, LONGEST_S)),
        source=tool,
        work=tuple(Prompt(f"What is a pod, number {n}? And why?", 20) for n in range(7)),
        room=code,
        timeout_s=30,
    )


class Running:
    """A tool that has been fired, and what it has reported so far."""

    def __init__(self, tool: Tool) -> None:
        self.tool = tool
        self.reports: list[Report] = []
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for report in self.tool.reports():
            self.reports.append(report)

    @property
    def points(self) -> list[Point]:
        return [report for report in self.reports if isinstance(report, Point)]

    def served(self, kind: str) -> list[Point]:
        return [point for point in self.points if point.kind == kind and not point.error]

    async def until(self, kind: str, count: int) -> None:
        async with asyncio.timeout(30):
            while len(self.served(kind)) < count:
                assert not self._reading.done(), await self.tool.ending()
                await asyncio.sleep(0.05)

    async def end(self) -> None:
        await self.tool.stop()
        await self._reading
        await self.tool.ending()


@pytest.mark.parametrize("name", TOOLS)
async def test_phones_go_through_a_talk_and_the_room_has_every_answer_once(url: str, tmp_path: Path, name: str) -> None:
    presenter = Presenter([url], TOKEN)
    code = await drive.make_room(url, TOKEN)
    made = plan(name, code)
    (tmp_path / "plan.json").write_text(made.to_json())
    job = Job(made, url, tmp_path, environment={"ANSWER_WITHIN_S": "0.5"})
    tool = TOOLS[name](job)
    await tool.arm()
    run = Running(tool)
    try:
        await tool.fire()
        await run.until("join", PHONES)
        answered = replied = 0
        for activity, asks in (("one", True), ("several", True), ("ask", True), ("survey", False)):
            await presenter.control(code, "goto", activity=activity)
            await presenter.control(code, "open")
            answered, replied = answered + PHONES, replied + PHONES * asks
            await run.until("answer", answered)
            await run.until("reply", replied)
            await presenter.control(code, "close")
        export = await presenter.export(code)
        metrics = (await presenter.metrics()).decode()
    finally:
        await run.end()
    sent = [record for record in export if record["type"] in ("answered", "asked", "surveyed")]
    assert len(sent) == answered
    assert set(Counter((r["participant"], r["activity"]) for r in sent).values()) == {1}
    assert all(record["scripted"] and record["counts"] for record in export if record in sent)
    assert {r["response"] for r in sent if r["type"] == "asked"} <= {one.text for one in made.work}
    forms = [r["response"] for r in sent if r["type"] == "surveyed"]
    assert all(
        {"stars", "pace", "why"} <= form.keys() and form["pace"] in ("slow & steady", "it's fast") for form in forms
    )
    _check_points(run, name)
    _check_sources(metrics, name, replied)


def _check_points(run: Running, name: str) -> None:
    assert [r.text for r in run.reports if isinstance(r, Trouble)] == []
    assert sum(isinstance(r, Began) for r in run.reports) == 1
    points = run.points
    assert Counter(p.error for p in points) == {"": len(points)}
    assert {p.kind for p in points} == {"join", "poll", "screen", "answer", "reply"}
    assert {p.by for p in points} == {name}
    assert {p.n for p in points if p.kind == "join"} == set(range(PHONES))
    assert all(p.sent_s <= p.headers_s <= p.ended_s for p in points if p.headers_s is not None and p.kind != "reply")
    replies = [p for p in points if p.kind == "reply"]
    if name == "locust":
        assert all(p.first_by == "token" and p.sent_s <= p.first_s <= p.ended_s for p in replies)
    else:
        assert all(p.first_s is None and p.sent_s <= p.ended_s for p in replies)
    out = Counter((r.n, r.kind) for r in run.reports if isinstance(r, Sent))
    assert all(out[key] >= count for key, count in Counter((p.n, p.kind) for p in points).items())
    assert any(p.status == 304 for p in points if p.kind == "poll")


def _check_sources(metrics: str, name: str, replied: int) -> None:
    """By the gateway's own count."""
    counted: Counter[str] = Counter()
    for labels, value in re.findall(r"^crowdspike_gateway_requests_total\{(.*)\} (\S+)$", metrics, re.MULTILINE):
        counted[re.search(r'source="(\w+)"', labels)[1]] += int(float(value))
    assert counted[name] == replied
    assert not counted["audience"]
