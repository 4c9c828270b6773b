"""The report and the replay in real Chromium: a room's record as people look at it afterwards."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import LAPTOP, PHONE, PROJECTOR, ROOT, assert_accessible, picture, stop


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("record")
    # In a process of its own, as Playwright keeps a loop in this one.
    writing = "import asyncio, sys, pathlib\nfrom tests.recordings import *\nfrom webapp.log.local import LocalStore\n"
    writing += "asyncio.run(store_in(LocalStore(pathlib.Path(sys.argv[1])), talk(), lines()))"
    subprocess.run([sys.executable, "-c", writing, str(folder)], cwd=ROOT, check=True)
    return folder


@pytest.fixture(scope="module")
def report(store: Path) -> str:
    path = store / "report.html"
    command = [sys.executable, "-m", "webapp.cli", "report", "KWXM", "--store", str(store), "-o", str(path)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=60)
    return path.as_uri()


@dataclass
class Showing:
    url: str
    process: subprocess.Popen[str]


@pytest.fixture
def replay(store: Path) -> Iterator[Showing]:
    """At a tenth of its speed: it is the keys that move it on here."""
    command = [sys.executable, "-m", "webapp.cli", "replay", "KWXM", "--store", str(store)]
    process = subprocess.Popen([*command, "--port", "0", "--speed", "0.1"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    found = re.search(r"http://\S+", process.stdout.readline())
    assert found, "it did not start"
    yield Showing(found[0], process)
    stop(process)


@pytest.mark.parametrize("size", [LAPTOP, PHONE], ids=["laptop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_report_is_read_by_everyone_and_asks_for_nothing(guest: Any, report: str, size: dict, scheme: str) -> None:
    one = guest(size, color_scheme=scheme)
    asked: list[str] = []
    one.page.on("request", lambda request: asked.append(request.url))
    one.page.goto(report)
    expect(one.page.get_by_role("img", name="Queue metric against its target")).to_be_visible()
    one.page.get_by_text("Everything that happened").click()
    expect(one.page.get_by_text("Node node-b is ready")).to_be_visible()
    background = one.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(16, 17, 22)")  # its sheet was let in
    assert_accessible(one.page, f"report {scheme}")
    assert asked == [report]
    one.page.screenshot(path=ROOT / "screenshots" / f"report-{scheme}-{size['width']}.png", full_page=True)


def test_report_prints_dark_on_light(guest: Any, report: str) -> None:
    one = guest(LAPTOP, color_scheme="dark")
    one.page.emulate_media(media="print")
    one.page.goto(report)
    assert one.page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"


def badge(page: Page, part: str) -> Any:
    return page.locator(f"[data-replay={part}]")


def press_and_see_anew(page: Page, key: str) -> None:
    """Back in time the page is drawn anew."""
    with page.expect_event("load"):
        page.keyboard.press(key)
    expect(page.locator("#replay[data-live]")).to_be_visible()


def test_replay_is_marked_and_goes_where_its_keys_say(guest: Any, replay: Showing) -> None:
    one = guest(PROJECTOR)
    page = one.page
    page.goto(replay.url)
    expect(page).to_have_title("Replay, 0.1× · A sample · KWXM")
    expect(page.locator("#replay[data-live]")).to_be_visible()
    expect(badge(page, "title")).to_have_text("Replay, 0.1×")
    expect(page.locator("#screen")).to_contain_text("people are here")
    expect(page.locator(".lobby-qr")).to_be_hidden()
    page.keyboard.press("Space")
    expect(badge(page, "state")).to_have_text("paused")
    page.keyboard.press("ArrowRight")
    expect(badge(page, "position")).to_have_text(re.compile("^0:30 of 4:59"))
    expect(page.locator("#screen")).to_contain_text("Which letter is second?")
    for position in ("1:00", "1:30", "2:00", "2:30"):
        page.keyboard.press("ArrowRight")
        expect(badge(page, "position")).to_have_text(re.compile(f"^{position}"))
    expect(page.locator("#cluster")).to_contain_text("Pod vllm-c is ready")
    expect(page.locator(".cl-steps")).to_contain_text("T+44 s")
    assert_accessible(page, "replay")
    picture(page, "replay")
    press_and_see_anew(page, "ArrowLeft")
    expect(badge(page, "position")).to_have_text(re.compile("^2:00"))
    expect(page.locator(".cl-lines")).not_to_contain_text("Pod vllm-c is ready")
    press_and_see_anew(page, "Home")
    expect(page.locator("#screen")).to_contain_text("people are here")
    page.keyboard.press("+")
    expect(page).to_have_title("Replay, 0.5× · A sample · KWXM")
    one.watch.allowed = ("net::ERR", "Failed to fetch")  # the server goes before the page does


def test_two_screens_show_the_same_moment(guest: Any, replay: Showing) -> None:
    one, other = guest(PROJECTOR), guest(LAPTOP)
    for opened in (one, other):
        opened.page.goto(replay.url)
        expect(opened.page.locator("#replay[data-live]")).to_be_visible()
    one.page.keyboard.press("Space")
    one.page.keyboard.press("ArrowRight")
    for opened in (one, other):
        expect(badge(opened.page, "state")).to_have_text("paused")
        expect(opened.page.locator("#screen")).to_contain_text("Which letter is second?")
        expect(badge(opened.page, "position")).to_have_text(re.compile("^0:3"))
    assert badge(one.page, "position").text_content() == badge(other.page, "position").text_content()
    for opened in (one, other):
        opened.watch.allowed = ("net::ERR", "Failed to fetch")  # the server goes before they do
