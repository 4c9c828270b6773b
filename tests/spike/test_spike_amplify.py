"""That each question of a room is repeated as often as was asked for, no more and no less, and marked as amplified."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from loadgen import processes
from loadgen.presenter import Presenter
from loadgen.processes import TOKEN
from loadgen.spike.plan import Plan, Prompt, Stage
from loadgen.spike.point import Point, Trouble
from loadgen.spike.tools.tool import Job
from loadgen.spike.tools.toolbox import TOOLS
from webapp.server import listen

COPIES = 4
PATIENCE_S = 30
TALK = """\
title: A talk
activities:
  - ask: Ask the model
    id: ask
"""


class Replica:
    """Counts the prompts that come without a persona: those of the room's own replies have one."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.app = Starlette(
            routes=[
                Route("/health", lambda request: Response()),
                Route("/v1/models", lambda request: JSONResponse({"data": [{"id": "stub"}]})),
                Route("/v1/chat/completions", self._chat, methods=["POST"]),
            ]
        )

    async def _chat(self, request: Request) -> Response:
        messages = (await request.json())["messages"]
        if len(messages) == 1:
            self.asked[messages[0]["content"]] += 1
        parts = ({"delta": {"content": "Yes."}}, {"delta": {}, "finish_reason": "stop"})
        events = [json.dumps({"choices": [{"index": 0, **part}]}) for part in parts]
        return StreamingResponse((f"data: {e}\n\n" for e in [*events, "[DONE]"]), media_type="text/event-stream")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        sock = listen("127.0.0.1", 0)
        server = uvicorn.Server(uvicorn.Config(self.app, lifespan="off", log_config=None))
        task = asyncio.create_task(server._serve(sockets=[sock]))
        try:
            yield f"http://127.0.0.1:{sock.getsockname()[1]}"
        finally:
            server.should_exit = True
            await task
            sock.close()


@asynccontextmanager
async def web_app(folder: Path, replica_url: str) -> AsyncIterator[str]:
    (folder / "talk.yaml").write_text(TALK)
    web = processes.web_app(
        folder / "web.log",
        str(folder / "store"),
        talk=folder / "talk.yaml",
        inference_url=replica_url,
        environment={"CROWDSPIKE_API_KEYS": "off"},
    )
    try:
        await asyncio.to_thread(web.wait_ready)
        yield web.url
    finally:
        await asyncio.to_thread(web.end)


async def ask(url: str, code: str, question: str) -> None:
    """As somebody who has just joined."""
    async with httpx.AsyncClient(base_url=f"{url}/r/{code}", headers={"accept": "application/json"}) as phone:
        assert (await phone.post("/join", json={})).status_code == 201
        form = {"response_id": "question-1", "activity_id": "ask", "question": question}
        assert (await phone.post("/responses", json=form)).status_code == 200


def plan(code: str) -> Plan:
    return Plan(
        scenario="amplify",
        loop="closed",
        start=COPIES,
        stages=(Stage(COPIES, 4),),
        source="amplified",
        work=(Prompt("not this", 8),),
        room=code,
        copies=COPIES,
    )


@pytest.mark.parametrize("name", TOOLS)
async def test_each_question_is_sent_by_every_copy_once_those_too_that_come_later(tmp_path: Path, name: str) -> None:
    replica = Replica()
    async with replica.running() as replica_url, web_app(tmp_path, replica_url) as url:
        presenter = Presenter([url], TOKEN)
        code = await presenter.make_room()
        await presenter.control(code, "goto", activity="ask")
        await presenter.control(code, "open")
        for n in range(3):
            await ask(url, code, f"Question {n}?")
        made = plan(code)
        (tmp_path / "plan.json").write_text(made.to_json())
        tool = TOOLS[name](Job(made, url, tmp_path, presenter_token=TOKEN))
        await tool.arm()
        points: list[Point] = []
        try:
            await tool.fire()
            async with asyncio.timeout(PATIENCE_S):
                async for report in tool.reports():
                    assert not isinstance(report, Trouble), report
                    if isinstance(report, Point):
                        points.append(report)
                        if len(points) == 1:
                            await ask(url, code, "Question 3?")
                            await ask(url, code, "Question 4?")
        finally:
            tool.kill()
            await tool.ending()
        metrics = (await presenter.metrics()).decode()
    assert replica.asked == {f"Question {n}?": COPIES for n in range(5)}
    assert Counter((p.kind, p.by, p.status, p.error, p.due_s) for p in points) == {
        ("completion", name, 200, "", None): 5 * COPIES
    }
    assert len({p.n for p in points}) == 5 * COPIES
    counted = dict(
        re.findall(r'^crowdspike_gateway_requests_total\{.*source="(\w+)".*\} (\S+)$', metrics, re.MULTILINE)
    )
    assert counted == {"amplified": f"{5 * COPIES}.0", "audience": "5.0"}


async def test_a_wrong_presenter_token_is_said(tmp_path: Path) -> None:
    replica = Replica()
    async with replica.running() as replica_url, web_app(tmp_path, replica_url) as url:
        code = await Presenter([url], TOKEN).make_room()
        made = replace(plan(code), stages=(Stage(COPIES, 1),))
        (tmp_path / "plan.json").write_text(made.to_json())
        for name in TOOLS:
            tool = TOOLS[name](Job(made, url, tmp_path, presenter_token="another"))
            await tool.arm()
            try:
                await tool.fire()
                async with asyncio.timeout(PATIENCE_S):
                    told = [report.text async for report in tool.reports() if isinstance(report, Trouble)]
            finally:
                tool.kill()
                await tool.ending()
            assert told, name
            assert all(f"the questions of room {code}: 401" in text for text in told), told
    assert not replica.asked
