"""Real Chromium against the real program: `crowdspike demo` on a free port, with its simulated replica."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

ROOT = Path(__file__).resolve().parents[2]
SCREENSHOTS = ROOT / "screenshots"
AXE = ROOT / "node_modules/axe-core/axe.min.js"
PHONE_HOST = "quiz.test"
PHONE = {"width": 390, "height": 844}
SMALL_PHONE = {"width": 320, "height": 640}
PROJECTOR = {"width": 1920, "height": 1080}
LAPTOP = {"width": 1280, "height": 800}


@dataclass
class Demo:
    """A running demo. `code` is the room that it opened."""

    url: str
    code: str
    token: str
    process: subprocess.Popen[str]
    store: Path

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        request = urllib.request.Request(
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"content-type": "application/json", "authorization": f"Bearer {self.token}"},
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            text = answer.read().decode()
            return json.loads(text) if answer.headers["content-type"] == "application/json" else text

    def room(self) -> Room:
        return Room(self, self.call("POST", "/present/rooms", {"talk": "0"})["code"])


@dataclass
class Room:
    demo: Demo
    code: str

    def control(self, action: str, **fields: object) -> Any:
        return self.demo.call("POST", f"/present/{self.code}/control", {"action": action, **fields})

    def records(self) -> list[dict[str, Any]]:
        text = self.demo.call("GET", f"/api/rooms/{self.code}/export?format=jsonl")
        return [json.loads(line) for line in text.splitlines()]

    @property
    def stage_url(self) -> str:
        return f"{self.demo.url}/stage/{self.code}"

    @property
    def join_url(self) -> str:
        # Not localhost, and without TLS: what a phone in a rehearsal gets, where browsers offer a page less.
        return f"{self.demo.url.replace('127.0.0.1', PHONE_HOST)}/j/{self.code}"

    @property
    def console_url(self) -> str:
        return f"{self.demo.url}/present/{self.code}"


expect.set_options(timeout=15_000)  # a bound for a busy machine, not an expectation


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def start_demo(folder: Path, port: int, **environment: str) -> Demo:
    out, store = folder / "demo.out", str(folder / "store")
    with out.open("a") as log:
        start = out.stat().st_size
        process = subprocess.Popen(
            [sys.executable, "-m", "webapp.cli", "demo", "--host", "127.0.0.1", "--port", str(port), "--store", store],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
        )
    until = time.monotonic() + 30
    while "Ctrl-C" not in (text := out.read_bytes()[start:].decode()):
        assert process.poll() is None and time.monotonic() < until, f"the demo did not start:\n{text}"
        time.sleep(0.05)
    code, token = re.search(r"room (\w{4})", text), re.search(r"token=(\w+)", text)
    assert code and token
    return Demo(f"http://127.0.0.1:{port}", code[1], token[1], process, Path(store))


def stop(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=15)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    running = start_demo(tmp_path_factory.mktemp("demo"), free_port())
    yield running
    stop(running.process)


@pytest.fixture
def room(demo: Demo) -> Room:
    """A room of its own for each test, of the sample talk."""
    return demo.room()


@pytest.fixture(scope="session")
def browser_type_launch_args(browser_type_launch_args: dict) -> dict:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    hosts = f"--host-resolver-rules=MAP {PHONE_HOST} 127.0.0.1"
    flags = [hosts, "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    return {**browser_type_launch_args, "args": flags, **({"executable_path": found} if found else {})}


class Watch:
    """What a page must never do: throw, log an error, or trip over its content security policy."""

    def __init__(self, context: BrowserContext) -> None:
        self.problems: list[str] = []
        self.allowed: tuple[str, ...] = ()
        context.on("weberror", lambda error: self.problems.append(str(error.error)))
        context.on("console", lambda m: self.problems.append(m.text) if m.type == "error" else None)

    def check(self) -> None:
        left = [p for p in self.problems if not any(word in p for word in self.allowed)]
        assert not left, left


@dataclass
class Guest:
    """One browser with its context: a phone, a projector or a laptop."""

    page: Page
    watch: Watch

    @property
    def context(self) -> BrowserContext:
        return self.page.context

    def offline(self, on: bool = True) -> None:
        self.watch.allowed += ("net::ERR", "Failed to load resource", "Failed to fetch")
        self.context.set_offline(on)


@pytest.fixture
def guest(browser: Browser) -> Iterator[Any]:
    """Opens a browser of a given size; at the end each must have been without an error."""
    guests: list[Guest] = []

    def make(size: dict, **options: Any) -> Guest:
        context = browser.new_context(viewport=size, reduced_motion="reduce", **options)
        context.set_default_timeout(15_000)
        opened = Guest(context.new_page(), Watch(context))
        guests.append(opened)
        return opened

    yield make
    for one in guests:
        one.context.close()
    for one in guests:
        one.watch.check()


@pytest.fixture
def phone(guest: Any, room: Room) -> Any:
    """Opens a phone that has joined the room with one tap."""

    def join(size: dict = PHONE, **options: Any) -> Guest:
        one = guest(size, **options)
        one.page.goto(room.join_url)
        one.page.get_by_role("button", name=re.compile("^Join as")).click()
        one.page.locator("#screen").wait_for()
        return one

    return join


@pytest.fixture
def console(guest: Any, room: Room) -> Guest:
    one = guest(LAPTOP)
    one.page.goto(f"{room.demo.url}/present?token={room.demo.token}")
    one.page.goto(room.console_url)
    return one


@pytest.fixture
def stage(guest: Any, room: Room) -> Guest:
    one = guest(PROJECTOR)
    one.page.goto(room.stage_url)
    return one


def whole_reply(page: Page) -> Locator:
    """The model's text on a phone, once it is complete."""
    expect(page.locator(".reply").first).not_to_have_attribute("aria-busy", "true")
    text = page.locator(".reply-text").locator("visible=true").first
    expect(text).to_have_text(re.compile(r"\w"))
    return text


def picture(page: Page, name: str) -> None:
    SCREENSHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=page.viewport_size["width"] < 1000)


def assert_accessible(page: Page, where: str) -> None:
    """No violation of any axe rule, and no sideways scrolling."""
    page.evaluate(AXE.read_text())
    result = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    found = [(v["id"], v["nodes"][0]["html"][:200], v["nodes"][0]["failureSummary"]) for v in result["violations"]]
    assert not found, f"{where}: {found}"
    wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0, f"{where}: {wide} px too wide"
