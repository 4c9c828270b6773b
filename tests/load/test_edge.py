"""A crowd behind an HTTP cache: one poll a second reaches the web app, and nothing private is ever kept."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import pytest

from loadgen.edge import edge, poll
from loadgen.http import Client
from loadgen.presenter import Presenter
from loadgen.processes import TOKEN, Process
from tests.processes import web_app

pytestmark = pytest.mark.skipif(
    not (shutil.which("nginx") or shutil.which("/usr/sbin/nginx")),
    reason="needs nginx: scripts/apt-install nginx-light",
)
JSON = {"content-type": "application/json", "accept": "application/json"}


@dataclass
class Edge:
    cache: Process
    presenter: Presenter
    code: str

    def client(self) -> Client:
        return Client([self.cache.url])


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Process, Process]]:
    folder = tmp_path_factory.mktemp("edge")
    with web_app(folder, str(folder / "store")) as web:
        web.wait_ready()
        with edge(web.url) as cache:
            yield web, cache


@pytest.fixture
async def room(servers: tuple[Process, Process]) -> AsyncIterator[Edge]:
    web, cache = servers
    presenter = Presenter([web.url], TOKEN)
    yield Edge(cache, presenter, await presenter.make_room())
    presenter.close()


async def test_a_crowd_costs_the_web_app_about_one_poll_a_second(room: Edge) -> None:
    loop = asyncio.get_running_loop()
    before, started = await room.presenter.state_polls(), loop.time()
    polls = await poll(room.cache.url, f"/r/{room.code}/state", per_s=400, for_s=4, connections=40)
    took_s, reached = loop.time() - started, await room.presenter.state_polls() - before
    assert polls.answered == polls.due >= 1000
    assert polls.refused == polls.lost == 0
    assert 1 <= reached <= 2 * took_s + 3


async def test_polls_that_come_at_once_are_one_poll_of_the_web_app(room: Edge) -> None:
    clients = [room.client() for _ in range(50)]
    before = await room.presenter.state_polls()
    answers = await asyncio.gather(*(c.request("GET", f"/r/{room.code}/state") for c in clients))
    assert {(a.status, a.body) for a in answers} == {(200, answers[0].body)}
    assert await room.presenter.state_polls() - before <= 2
    for client in clients:
        client.close()


async def test_cookies_and_queries_neither_change_nor_enter_what_is_cached(room: Edge) -> None:
    client, path = room.client(), f"/r/{room.code}/state"
    plain = await client.request("GET", path)
    before = await room.presenter.state_polls()
    others = [
        await client.request("GET", path + query, {"cookie": cookie, "authorization": "Bearer x"})
        for cookie, query in (("crowdspike_phone=ann.1", ""), ("crowdspike_phone=ben.2", "?v=1"), ("a=b", "?v=2"))
    ]
    assert {answer.body for answer in others} == {plain.body}
    assert [answer.header("set-cookie") for answer in (plain, *others)] == [None] * 4
    assert {answer.header("x-cache") for answer in others} <= {"HIT", "STALE", "UPDATING"}
    assert await room.presenter.state_polls() - before <= 2
    unchanged = await client.request("GET", path, {"if-none-match": plain.header("etag") or ""})
    assert (unchanged.status, unchanged.body) == (304, b"")
    client.close()


async def test_a_change_reaches_those_who_poll_the_cache(room: Edge) -> None:
    client, path = room.client(), f"/r/{room.code}/state"
    version = await room.presenter.control(room.code, "next")
    async with asyncio.timeout(10):
        while json.loads((await client.request("GET", path)).body)["version"] != version:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    client.close()


async def test_what_a_phone_has_for_itself_is_never_cached(room: Edge) -> None:
    phones = [room.client() for _ in range(2)]
    await room.presenter.control(room.code, "goto", activity="cost")
    await room.presenter.control(room.code, "open")
    screens, receipts = [], []
    for number, phone in enumerate(phones):
        joined = await phone.request("POST", f"/r/{room.code}/join", JSON, b"{}")
        cookie = {"cookie": (joined.header("set-cookie") or "").partition(";")[0]}
        screens.append([await phone.request("GET", f"/r/{room.code}/screen?v=1", cookie) for _ in range(2)])
        body = {"response_id": f"response-{number}", "activity_id": "cost", "choice": "a"}
        receipts.append(
            await phone.request("POST", f"/r/{room.code}/responses", {**JSON, **cookie}, json.dumps(body).encode())
        )
        screens.append([await phone.request("GET", f"/r/{room.code}/screen?v=1", cookie)])
    everything = [answer for answers in screens for answer in answers] + receipts
    assert [answer.status for answer in everything] == [200] * 8
    assert {answer.header("x-cache") for answer in everything} == {"BYPASS"}
    assert {answer.header("cache-control") for answer in everything} == {"no-store"}
    assert [json.loads(receipt.body)["response_id"] for receipt in receipts] == ["response-0", "response-1"]
    nobody = room.client()
    assert (await nobody.request("GET", f"/r/{room.code}/screen?v=1", {"accept": "application/json"})).status == 401
    for client in (*phones, nobody):
        client.close()


async def test_streams_pass_through_at_once(room: Edge) -> None:
    events = room.client().events(f"/stage/{room.code}/events", {"accept": "text/event-stream"})
    async with asyncio.timeout(10):
        first = await anext(events)
        second = await anext(events)
    assert (first.name, second.name) == ("snapshot", "changed")
    await events.aclose()
