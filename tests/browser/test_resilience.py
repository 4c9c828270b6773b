"""Phones that lose their network, are reloaded or locked, and a server that is killed: nobody loses an answer."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import Any

from playwright.sync_api import expect

from tests.browser.conftest import PHONE, Guest, Room, free_port, start_demo, stop, whole_reply

FIRST = "paged-attention"


def open_first_question(room: Room) -> None:
    room.control("next")
    room.control("open")


def answers(room: Room) -> list[dict[str, Any]]:
    return [r for r in room.records() if r["type"] == "answered"]


def test_answer_given_offline_is_kept_through_a_reload_and_sent_once(phone: Any, room: Room) -> None:
    one: Guest = phone()
    open_first_question(room)
    button = one.page.locator("button[name=choice][value=b]")
    expect(button).to_be_visible()
    one.offline()
    button.click()
    status = one.page.locator("[data-outbox-status]")
    expect(status).to_contain_text("kept on this phone")
    expect(one.page.locator("#screen")).not_to_contain_text("Saved")
    assert answers(room) == []
    one.offline(False)
    one.page.reload()
    expect(one.page.locator("#screen")).to_contain_text("Saved")
    assert [(a["response"], a["counts"]) for a in answers(room)] == [(["The KV cache"], True)]


def test_answer_that_comes_back_too_late_is_told_so_and_shown_the_reveal(phone: Any, room: Room) -> None:
    one: Guest = phone()
    open_first_question(room)
    button = one.page.locator("button[name=choice][value=b]")
    expect(button).to_be_visible()
    one.offline()
    button.click()
    room.control("close")
    one.page.wait_for_timeout(1200)  # the second of grace for answers that were under way
    room.control("reveal")
    one.offline(False)
    expect(one.page.locator("[data-notice]")).to_contain_text("Too late")
    expect(one.page.locator("#screen")).to_contain_text("You did not answer this one")
    assert answers(room) == []


def test_half_read_reply_goes_on_after_the_network_was_lost(phone: Any, room: Room) -> None:
    one: Guest = phone()
    while room.control("next")["type"] == "moved":
        if "ask" in room.demo.call("GET", f"/r/{room.code}/state")["kind"]:
            break
    room.control("open")
    one.page.locator("textarea").fill("What is continuous batching?")
    one.page.get_by_role("button", name="Ask").click()
    reply = one.page.locator("[data-reply]")
    expect(reply).to_have_text(re.compile(r"\w+ \w+ \w+"))
    one.offline()
    half = reply.inner_text()
    one.page.wait_for_timeout(1000)
    one.offline(False)
    whole = whole_reply(one.page).inner_text()
    stored = next(r["reply"] for r in room.records() if r["type"] == "asked")
    assert whole == stored, "nothing is missing and nothing came twice"
    assert whole.startswith(half) and len(whole) > len(half)


def test_link_that_drops_every_second_or_two_still_carries_a_question_and_its_reply(phone: Any, room: Room) -> None:
    one: Guest = phone()
    room.control("goto", activity="ask")
    room.control("open")
    one.page.locator("textarea").fill("How does Karpenter choose an instance type?")
    one.page.get_by_role("button", name="Ask").click()
    for _ in range(6):
        one.offline()
        one.page.wait_for_timeout(700)
        one.offline(False)
        one.page.wait_for_timeout(1300)
    whole = whole_reply(one.page).inner_text()
    stored = [r for r in room.records() if r["type"] == "asked"]
    assert len(stored) == 1
    assert whole == stored[0]["reply"]


def test_presenter_is_told_when_the_store_fails_and_the_answer_is_saved_when_it_is_back(
    console: Guest, phone: Any, room: Room
) -> None:
    one: Guest = phone()
    open_first_question(room)
    button = one.page.locator("button[name=choice][value=b]")
    expect(button).to_be_visible()
    folder = room.demo.store / "rooms" / room.code / "responses"
    away = folder.with_name("away")
    folder.rename(away)
    folder.write_text("in the way")
    one.watch.allowed += ("503",)
    button.click()
    expect(one.page.locator("[data-outbox-status]")).to_contain_text("kept on this phone")
    expect(console.page.locator("[data-connection]")).to_contain_text("The store does not answer")
    folder.unlink()
    away.rename(folder)
    expect(one.page.locator("#screen")).to_contain_text("Saved", timeout=20_000)
    expect(console.page.locator("[data-connection]")).to_be_hidden()
    assert len(answers(room)) == 1


def test_same_person_comes_back_after_closing_the_page(phone: Any, room: Room) -> None:
    one: Guest = phone()
    name = one.page.locator("[data-nickname]").first.inner_text()
    open_first_question(room)
    one.page.locator("button[name=choice][value=b]").click()
    expect(one.page.locator("#screen")).to_contain_text("Saved")
    again = one.context.new_page()
    one.page.close()
    again.goto(room.join_url)
    expect(again.locator("#screen")).to_contain_text("Saved")
    expect(again.locator("[data-nickname]").first).to_have_text(name)
    assert sum(1 for r in room.records() if r["type"] == "joined") == 1


def test_draft_of_a_survey_survives_a_reload(phone: Any, room: Room) -> None:
    one: Guest = phone()
    room.control("goto", activity="feedback")
    room.control("open")
    one.page.locator("textarea").fill("Half a thought")
    one.page.reload()
    expect(one.page.locator("textarea")).to_have_value("Half a thought")


def test_hammering_the_button_counts_once(phone: Any, room: Room) -> None:
    one: Guest = phone()
    open_first_question(room)
    expect(one.page.locator("button[name=choice]").first).to_be_visible()
    one.page.evaluate(
        "for (const b of [...document.querySelectorAll('button[name=choice]')]) for (let i = 0; i < 5; i++) b.click()"
    )
    expect(one.page.locator("#screen")).to_contain_text("Saved")
    one.page.wait_for_timeout(500)
    assert len(answers(room)) == 1


def test_phones_and_stage_go_on_by_themselves_when_the_server_is_killed(guest: Any, tmp_path: Path) -> None:
    port = free_port()
    demo = start_demo(tmp_path, port, CROWDSPIKE_PRESENTER_TOKEN="atokenforthistest")
    room = Room(demo, demo.code)
    try:
        one, projector = guest(PHONE), guest({"width": 1280, "height": 720})
        for each in (one, projector):
            each.watch.allowed = ("net::ERR", "Failed to load resource", "NetworkError", "Failed to fetch", "htmx")
        projector.page.goto(room.stage_url)
        one.page.goto(room.join_url)
        one.page.get_by_role("button", name=re.compile("^Join as")).click()
        open_first_question(room)
        button = one.page.locator("button[name=choice][value=b]")
        expect(button).to_be_visible()
        demo.process.send_signal(signal.SIGKILL)
        demo.process.wait()
        button.click()
        expect(one.page.locator("[data-outbox-status]")).to_contain_text("kept on this phone")
        again = start_demo(tmp_path, port, CROWDSPIKE_PRESENTER_TOKEN="atokenforthistest")
        room.demo = again
        expect(one.page.locator("#screen")).to_contain_text("Saved", timeout=30_000)
        expect(projector.page.locator("#screen")).to_contain_text(re.compile(r"1\s+of\s+1"), timeout=30_000)
        assert len(answers(room)) == 1
    finally:
        stop(room.demo.process)
