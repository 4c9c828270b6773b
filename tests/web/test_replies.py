"""That a reply reaches its phone whole: over a link that breaks, after a restart, and only that phone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from callers import Phone, Web, listening, web_on
from replica import BREAK, END, Replica, running

from webapp.replies import MAX_MAKINGS

PATIENCE_S = 15


@dataclass(frozen=True)
class Event:
    name: str
    data: object
    id: str


class Stream:
    """A reply as a phone hears it."""

    def __init__(self, response: httpx.Response) -> None:
        self._lines = response.aiter_lines()
        self.last_id = ""

    async def next(self) -> Event:
        """The next event that is no place in line."""
        while (event := await self._event()).name == "line":
            pass
        return event

    async def _event(self) -> Event:
        fields: dict[str, str] = {}
        async for line in self._lines:
            if not line and fields:
                self.last_id = fields.get("id", self.last_id)
                return Event(fields["event"], json.loads(fields["data"]), self.last_id)
            name, _, value = line.partition(": ")
            if name:
                fields[name] = value
        raise AssertionError("the stream ended")

    async def line(self) -> Event:
        """The next event, a place in line or not."""
        return await self._event()

    async def rest(self) -> tuple[list[str], Event]:
        """The texts up to the end, and the event that ends them."""
        texts = []
        while (event := await self.next()).name == "delta":
            texts.append(event.data)
        return texts, event


class Listener:
    """A phone over TCP."""

    def __init__(self, phone: Phone, url: str) -> None:
        cookie = f"crowdspike_phone={phone.http.cookies['crowdspike_phone']}"
        self._http = httpx.AsyncClient(base_url=url, headers={"cookie": cookie}, timeout=PATIENCE_S)

    @asynccontextmanager
    async def stream(self, path: str, last_id: str = "") -> AsyncIterator[Stream]:
        headers = {"last-event-id": last_id} if last_id else {}
        async with asyncio.timeout(PATIENCE_S), self._http.stream("GET", path, headers=headers) as response:
            assert response.status_code == 200
            assert response.headers["content-type"].startswith("text/event-stream")
            yield Stream(response)


@dataclass
class Room:
    web: Web
    code: str
    replica: Replica
    url: str

    async def ask(self) -> tuple[Phone, str]:
        """A phone that asked something, and where its reply is."""
        phone = await self.web.join(self.code)
        response = await phone.send("ask", question="Why?")
        return phone, response.json()["reply"]


@pytest.fixture
async def replica() -> Replica:
    return Replica()


@pytest.fixture
async def room(tmp_path: Path, replica: Replica) -> AsyncIterator[Room]:
    """A room that may be asked, on a server with one replica."""
    async with running(replica) as upstream, web_on(tmp_path, inference_url=upstream) as web, listening(web) as url:
        code = await web.room()
        await web.start(code, "ask")
        yield Room(web, code, replica, url)
        replica.say(END)


async def test_a_reply_streams_as_it_is_made_and_is_kept(room: Room) -> None:
    phone, path = await room.ask()
    listener = Listener(phone, room.url)
    async with listener.stream(path) as stream:
        room.replica.say("Be", "cause")
        texts = [(await stream.next()).data]
        room.replica.say(" of pods.", END)
        rest, end = await stream.rest()
    assert "".join(texts + rest) == "Because of pods."
    assert (end.name, end.data) == ("done", {"failed": False})
    assert "Because of pods." in (await phone.get("screen")).text
    async with listener.stream(path) as stream:
        assert await stream.rest() == (["Because of pods."], Event("done", {"failed": False}, stream.last_id))
    assert len(room.replica.asked) == 1


async def test_a_stream_that_broke_goes_on_where_it_stopped(room: Room) -> None:
    phone, path = await room.ask()
    listener = Listener(phone, room.url)
    heard, last_id = "", ""
    for words in (("Pods ",), ("are ", "groups "), ("ö of 👩‍💻 ",)):
        async with listener.stream(path, last_id) as stream:
            room.replica.say(*words)
            while not heard.endswith(words[-1]):
                event = await stream.next()
                assert event.name == "delta"
                heard += event.data
            last_id = stream.last_id
    room.replica.say("containers.", END)
    async with listener.stream(f"{path}?after={last_id}") as stream:  # as a page does, which cannot set the header
        rest, end = await stream.rest()
    assert heard + "".join(rest) == "Pods are groups ö of 👩‍💻 containers."
    assert end.name == "done"


@pytest.mark.parametrize("cursor", ["{}:²", "{}:-1", "{}:999999", "{}:", "{}", "other:3", "::", "²"])
async def test_a_made_up_place_in_the_stream_breaks_nothing(room: Room, cursor: str) -> None:
    phone, path = await room.ask()
    listener = Listener(phone, room.url)
    async with listener.stream(path) as stream:
        room.replica.say("Pods.")
        await stream.next()
        making = stream.last_id.partition(":")[0]
    async with listener.stream(path, cursor.format(making).encode("latin-1")) as stream:
        room.replica.say(END)
        while (event := await stream.next()).name != "done":
            assert event.data in (None, "Pods.")


async def test_a_reply_that_ended_meanwhile_is_told_from_the_start(room: Room) -> None:
    phone, path = await room.ask()
    listener = Listener(phone, room.url)
    async with listener.stream(path) as stream:
        room.replica.say("Pods ")
        await stream.next()
        last_id = stream.last_id
    room.replica.say("are groups.", END)
    async with listener.stream(path) as stream:
        await stream.rest()
    async with listener.stream(path, last_id) as stream:
        assert (await stream.next()).name == "restart"
        texts, end = await stream.rest()
    assert ("".join(texts), end.name) == ("Pods are groups.", "done")


async def test_no_other_phone_can_hear_a_reply(room: Room) -> None:
    _, path = await room.ask()
    other = await room.web.join(room.code)
    for client in (other.http, room.web.client(), room.web.presenter):
        response = await client.get(path)
        assert response.status_code == (404 if client is other.http else 401)


async def test_after_a_restart_the_phone_starts_over_and_hears_all(tmp_path: Path, replica: Replica) -> None:
    async with running(replica) as upstream:
        async with web_on(tmp_path, inference_url=upstream) as web:
            code = await web.room()
            await web.start(code, "ask")
            async with listening(web) as url:
                phone, path = await Room(web, code, replica, url).ask()
                async with Listener(phone, url).stream(path) as stream:
                    replica.say("Half of")
                    await stream.next()
                    last_id = stream.last_id
        async with web_on(tmp_path, inference_url=upstream) as web, listening(web) as url:
            async with Listener(phone, url).stream(path, last_id) as stream:
                assert (await stream.next()).name == "restart"
                replica.say("A whole", " reply.", END)
                texts, end = await stream.rest()
            assert ("".join(texts), end.name) == ("A whole reply.", "done")
            assert web.front.parts.rooms.peek(code).state.reply(phone.participant, path.rpartition("/")[2])


async def test_without_a_replica_a_reply_waits_in_a_line_that_is_shown(tmp_path: Path) -> None:
    async with web_on(tmp_path) as web, listening(web) as url:
        code = await web.room()
        await web.start(code, "ask")
        room = Room(web, code, Replica(), url)
        for place in (1, 2):
            phone, path = await room.ask()
            async with Listener(phone, url).stream(path) as stream:
                event = await stream.line()
            assert (event.name, event.data) == ("line", {"state": "warming", "position": place})


async def test_a_reply_that_fails_says_so_and_is_not_made_again(room: Room) -> None:
    phone, path = await room.ask()
    listener = Listener(phone, room.url)
    async with listener.stream(path) as stream:
        room.replica.say(END)
        texts, end = await stream.rest()
    assert (texts, end.data) == ([], {"failed": True})
    async with listener.stream(path) as stream:
        assert (await stream.rest())[1].data == {"failed": True}
    assert len(room.replica.asked) == 1


async def test_a_reply_whose_replica_is_lost_begins_again(room: Room) -> None:
    phone, path = await room.ask()
    async with Listener(phone, room.url).stream(path) as stream:
        room.replica.say("Half of a")
        assert (await stream.next()).data == "Half of a"
        room.replica.say(BREAK)
        assert (await stream.next()).name == "restart"
        room.replica.say("A whole", " reply.", END)
        texts, end = await stream.rest()
    assert ("".join(texts), end.data) == ("A whole reply.", {"failed": False})
    assert len(room.replica.asked) == 2


async def test_a_reply_that_breaks_off_each_time_ends(room: Room) -> None:
    phone, path = await room.ask()
    async with Listener(phone, room.url).stream(path) as stream:
        for _ in range(MAX_MAKINGS):
            room.replica.say("Half of a", BREAK)
        while (event := await stream.next()).name != "done":
            pass
    assert event.data == {"failed": True}
    assert len(room.replica.asked) == MAX_MAKINGS


async def test_a_comment_on_an_answer_is_asked_for_without_the_solution(room: Room) -> None:
    phone = await room.web.join(room.code)
    await room.web.start(room.code, "q1")
    response = await phone.send("q1", choice="a")
    async with Listener(phone, room.url).stream(response.json()["reply"]) as stream:
        room.replica.say("A bold choice.", END)
        texts, _ = await stream.rest()
    assert texts == ["A bold choice."]
    (prompt,) = room.replica.asked
    assert "Choice: Alpha" in prompt
    assert "correct" not in prompt.lower()
    assert "Beta follows" not in prompt


async def test_when_the_server_stops_open_streams_end(tmp_path: Path, replica: Replica) -> None:
    async with running(replica) as upstream, web_on(tmp_path, inference_url=upstream) as web:
        code = await web.room()
        await web.start(code, "ask")
        async with listening(web) as url:
            phone, path = await Room(web, code, replica, url).ask()
            async with Listener(phone, url).stream(path) as stream:
                replica.say("Half of")
                await stream.next()
                web.front.parts.stopping.set()
                with pytest.raises(AssertionError, match="the stream ended"):
                    await stream.next()
        replica.say(END)
