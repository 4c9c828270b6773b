"""Phones in a room: `locust -f loadgen/locustfiles/audience.py --host http://127.0.0.1:8000 --room KWXM --peak 50`.

Each joins, polls the state, fetches its screen when that has changed, fills in whatever form is open (a quiz, a
question to the LLM, a survey) and reads the reply as it comes. The room marks them as scripted. Somebody has to lead
the room: a presenter, or `crowdspike spike audience`. `PLAN=plan.json` says how many phones there are, and when.
"""

from __future__ import annotations

import html
import http.client
import json
import os
import re
import secrets
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from random import Random
from urllib.parse import urlsplit

import gevent
from gevent import Timeout
from locust import FastHttpUser, task
from locust.contrib.fasthttp import FastResponse
from locust.env import Environment
from locust.exception import StopUser

from loadgen.locustfiles import _course
from loadgen.locustfiles._load import BY
from loadgen.locustfiles._turns import turn_s
from loadgen.spike.point import Kind, Point, Sent
from loadgen.spike.probe import no_connection, tls, too_late

# As static/js/phone.js and static/js/outbox.js have them.
POLL_S = 1.0
SPREAD_S = 0.5
LONGEST_WAIT_S = 8.0
FINAL = frozenset({400, 401, 403, 404, 409, 410, 413, 415, 422})
ANSWER_WITHIN_S = float(os.environ.get("ANSWER_WITHIN_S", "10"))  # and before the time is up
LATE = 409
READ_TRIES = 3
ERROR_CHARS = 200
JSON = {"accept": "application/json"}

_FORM = re.compile(r"<form [^>]*data-outbox>(.*?)</form>", re.DOTALL)
_CHOICE = re.compile(r'<(?:input|button)[^>]* name="([^"]+)" value="([^"]*)"')
_TEXT = re.compile(r'<textarea[^>]* name="([^"]+)"[^>]* maxlength="(\d+)"')
_CLOCK = re.compile(r'data-now="(\d+)"[^>]* data-deadline="(\d+)"')


class Shape(_course.Shape):
    scenario = "audience"


@dataclass(frozen=True, slots=True)
class Form:
    """An open form on a phone's screen: the values to choose from, and how long a text may be, by field; how long it
    will be open, None for as long as the presenter likes."""

    activity: str
    choices: dict[str, list[str]]
    texts: dict[str, int]
    left_s: float | None


@dataclass(slots=True)
class Heard:
    """What has come of a reply. `last_id` is where a broken stream goes on."""

    status: int = 0
    headers_s: float | None = None
    first_s: float | None = None
    last_id: str = ""
    error: str = ""


class Phone(FastHttpUser):
    connection_timeout = network_timeout = 8.0

    def __init__(self, environment: Environment) -> None:
        self.insecure = environment.parsed_options.insecure
        super().__init__(environment)

    def on_start(self) -> None:
        self.load = self.environment.load
        self.number = self.load.user_number()
        self.room = f"/r/{self.load.plan.room}"
        self.random = Random(f"{self.load.plan.seed}:{self.number}")
        self.client.client.default_headers["x-load-source"] = self.load.plan.source
        self.cookie, self.etag = "", ""
        self.state: dict = {"version": -1}
        self.version = -1
        self.misses = 0
        self.filled: set[str] = set()

    @task
    def live(self) -> None:
        """Joins, and polls from then on; longer after each that did not come through."""
        turn = turn_s(self.load.plan, self.number, self.load.at_s)
        if turn is None:
            raise StopUser
        self.load.wait_until(turn)
        heard = self.poll() if self.cookie else self.join()
        self.misses = 0 if heard else self.misses + 1
        gevent.sleep(POLL_S * min(8, 2**self.misses) * self.random.uniform(0.8, 1.2))

    def join(self) -> bool:
        sent_s = self.sent("join")
        answer = self.client.get(f"/j/{self.load.plan.room}", name="/j/[code]")
        if answer.status_code == 200:
            answer = self.client.post(f"{self.room}/join", json={}, headers=JSON, name="/r/[code]/join")
        self.ended("join", sent_s, answer)
        if answer.status_code == 201:
            self.cookie = answer.headers["set-cookie"].partition(";")[0]
        return bool(self.cookie)

    def poll(self) -> bool:
        headers = {"if-none-match": self.etag} if self.etag else {}
        sent_s = self.sent("poll")
        answer = self.client.get(f"{self.room}/state", headers=headers, name="/r/[code]/state")
        self.ended("poll", sent_s, answer)
        if answer.status_code == 200:
            self.etag, self.state = answer.headers.get("etag", ""), answer.json()
        if self.state["version"] > self.version:
            self.follow(self.state["version"])
        return answer.status_code in (200, 304)

    def follow(self, version: int) -> None:
        """Fetches the screen of a new version, and fills in its form a while later."""
        gevent.sleep(self.random.uniform(0, SPREAD_S))
        page = self.see(version)
        if page is None:
            return
        self.version = version
        form = form_of(page)
        if form is not None and form.activity not in self.filled:
            self.filled.add(form.activity)
            self.load.spawn(self.fill, form)

    def see(self, version: int) -> str | None:
        sent_s = self.sent("screen")
        answer = self.client.get(f"{self.room}/screen?v={version}", name="/r/[code]/screen")
        self.ended("screen", sent_s, answer)
        return answer.text if answer.status_code == 200 else None

    def fill(self, form: Form) -> None:
        most_s = ANSWER_WITHIN_S if form.left_s is None else min(ANSWER_WITHIN_S, 0.9 * form.left_s)
        gevent.sleep(self.random.uniform(0, most_s))
        if not self.is_open(form.activity):
            # The screen was ahead of the state. It is seen again, and filled in, when the state has caught up.
            self.filled.discard(form.activity)
        body = {"response_id": secrets.token_hex(12), "activity_id": form.activity, **self.filled_in(form)}
        pause_s = 0.5
        while self.load.at_s < self.load.plan.duration_s and self.is_open(form.activity):
            sent_s = self.sent("answer")
            answer = self.client.post(f"{self.room}/responses", json=body, headers=JSON, name="/r/[code]/responses")
            self.ended("answer", sent_s, answer)
            if answer.status_code == 200:
                if reply := answer.json()["reply"]:
                    self.load.spawn(self.read, reply, time.time())
                self.see(self.version)
            if answer.status_code == 200 or answer.status_code in FINAL:
                return
            told_s = float((answer.headers or {}).get("retry-after", 0))
            gevent.sleep(max(told_s, pause_s * self.random.uniform(0.7, 1.3)))
            pause_s = min(LONGEST_WAIT_S, 2 * pause_s)

    def is_open(self, activity: str) -> bool:
        return self.state.get("activity") == activity and self.state.get("phase") == "open"

    def filled_in(self, form: Form) -> dict[str, str]:
        """One value for each field, and the plan's words for each text."""
        words = self.load.plan.prompt(self.number).text
        texts = {name: words[:most] for name, most in form.texts.items()}
        return {name: self.random.choice(values) for name, values in form.choices.items()} | texts

    def read(self, path: str, acked_s: float) -> None:
        """The reply to its end, from when the answer was acknowledged; a broken stream goes on where it broke."""
        heard = Heard()
        self.environment.reports.say(Sent(self.number, acked_s, "reply"))
        self.load.under_way += 1
        try:
            with Timeout(self.load.plan.timeout_s):
                for left in reversed(range(READ_TRIES)):
                    self.read_on(path, heard)
                    if not heard.error or heard.status in FINAL or not left:
                        break
                    gevent.sleep(self.random.uniform(1, 3))
        except Timeout:
            heard.error = too_late(self.load.plan.timeout_s)
        finally:
            self.load.under_way -= 1
        point = Point(
            n=self.number,
            by=BY,
            kind="reply",
            sent_s=acked_s,
            headers_s=heard.headers_s,
            first_s=heard.first_s,
            first_by="" if heard.first_s is None else "token",
            ended_s=time.time(),
            status=heard.status,
            error=heard.error,
        )
        self.environment.reports.say(point)
        self.environment.events.request.fire(
            request_type="SSE",
            name="/r/[code]/replies",
            response_time=(point.ended_s - acked_s) * 1000,
            response_length=0,
            exception=heard.error or None,
            context={},
        )

    def read_on(self, path: str, heard: Heard) -> None:
        headers = {"cookie": self.cookie, "accept": "text/event-stream", "x-load-source": self.load.plan.source}
        headers |= {"last-event-id": heard.last_id} if heard.last_id else {}
        connection = self.connection()
        heard.error = "stream ended early"
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            heard.status, heard.headers_s = answer.status, heard.headers_s or time.time()
            if answer.status != 200:
                heard.error = str(answer.status)
                return
            for name, data, event_id in events(answer):
                heard.last_id = event_id or heard.last_id
                if name == "delta" and heard.first_s is None:
                    heard.first_s = time.time()
                elif name == "done":
                    heard.error = "the room got no reply" if json.loads(data)["failed"] else ""
                    return
        except OSError as error:
            heard.error = no_connection(error)
        except http.client.HTTPException:
            return
        finally:
            connection.close()

    def connection(self) -> http.client.HTTPConnection:
        parts, most_s = urlsplit(self.host), self.load.plan.timeout_s
        if parts.scheme == "https":
            return http.client.HTTPSConnection(parts.netloc, timeout=most_s, context=tls(self.insecure))
        return http.client.HTTPConnection(parts.netloc, timeout=most_s)

    def sent(self, kind: Kind) -> float:
        now_s = time.time()
        self.environment.reports.say(Sent(self.number, now_s, kind))
        return now_s

    def ended(self, kind: Kind, sent_s: float, answer: FastResponse) -> None:
        point = Point(
            n=self.number,
            by=BY,
            kind=kind,
            sent_s=sent_s,
            ended_s=time.time(),
            status=answer.status_code,
            error=refused(answer),
        )
        self.environment.reports.say(point)


def form_of(page: str) -> Form | None:
    """The open form; None when the screen has none."""
    found = _FORM.search(page)
    if found is None:
        return None
    choices: dict[str, list[str]] = {}
    for name, value in _CHOICE.findall(found[1]):
        choices.setdefault(name, []).append(html.unescape(value))
    activity = choices.pop("activity_id")[0]
    choices.pop("response_id")
    clock = _CLOCK.search(page)
    left_s = (int(clock[2]) - int(clock[1])) / 1000 if clock else None
    return Form(activity, choices, {name: int(most) for name, most in _TEXT.findall(found[1])}, left_s)


def events(lines: Iterable[bytes]) -> Iterator[tuple[str, str, str]]:
    """Name, data and id of each server-sent event, as they come; the id is empty when it has none."""
    name = data = event_id = ""
    for line in lines:
        key, _, value = line.decode().rstrip("\r\n").partition(": ")
        if key == "event":
            name = value
        elif key == "data":
            data = value
        elif key == "id":
            event_id = value
        elif not key and name:
            yield name, data, event_id
            name = data = event_id = ""


def refused(answer: FastResponse) -> str:
    """Why a request was not taken; empty when it was. An answer that comes too late for its question (409) is no
    failure: the room has told the phone so, as it should."""
    if answer.status_code == 0:
        error = answer.error
        return no_connection(error) if isinstance(error, OSError) else type(error).__name__
    if answer.status_code < 400 or answer.status_code == LATE:
        return ""
    try:
        told = answer.json()
        words = told.get("detail") or told.get("title") or ""
    except (ValueError, TypeError, AttributeError):
        words = ""
    return f"{answer.status_code} {words}".strip()[:ERROR_CHARS]
