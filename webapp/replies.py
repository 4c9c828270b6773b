"""The LLM's replies to what phones sent: made once, streamed to the phone as often as it connects, stored at the end.

A reply goes on when its phone sleeps. Event ids are `{making}:{characters sent}`, so that a phone that comes back gets
the rest; after a restart, or when the replica was lost in the midst of it, another making begins, and the phone is told
to start over.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from webapp import prompts
from webapp.errors import NotSaved
from webapp.gateway.errors import GatewayError
from webapp.live_room import LiveRoom
from webapp.room.events import Answered, Asked, Replied, Response
from webapp.talk.model import Quiz

log = logging.getLogger("crowdspike.replies")

HEARTBEAT_S = 10.0
COALESCE_S = 0.08
TAKE_OVER_AFTER_S = 3.0
"""How long a process waits for another's reply before it makes its own: the other may have been killed."""
MAX_LIVE = 10_000
MAX_MAKINGS = 3
STREAM_MAX_S = 600.0


class Ticket(Protocol):
    """One request in the gateway, see webapp.gateway.gateway."""

    @property
    def position(self) -> int: ...
    @property
    def state(self) -> str: ...
    def deltas(self) -> AsyncIterator[str]: ...
    async def aclose(self) -> None: ...


Ask = Callable[..., Ticket]


class LiveReply:
    """A reply that is being made: all text so far, and an event for whoever streams it."""

    def __init__(self, ticket: Ticket) -> None:
        self.done = False
        self.failed = False
        self.grown = asyncio.Condition()
        self.begin(ticket)

    def begin(self, ticket: Ticket) -> None:
        """Another making, from nothing."""
        self.making = secrets.token_hex(3)
        self.ticket = ticket
        self.text = ""

    async def grow(self, text: str = "", done: bool = False, failed: bool = False) -> None:
        self.text += text
        self.done, self.failed = self.done or done, self.failed or failed
        async with self.grown:
            self.grown.notify_all()


class Replies:
    """All replies that this process makes. `ask(body, source=…)` opens a request in the gateway."""

    def __init__(self, ask: Ask, clock: Callable[[], int]) -> None:
        self._ask = ask
        self._clock = clock
        self._live: dict[tuple[str, str], LiveReply] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def texts(self, room: LiveRoom) -> dict[str, str]:
        """`participant:response id` to the text so far, for the replies of one room that are being made here."""
        return {key: reply.text for (code, key), reply in self._live.items() if code == room.info.code}

    def start(self, room: LiveRoom, response: Response) -> None:
        """Begins the reply to a stored response, unless it is made or being made."""
        slot = (room.info.code, response.key)
        if slot in self._live or room.state.reply(response.participant, response.id) or len(self._live) >= MAX_LIVE:
            return
        body = _body(room, response)
        if body is None:
            return
        source = room.state.source(response.participant)
        reply = LiveReply(self._ask(body, source=source))
        self._live[slot] = reply
        task = asyncio.create_task(self._make(room, response, body, source, reply))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _make(self, room: LiveRoom, response: Response, body: dict, source: str, reply: LiveReply) -> None:
        makings = 1
        try:
            while True:
                try:
                    await self._stream(room, response, reply)
                    break
                except GatewayError as error:
                    # Until the first token the gateway itself has tried again; it is only what came later that can
                    # be begun anew.
                    if not reply.text or error.status < 500 or makings == MAX_MAKINGS:
                        raise
                    log.warning("a reply in room %s begins again: %s", room.info.code, error)
                makings += 1
                reply.begin(self._ask(body, source=source))
        except GatewayError as error:
            log.warning("no reply in room %s: %s", room.info.code, error)
            reply.failed = True
        except Exception:
            log.exception("no reply in room %s", room.info.code)
            reply.failed = True
        finally:
            await reply.ticket.aclose()
        text = reply.text.strip()
        event = Replied(
            id=f"reply-{response.id}",
            participant=response.participant,
            at_ms=self._clock(),
            to=response.id,
            text=text,
            failed=reply.failed or not text,
        )
        await self._store(room, event)
        await reply.grow(done=True, failed=event.failed)
        self._live.pop((room.info.code, response.key), None)

    async def _stream(self, room: LiveRoom, response: Response, reply: LiveReply) -> None:
        async for text in reply.ticket.deltas():
            await reply.grow(text)
            if isinstance(response, Asked):
                room.notify()

    async def _store(self, room: LiveRoom, event: Replied) -> None:
        while True:
            try:
                return await room.append(event)
            except NotSaved:
                await asyncio.sleep(1)

    async def stream(
        self, room: LiveRoom, response: Response, last_event_id: str, stopping: asyncio.Event
    ) -> AsyncIterator[bytes]:
        """Server-sent events: `line` (state and place in line), `delta` (a JSON string), `restart`, `done`."""
        slot = (room.info.code, response.key)
        reply = self._live.get(slot)
        if reply is None:
            async for event in self._wait_for_other(room, response, stopping):
                yield event
            reply = self._live.get(slot)
        if reply is None:
            stored = room.state.reply(response.participant, response.id)
            if stored is not None:
                yield _whole(stored.text, stored.failed, last_event_id)
            return
        async for event in _follow(reply, last_event_id, stopping):
            yield event

    async def _wait_for_other(
        self, room: LiveRoom, response: Response, stopping: asyncio.Event
    ) -> AsyncIterator[bytes]:
        """Until the log has the reply, or this process begins to make it."""
        loop = asyncio.get_running_loop()
        take_over_at = loop.time() + TAKE_OVER_AFTER_S
        async for _ in room.changes(0.5, stopping):
            if room.state.reply(response.participant, response.id):
                return
            if loop.time() >= take_over_at:
                self.start(room, response)
                return
            yield _event("line", {"state": "waiting", "position": 0})

    async def close(self) -> None:
        """Ends what is being made; phones that come back have it made again."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _body(room: LiveRoom, response: Response) -> dict | None:
    match response:
        case Answered():
            quiz = room.state.talk.activity(response.activity)
            return prompts.comment(room.state.talk, quiz, response.choice) if isinstance(quiz, Quiz) else None
        case Asked():
            return prompts.answer(room.state.talk, response.question)
    return None


async def _follow(reply: LiveReply, last_event_id: str, stopping: asyncio.Event) -> AsyncIterator[bytes]:
    making, _, count = last_event_id.partition(":")
    sent = min(int(count), len(reply.text)) if making == reply.making and count.isdecimal() else 0
    if last_event_id and making != reply.making:
        yield _event("restart", None)
    loop = asyncio.get_running_loop()
    end_at, quiet_since, line = loop.time() + STREAM_MAX_S, loop.time(), None
    making = reply.making
    while not stopping.is_set() and loop.time() < end_at:
        if making != reply.making:
            making, sent = reply.making, 0
            yield _event("restart", None)
        elif sent < len(reply.text):
            text, sent = reply.text[sent:], len(reply.text)
            yield _event("delta", text, f"{reply.making}:{sent}")
            quiet_since = loop.time()
        elif reply.done:
            yield _event("done", {"failed": reply.failed}, f"{reply.making}:{sent}")
            return
        elif not reply.text and (reply.ticket.state, reply.ticket.position) != line:
            line = (reply.ticket.state, reply.ticket.position)
            yield _event("line", {"state": line[0], "position": line[1]})
            quiet_since = loop.time()
        elif loop.time() - quiet_since >= HEARTBEAT_S:
            yield b": beat\n\n"
            quiet_since = loop.time()
        await asyncio.sleep(COALESCE_S)
        if sent == len(reply.text) and not reply.done:
            async with reply.grown:
                try:
                    await asyncio.wait_for(reply.grown.wait(), 1.0)
                except TimeoutError:
                    continue


def _whole(text: str, failed: bool, last_event_id: str) -> bytes:
    """A stored reply, for a phone that came back later than its end."""
    restart = _event("restart", None) if last_event_id else b""
    return restart + _event("delta", text, f"log:{len(text)}") + _event("done", {"failed": failed})


def _event(name: str, data: object, event_id: str = "") -> bytes:
    id_line = f"id: {event_id}\n" if event_id else ""
    return f"{id_line}event: {name}\ndata: {json.dumps(data)}\n\n".encode()
