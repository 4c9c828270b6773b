"""One scripted phone: does what the phone page's script does, and keeps a record of all that it was promised.

It joins, polls the state about once a second, fetches its screen when that changes, answers once, keeps the answer
until the server has it for good, and reads the reply. When a server dies it goes on by itself.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from collections import Counter
from collections.abc import Coroutine
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from random import Random

from loadgen.http import Answer, Client, Lost, Refused

# The same figures as in static/js/phone.js and static/js/outbox.js.
POLL_S = 1.0
SPREAD_S = 0.5
BEACON_S = 20.0
LONGEST_WAIT_S = 8.0
FINAL = frozenset({400, 401, 403, 404, 409, 410, 413, 415, 422})

_CHOICES = re.compile(rb'name="choice" value="(\w)"')
_JSON = {"accept": "application/json", "content-type": "application/json"}


@dataclass
class Habits:
    """How all phones of a crowd behave; may be changed while they run."""

    answer_within_s: float = 10.0
    answers: bool = True
    polls: bool = True
    beacons: bool = True


@dataclass
class Sent:
    """One response. Times are seconds of the event loop's clock; `status` is the final one, 0 while there is none."""

    id: str
    activity: str
    first_at: float
    acked_at: float | None = None
    status: int = 0
    tries: int = 0
    waits_told: int = 0
    """How often the server said 503 with a Retry-After."""
    reply: str = ""
    reply_done_at: float | None = None
    reply_failed: bool = False

    @property
    def acked(self) -> bool:
        return self.acked_at is not None


@dataclass
class Record:
    """What one phone saw. `known` and `shown` map a version to when the state, and then the screen, had it."""

    joined_at: float | None = None
    polls: int = 0
    screens: int = 0
    poll_ms: list[float] = field(default_factory=list)
    screen_ms: list[float] = field(default_factory=list)
    known: dict[int, float] = field(default_factory=dict)
    shown: dict[int, float] = field(default_factory=dict)
    sent: dict[str, Sent] = field(default_factory=dict)
    """By activity."""
    faults: Counter[str] = field(default_factory=Counter)
    """Requests that did not come through, by what came instead."""


class Phone:
    """A phone in the room `code`. Use `start`, then `close`; `record` grows meanwhile."""

    def __init__(self, client: Client, code: str, habits: Habits, random: Random) -> None:
        self.record = Record()
        self._client = client
        self._room = f"/r/{code}"
        self._habits = habits
        self._random = random
        self._cookie: dict[str, str] = {}
        self._etag = ""
        self._state: dict = {"version": -1, "phase": None}
        self._version = -1
        self._misses = 0
        self._choices: list[str] = []
        self._heard_again = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, after_s: float = 0.0) -> None:
        self._spawn(self._live(after_s))

    async def close(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome  # a mistake of ours, not of the server
        self._client.close()

    async def respond(self, activity: str, fields: dict[str, object]) -> Sent:
        """Sends one response until the server took it or refused it for good."""
        sent = Sent(secrets.token_hex(12), activity, _now())
        self.record.sent[activity] = sent
        body = json.dumps({"response_id": sent.id, "activity_id": activity, **fields}).encode()
        while not sent.status:
            sent.tries += 1
            pause_s = min(LONGEST_WAIT_S, 0.5 * 2 ** (sent.tries - 1))
            try:
                answer = await self._ask("POST", "/responses", {**_JSON, **self._cookie}, body)
            except Lost:
                await self._pause(pause_s)
                continue
            if answer.status == 200:
                sent.acked_at, sent.status = _now(), 200
                reply = json.loads(answer.body)["reply"]
                if reply:
                    self._spawn(self._read_reply(reply, sent))
            elif answer.status in FINAL:
                sent.status = answer.status
            else:
                told_s = answer.header("retry-after")
                sent.waits_told += answer.status == 503 and told_s is not None
                await self._pause(max(pause_s, float(told_s or 0)))
        return sent

    async def see(self, version: int) -> bool:
        """Fetches the screen. Whether it came."""
        started = _now()
        try:
            answer = await self._ask("GET", f"/screen?v={max(version, 0)}", self._cookie)
        except Lost:
            return False
        if answer.status != 200:
            return False
        self.record.screens += 1
        self.record.screen_ms.append((_now() - started) * 1000)
        self.record.shown.setdefault(version, _now())
        self._choices = sorted(set(choice.decode() for choice in _CHOICES.findall(answer.body)))
        return True

    # ---- what goes on by itself

    async def _live(self, after_s: float) -> None:
        await asyncio.sleep(after_s)
        while not await self._join():
            self._misses += 1
            await asyncio.sleep(self._poll_pause_s())
        self._misses = 0
        self._spawn(self._beacon())
        await asyncio.sleep(self._random.uniform(0, POLL_S))
        while True:
            if self._habits.polls:
                await self._poll()
            await asyncio.sleep(self._poll_pause_s())

    async def _join(self) -> bool:
        try:
            answer = await self._ask("POST", "/join", _JSON, b"{}")
        except Lost:
            return False
        if answer.status != 201:
            return False
        self._cookie = {"cookie": (answer.header("set-cookie") or "").partition(";")[0]}
        self.record.joined_at = _now()
        return True

    async def _poll(self) -> None:
        started = _now()
        try:
            answer = await self._ask("GET", "/state", {"if-none-match": self._etag} if self._etag else {})
        except Lost:
            self._misses += 1
            return
        if answer.status not in (200, 304):
            self._misses += 1
            return
        self.record.polls += 1
        self.record.poll_ms.append((_now() - started) * 1000)
        if self._misses:
            self._misses = 0
            self._heard_again.set()
            self._heard_again = asyncio.Event()
        if answer.status == 200:
            self._etag = answer.header("etag") or ""
            self._state = json.loads(answer.body)
        if self._state["version"] > self._version:
            await self._follow(self._state)

    async def _follow(self, state: dict) -> None:
        version = state["version"]
        self.record.known.setdefault(version, _now())
        await asyncio.sleep(self._random.uniform(0, SPREAD_S))
        if not await self.see(version):
            return
        self._version = version
        activity = state["activity"]
        if self._habits.answers and state["phase"] == "open" and self._choices and activity not in self.record.sent:
            self._spawn(self._answer(activity, self._random.choice(self._choices)))

    async def _answer(self, activity: str, choice: str) -> None:
        await asyncio.sleep(self._random.uniform(0, self._habits.answer_within_s))
        sent = await self.respond(activity, {"choice": choice})
        if sent.acked:
            await self.see(self._version)

    async def _read_reply(self, path: str, sent: Sent) -> None:
        last_id = ""
        while sent.reply_done_at is None:
            headers = {**self._cookie, "accept": "text/event-stream"}
            if last_id:
                headers["last-event-id"] = last_id
            try:
                async with aclosing(self._client.events(path, headers)) as events:
                    async for event in events:
                        last_id = event.id or last_id
                        if event.name == "delta":
                            sent.reply += json.loads(event.data)
                        elif event.name == "restart":
                            sent.reply = ""
                        elif event.name == "done":
                            sent.reply_failed = json.loads(event.data)["failed"]
                            sent.reply_done_at = _now()
                            break
            except Lost:
                self.record.faults["reply lost"] += 1
            except Refused as refused:
                self.record.faults[f"reply {refused.status}"] += 1
            if sent.reply_done_at is None:
                await asyncio.sleep(self._random.uniform(1, 3))

    async def _beacon(self) -> None:
        await asyncio.sleep(self._random.uniform(0, BEACON_S))
        while True:
            if self._habits.beacons and self.record.poll_ms:
                body = json.dumps({"rtt_ms": round(self.record.poll_ms[-1]), "misses": min(self._misses, 10)}).encode()
                with suppress(Lost):
                    await self._ask("POST", "/presence", {**_JSON, **self._cookie}, body)
            await asyncio.sleep(BEACON_S)

    # ---- small steps

    async def _ask(self, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> Answer:
        try:
            answer = await self._client.request(method, self._room + path, headers, body)
        except Lost:
            self.record.faults["lost"] += 1
            raise
        if answer.status >= 400:
            self.record.faults[str(answer.status)] += 1
        return answer

    async def _pause(self, pause_s: float) -> None:
        """Waits before the next try, or until the server is heard again after it was not."""
        heard = self._heard_again
        try:
            await asyncio.wait_for(heard.wait(), pause_s * self._random.uniform(0.7, 1.3))
        except TimeoutError:
            return

    def _poll_pause_s(self) -> float:
        return POLL_S * min(8, 2**self._misses) * self._random.uniform(0.8, 1.2)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or task.exception() is None:
            self._tasks.discard(task)  # one that failed stays, for `close` to raise its error


def _now() -> float:
    return asyncio.get_running_loop().time()
