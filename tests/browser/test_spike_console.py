"""The presenter fires a load run from the console and watches it: real k6, the demo's own gateway and cluster."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import LAPTOP, PROJECTOR, SMALL_PHONE, Guest, Room, assert_accessible, picture

PATIENCE_MS = 60_000
"""Until a tool is loaded, or a report written, on a busy machine."""


def panel(page: Page) -> Any:
    return page.locator("#spike")


def choose(page: Page) -> None:
    panel(page).locator("#spike-choose > summary").click()
    panel(page).locator("#spike-more > summary").click()


def arm(page: Page, peak: int, seconds: int) -> None:
    choose(page)
    panel(page).get_by_label("Peak").fill(str(peak))
    panel(page).get_by_label("Seconds").fill(str(seconds))
    panel(page).get_by_role("button", name="Arm").click()
    expect(panel(page).get_by_role("button", name="Fire")).to_be_enabled(timeout=PATIENCE_MS)


def control_log(room: Room) -> list[dict[str, Any]]:
    paths = sorted((room.demo.store / "rooms" / room.code / "control").glob("*.json"))
    return [json.loads(path.read_text()) for path in paths]


def no_run(room: Room) -> None:
    """Stops what a failed test left, so that the next one has its target."""
    for spike in room.demo.call("GET", f"/present/{room.code}/spikes")["spikes"]:
        room.demo.call("DELETE", f"/present/{room.code}/spikes/{spike['id']}")


@pytest.fixture(autouse=True)
def _nothing_runs_on(room: Room) -> Any:
    yield
    no_run(room)


def test_the_presenter_fires_a_spike_watches_it_and_reads_its_report_offline(
    console: Guest, stage: Guest, guest: Any, room: Room, tmp_path: Path
) -> None:
    page = console.page
    room.control("next")
    expect(stage.page.locator(".strip-qr")).to_be_visible()
    cluster = guest(PROJECTOR)
    cluster.page.goto(f"{room.stage_url}?show=cluster")
    arm(page, peak=6, seconds=15)
    expect(panel(page)).to_contain_text("Spike · k6 · 6 requests/s for 15 s")
    expect(stage.page.locator(".stage-badge-spike")).to_have_count(0)
    assert_accessible(page, "console with an armed run")
    picture(page, "spike-armed")

    panel(page).get_by_role("button", name="Fire").click()
    expect(panel(page).get_by_role("status")).to_have_text("Running")
    expect(panel(page).get_by_role("button", name="Stop")).to_be_visible()
    mark = stage.page.locator(".stage-badge-spike")
    expect(mark).to_contain_text("Spike · k6 · 6 requests/s for 15 s")
    expect(mark).to_contain_text("scripted load")
    expect(stage.page.locator(".cl-feed")).to_contain_text("Load begins: Spike")
    served = panel(page).locator("dl > div").filter(has_text="Served a second").locator("dd")
    expect(served).not_to_have_text("0.0", timeout=PATIENCE_MS)
    expect(cluster.page.locator(".stage-badge-spike")).to_be_visible()
    picture(cluster.page, "spike-stage-cluster")
    assert_accessible(page, "console with a run under way")
    assert_accessible(stage.page, "stage with a run under way")
    picture(page, "spike-running")
    picture(stage.page, "spike-stage")

    report = panel(page).get_by_role("link", name=re.compile("^Save it"))
    expect(report).to_be_visible(timeout=PATIENCE_MS)
    expect(mark).to_have_count(0)
    picture(page, "spike-ended")
    with page.expect_download() as download:
        report.click()
    saved = tmp_path / "report.html"
    download.value.save_as(saved)

    events = control_log(room)
    assert [event["type"] for event in events[1:]] == ["spikearmed", "spikefired", "spikeended"]
    ended = events[-1]
    assert ended["served"] > 10
    assert ended["kept"]
    summary = room.demo.call("GET", f"/present/{room.code}/spikes/{ended['spike']}/summary.json")
    assert summary["counts"]["served"] == ended["served"]
    assert summary["verdict"]["verdict"] == ended["verdict"]

    reader = guest(LAPTOP)
    reader.page.context.set_offline(True)
    reader.page.goto(saved.as_uri())
    expect(reader.page.locator("body")).to_contain_text(re.compile(ended["verdict"], re.IGNORECASE))
    picture(reader.page, "spike-report-offline")

    opened = guest(LAPTOP)
    opened.page.goto(f"{room.demo.url}/present?token={room.demo.token}")
    opened.page.goto(f"{room.demo.url}/present/{room.code}/spikes/{ended['spike']}/report")
    expect(opened.page.locator("body")).to_contain_text(re.compile(ended["verdict"], re.IGNORECASE))


def test_figures_move_and_stop_ends_the_run_at_once(console: Guest, guest: Any, room: Room) -> None:
    page = console.page
    arm(page, peak=5, seconds=300)
    panel(page).get_by_role("button", name="Fire").focus()
    page.keyboard.press("Enter")
    expect(panel(page).get_by_role("status")).to_have_text("Running")
    expect(page.locator("#spike-title")).to_be_focused()
    moving = panel(page).locator("dl > div").filter(has_text="Sent a second").locator("dd")
    expect(moving).not_to_have_text("0.0", timeout=PATIENCE_MS)
    small = guest(SMALL_PHONE)
    small.page.goto(f"{room.demo.url}/present?token={room.demo.token}")
    small.page.goto(room.console_url)
    expect(panel(small.page).get_by_role("button", name="Stop")).to_be_visible()
    assert_accessible(small.page, "console at 320 px with a run under way")
    panel(small.page).scroll_into_view_if_needed()
    picture(small.page, "spike-running-320")
    panel(small.page).get_by_role("button", name="Stop").click()
    expect(panel(page)).to_contain_text("was stopped", timeout=PATIENCE_MS)
    assert [event["type"] for event in control_log(room)][-2:] == ["spikestopped", "spikeended"]
    choose(small.page)
    expect(panel(small.page).get_by_role("button", name="Arm")).to_be_visible()
    assert_accessible(small.page, "console at 320 px with a choice")
    picture(small.page, "spike-choose-320")


def test_another_target_has_to_be_confirmed(console: Guest, room: Room) -> None:
    page = console.page
    choose(page)
    panel(page).get_by_label("Target", exact=True).fill("http://127.0.0.1:9")
    panel(page).get_by_role("button", name="Arm").click()
    expect(page.get_by_role("alert")).to_contain_text("not this room's own gateway")
    panel(page).get_by_role("checkbox", name="I may put load").check()
    panel(page).get_by_role("button", name="Arm").click()
    expect(panel(page)).to_contain_text("did not run", timeout=PATIENCE_MS)
    assert_accessible(page, "console after a refused target")


def test_a_run_works_without_javascript(guest: Any, room: Room) -> None:
    plain = guest(LAPTOP, java_script_enabled=False)
    plain.page.goto(f"{room.demo.url}/present?token={room.demo.token}")
    plain.page.goto(room.console_url)
    panel(plain.page).locator("#spike-choose > summary").click()
    panel(plain.page).get_by_role("button", name="Arm").click()
    panel(plain.page).get_by_role("button", name="Disarm").click()
    expect(panel(plain.page).get_by_role("status")).to_have_text(re.compile("Ending|None"))
