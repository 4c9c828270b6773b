"""The presenter's console: what it changes is seen where it should be, and a reload or another device finds it all."""

from __future__ import annotations

import re
from typing import Any

from playwright.sync_api import Page, expect

from tests.browser.conftest import LAPTOP, PHONE, SMALL_PHONE, Guest, Room, assert_accessible, picture


def screen(page: Page) -> Any:
    return page.locator("#screen")


def test_presenter_who_reloads_or_changes_device_finds_everything_as_it_was(
    console: Guest, guest: Any, room: Room, phone: Any
) -> None:
    phone()
    console.page.get_by_role("button", name="Start the talk").click()
    console.page.get_by_role("button", name=re.compile("^Open")).first.click()
    expect(screen(console.page)).to_contain_text(re.compile("answered"))
    console.page.reload()
    expect(console.page.get_by_role("button", name="Close").first).to_be_visible()
    other = guest(PHONE)
    other.page.goto(f"{room.demo.url}/present?token={room.demo.token}")
    assert "token" not in other.page.url
    other.page.goto(room.console_url)
    other.page.get_by_role("button", name="Close").first.click()
    expect(console.page.get_by_role("button", name="Reveal").first).to_be_visible()
    assert_accessible(other.page, "console on a phone")
    picture(other.page, "console-on-a-phone")


def test_console_fits_a_small_phone(console: Guest, guest: Any, room: Room, phone: Any) -> None:
    phone()
    small = guest(SMALL_PHONE)
    small.page.goto(f"{room.demo.url}/present?token={room.demo.token}")
    small.page.goto(room.console_url)
    assert_accessible(small.page, "console at 320 px")
    picture(small.page, "console-320")


def test_nickname_reaches_the_stage_only_when_approved(console: Guest, stage: Guest, phone: Any, room: Room) -> None:
    one = phone()
    given = one.page.locator("[data-nickname]").first.inner_text()
    one.page.locator("#nickname summary").click()
    one.page.get_by_label("Nickname", exact=True).fill("<b>Mallory</b>")
    one.page.get_by_role("button", name="Save nickname").click()
    expect(one.page.locator("body")).to_contain_text("<b>Mallory</b>")
    expect(screen(stage.page)).to_contain_text(given)
    expect(screen(stage.page)).not_to_contain_text("Mallory")
    row = console.page.locator("#moderation li").filter(has_text="Mallory")
    row.get_by_role("button", name=re.compile("^Approve")).first.click()
    expect(screen(stage.page)).to_contain_text("<b>Mallory</b>")


def test_removed_phone_is_told_and_its_answers_do_not_count(console: Guest, phone: Any, room: Room) -> None:
    one, two = phone(), phone()
    name = one.page.locator("[data-nickname]").first.inner_text()
    console.page.on("dialog", lambda dialog: dialog.accept())
    row = screen(console.page).locator("li").filter(has_text=name).last
    details = row.locator("details")
    if details.count():
        details.first.locator("summary").click()
    row.get_by_role("button", name=re.compile("^Remove")).click()
    room.control("next")
    expect(screen(one.page)).to_contain_text("no longer in this room")
    expect(screen(two.page)).to_contain_text("Get ready")


def test_locked_room_lets_nobody_new_in(console: Guest, guest: Any, phone: Any, room: Room) -> None:
    inside = phone()
    console.page.get_by_role("switch", name="Lock lobby").click()
    expect(console.page.get_by_role("switch", name="Lock lobby")).to_be_checked()
    newcomer = guest(PHONE)
    newcomer.page.goto(room.join_url)
    expect(newcomer.page.locator("body")).to_contain_text("locked")
    assert_accessible(newcomer.page, "locked room")
    inside.page.reload()
    expect(screen(inside.page)).to_be_visible()


def test_timer_can_be_extended_and_a_question_reopened(console: Guest, phone: Any, room: Room) -> None:
    one = phone()
    room.control("next")
    room.control("open")
    before = room.demo.call("GET", f"/r/{room.code}/state")["deadline_ms"]
    console.page.get_by_role("button", name="+15 s").click()
    expect(console.page.locator(f"[data-deadline='{before + 15_000}']").first).to_be_attached()
    expect(one.page.locator(f"[data-deadline='{before + 15_000}']").first).to_be_attached()
    console.page.get_by_role("button", name="Close").first.click()
    console.page.get_by_role("button", name="Reopen").first.click()
    expect(one.page.locator("#answer-form")).to_be_visible()


def test_double_tap_does_not_skip_two_steps(console: Guest, room: Room) -> None:
    console.page.get_by_role("button", name="Start the talk").dblclick()
    expect(console.page.get_by_role("button", name=re.compile("^Open")).first).to_be_visible()
    assert room.demo.call("GET", f"/r/{room.code}/state")["activity"] == "paged-attention"


def test_clicker_keys_drive_the_talk(console: Guest, room: Room) -> None:
    console.page.keyboard.press("PageDown")
    expect(console.page.get_by_role("button", name=re.compile("^Open")).first).to_be_visible()
    console.page.keyboard.press("PageDown")
    expect(console.page.get_by_role("button", name="Close").first).to_be_visible()


def test_export_and_new_room_of_the_same_talk(console: Guest, phone: Any, room: Room) -> None:
    phone()
    export = console.page.locator("a[href*='format=csv']").first
    console.page.locator("#room-more > summary").click()
    with console.page.expect_download() as download:
        export.click()
    assert download.value.path().read_text().startswith("at,type,participant")
    console.page.get_by_role("button", name=re.compile("New room", re.IGNORECASE)).click()
    console.page.wait_for_url(re.compile(r"/present/\w{4}$"))
    assert room.code not in console.page.url


def test_everything_works_without_javascript(guest: Any, room: Room) -> None:
    plain = guest(LAPTOP, java_script_enabled=False)
    plain.page.goto(f"{room.demo.url}/present?token={room.demo.token}")
    plain.page.goto(room.console_url)
    plain.page.get_by_role("button", name="Start the talk").click()
    plain.page.get_by_role("button", name=re.compile("^Open")).first.click()
    expect(plain.page.get_by_role("button", name="Close").first).to_be_visible()


def test_text_from_phones_is_shown_as_text_everywhere(
    console: Guest, stage: Guest, phone: Any, guest: Any, room: Room
) -> None:
    attack = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    for one in (console, stage):
        one.page.on("dialog", lambda dialog: (_ for _ in ()).throw(AssertionError("script ran")))
    one = phone()
    room.control("goto", activity="ask")
    room.control("open")
    one.page.locator("textarea").fill(attack)
    one.page.get_by_role("button", name="Ask").click()
    expect(one.page.locator(".history")).to_contain_text(attack)
    row = console.page.locator("#moderation li").filter(has_text="onerror")
    row.get_by_role("button", name=re.compile("^Approve")).first.click()
    expect(screen(stage.page)).to_contain_text(attack)
    for page in (one.page, console.page, stage.page):
        assert page.locator("#screen img[src=x], #screen script").count() == 0
