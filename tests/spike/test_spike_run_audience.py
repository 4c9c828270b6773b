"""What a run of phones needs of its room: it is made, led through its talk, and named in the folder. Real k6."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from loadgen.presenter import Presenter
from loadgen.processes import TOKEN, Process
from loadgen.spike import folder
from loadgen.spike.drive import DriveFailed
from loadgen.spike.order import Order
from loadgen.spike.plan import Plan, Prompt, Stage
from loadgen.spike.preflight import Target
from loadgen.spike.progress import Progress
from loadgen.spike.run import run
from tests.processes import replica, web_app

PATIENCE_S = 60
PHONES = 3
PLAN = Plan("audience", "closed", PHONES, (Stage(PHONES, 6.0),), "k6", work=(Prompt("Why?", 8),))


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    path = tmp_path_factory.mktemp("web")
    with replica(path) as engine, web_app(path, str(path / "store"), inference_url=engine.url) as process:
        process.wait_ready()
        yield process


def order(web: Process, path: Path, token: str) -> Order:
    what = Target(url=web.url, model="", models=(), holds_headers=True, simulated=False, what="crowdspike")
    return Order(plan=PLAN, tool="k6", target=what, folder=path, presenter_token=token)


async def nobody() -> AsyncIterator[str]:
    await asyncio.Event().wait()
    yield ""


async def test_an_audience_without_a_room_gets_one_that_is_led_through_its_talk(web: Process, tmp_path: Path) -> None:
    over = asyncio.Event()

    async def stop() -> AsyncIterator[str]:
        await over.wait()  # a phone may think about its answer for longer than this test has
        yield "stop"

    def said(progress: Progress) -> None:
        if progress.state == "draining":
            over.set()

    outcome = await asyncio.wait_for(run(order(web, tmp_path, TOKEN), stop(), said), PATIENCE_S)
    code = outcome.summary.about.room
    assert code and folder.read_run(tmp_path).plan.room == code
    assert outcome.problems == ()
    assert outcome.summary.kinds["join"].served == PHONES
    presenter = Presenter([web.url], TOKEN)
    assert (await presenter.state(code))["activity"] is not None, "nobody led the room out of its lobby"
    presenter.close()


async def test_without_the_presenters_token_nothing_is_sent(web: Process, tmp_path: Path) -> None:
    with pytest.raises(DriveFailed, match="CROWDSPIKE_PRESENTER_TOKEN"):
        await run(order(web, tmp_path, "wrong"), nobody(), lambda _: None)
    assert not os.listdir(tmp_path)
