"""A presenter and four phones go through the whole sample talk. axe looks at every page and phase."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import PHONE, SMALL_PHONE, Guest, Room, assert_accessible, picture, whole_reply
from webapp.talk.model import Ask, Quiz, Raffle, Survey
from webapp.talk.samples import sample_talk

TALK = sample_talk()


class Show:
    """All screens of one run, and what is done on each of them at every step."""

    def __init__(self, room: Room, console: Guest, stage: Guest, phones: list[Guest], scheme: str) -> None:
        self.room, self.console, self.stage, self.phones, self.scheme = room, console, stage, phones, scheme
        self.step = 0

    def press(self, name: str | re.Pattern[str], expected: str | re.Pattern[str]) -> None:
        """The presenter presses a button in the console; the stage shows `expected`."""
        self.console.page.get_by_role("button", name=name).first.click()
        expect(self.stage.page.locator("#screen")).to_contain_text(expected)

    def look(self, name: str) -> None:
        self.step += 1
        version = self.room.demo.call("GET", f"/r/{self.room.code}/state")["version"]
        for phone in self.phones:
            expect(phone.page.locator("#screen")).to_have_attribute("data-version", str(version))
        for who, guest in (("stage", self.stage), ("console", self.console), ("phone", self.phones[0])):
            where = f"{self.step:02d}-{name}-{who}-{self.scheme}"
            picture(guest.page, where)
            assert_accessible(guest.page, where)
        assert_fits(self.stage.page)


def assert_fits(page: Page) -> None:
    """The stage never scrolls."""
    tall = page.evaluate("document.documentElement.scrollHeight - document.documentElement.clientHeight")
    assert tall <= 0, f"the stage is {tall} px too tall"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_whole_talk_with_three_phones_and_one_without_javascript(
    guest: Any, phone: Any, room: Room, console: Guest, stage: Guest, scheme: str
) -> None:
    for screen in (console, stage):
        screen.page.emulate_media(color_scheme=scheme)
    steady = phone(PHONE, color_scheme=scheme)
    shaky = phone(SMALL_PHONE, color_scheme=scheme)
    plain = phone(PHONE, java_script_enabled=False)
    show = Show(room, console, stage, [steady], scheme)
    expect(stage.page.locator("#screen")).to_contain_text("3 joined")
    show.look("lobby")
    late: Guest | None = None
    quizzes = 0
    show.press("Start the talk", "Get ready")
    for index, activity in enumerate(TALK.activities):
        match activity:
            case Quiz():
                quizzes += 1
                if quizzes == 2:
                    late = phone(PHONE, color_scheme=scheme)
                    expect(late.page.locator("#screen")).to_contain_text("Get ready")
                everyone = [steady, shaky, *([late] if late else [])]
                _quiz(show, activity, everyone, plain, first=quizzes in (1, 6, 10))
            case Ask():
                _ask(show, activity, steady, plain)
            case Survey():
                _survey(show, activity, steady, shaky, plain)
            case Raffle():
                assert late is not None
                _raffle(show, activity, [steady, shaky, late])
        if index + 1 < len(TALK.activities):
            following = TALK.activities[index + 1]
            ready = "Get ready" if isinstance(following, Quiz) else following.title
            show.press(re.compile("^Next"), ready)
    _end(show, guest)
    counted = [r for r in room.records() if r["type"] == "answered" and r["counts"]]
    assert len(counted) == 3 * quizzes + (quizzes - 1), "every answer of every phone counts once"
    assert sum(1 for r in room.records() if r["type"] == "joined") == 4


def _quiz(show: Show, quiz: Quiz, phones: list[Guest], plain: Guest, first: bool) -> None:
    show.press(re.compile("^Open"), quiz.title)
    for number, one in enumerate(phones):
        expect(one.page.locator("#answer-form")).to_be_visible()
        if first and number == 0:
            show.look(f"{quiz.id}-open")
        right = number % 2 == 0
        for option in quiz.options:
            if quiz.several:
                if option.correct or not right:
                    one.page.locator(f"input[name=choice][value={option.id}]").check()
            elif option.correct == right:
                one.page.locator(f"button[name=choice][value={option.id}]").click()
                break
        if quiz.several:
            one.page.get_by_role("button", name="Send answer").click()
        expect(one.page.locator("#screen")).to_contain_text("Saved")
    plain.page.goto(plain.page.url.partition("?")[0])
    if quiz.several:
        plain.page.locator("input[name=choice][value=a]").check()
        plain.page.get_by_role("button", name="Send answer").click()
    else:
        plain.page.locator("button[name=choice][value=a]").click()
    expect(plain.page.locator("body")).to_contain_text("Saved")
    expect(show.console.page.locator("#screen")).to_contain_text(
        re.compile(rf"{len(phones) + 1}\s+of\s+{len(phones) + 1}")
    )
    reply = whole_reply(phones[0].page)
    assert " right" not in reply.inner_text().lower(), "the comment does not give the solution away"
    if first:
        show.look(f"{quiz.id}-answered")
    expect(show.stage.page.locator("#screen")).not_to_contain_text("%")
    show.press("Close", "%")
    expect(phones[0].page.locator("#screen")).to_contain_text("Time is up")
    if first:
        show.look(f"{quiz.id}-closed")
    show.press("Reveal", quiz.explanation[:40])
    expect(phones[0].page.locator("#screen")).to_contain_text("Right")
    expect(phones[1].page.locator("#screen")).to_contain_text("Not right")
    if first:
        show.look(f"{quiz.id}-revealed")
        assert_accessible(phones[1].page, f"{quiz.id} on a small phone")
        picture(phones[1].page, f"{show.step:02d}-{quiz.id}-revealed-small-{show.scheme}")
        show.press(re.compile("^Leaderboard", re.IGNORECASE), re.compile("Leaderboard|Final standings"))
        show.look(f"{quiz.id}-leaderboard")
    plain.page.goto(plain.page.url.partition("?")[0])
    expect(plain.page.locator("body")).to_contain_text(re.compile("Right|Not right"))


def _ask(show: Show, ask: Ask, steady: Guest, plain: Guest) -> None:
    question = "Why does a GPU replica take minutes to start?"
    show.press(re.compile("^Open"), ask.title)
    expect(steady.page.locator("textarea")).to_be_visible()
    show.look("ask-open")
    steady.page.locator("textarea").fill(question)
    steady.page.get_by_role("button", name="Ask").click()
    expect(steady.page.locator(".history")).to_contain_text(question)
    assert len(whole_reply(steady.page).inner_text()) > 60
    expect(steady.page.locator("textarea")).to_have_value("")
    plain.page.goto(plain.page.url.partition("?")[0])
    plain.page.locator("textarea").fill("Is this a real model?")
    plain.page.get_by_role("button", name="Ask").click()
    expect(plain.page.locator("body")).to_contain_text("Saved")
    expect(show.stage.page.locator("#screen")).not_to_contain_text(question)
    row = show.console.page.locator("#moderation li").filter(has_text=question)
    row.get_by_role("button", name=re.compile("^Approve")).click()
    expect(show.stage.page.locator("#screen")).to_contain_text(question)
    show.console.page.locator("#items-shown summary").click()
    row.get_by_role("button", name=re.compile("^Pin")).click()
    show.look("ask-approved")
    show.console.page.get_by_role("button", name="Close").first.click()
    expect(steady.page.locator("#screen")).to_contain_text("closed")


def _survey(show: Show, survey: Survey, steady: Guest, shaky: Guest, plain: Guest) -> None:
    quote = "The <b>spike</b> was the best part"
    show.press(re.compile("^Open"), survey.title)
    expect(steady.page.locator("form.survey")).to_be_visible()
    show.look("survey-open")
    for one, rating in ((steady, 5), (shaky, 3)):
        one.page.locator(f"input[type=radio][name=rating][value='{rating}']").check(force=True)
        one.page.locator("textarea").fill(quote)
        one.page.get_by_role("button", name=re.compile("^Save")).click()
        expect(one.page.locator("#screen")).to_contain_text("Saved")
    steady.page.locator("input[type=radio][name=rating][value='4']").check(force=True)
    steady.page.get_by_role("button", name=re.compile("^Save")).click()
    expect(show.console.page.locator("#screen")).to_contain_text("2")
    plain.page.goto(plain.page.url.partition("?")[0])
    plain.page.locator("input[type=radio][name=rating][value='2']").check(force=True)
    plain.page.get_by_role("button", name=re.compile("^Save")).click()
    expect(plain.page.locator("body")).to_contain_text("Saved")
    show.look("survey-saved")
    row = show.console.page.locator("#moderation li").filter(has_text=quote).first
    row.get_by_role("button", name=re.compile("^Approve")).click()
    show.console.page.get_by_role("button", name="Close").first.click()
    show.press("Reveal", quote)
    expect(show.stage.page.locator("#screen")).to_contain_text("3.0")
    show.look("survey-revealed")


def _raffle(show: Show, raffle: Raffle, phones: list[Guest]) -> None:
    show.press(re.compile("^Open"), raffle.prizes[0])
    for one in phones:
        expect(one.page.locator(".ticket-number")).to_be_visible()
    tickets = [one.page.locator(".ticket-number").inner_text() for one in phones]
    show.look("raffle-open")
    show.press(re.compile("^Close"), re.compile("frozen|closed", re.IGNORECASE))
    show.look("raffle-closed")
    facts = f"/r/{show.room.code}/raffle/{raffle.id}.json"
    for number, prize in enumerate(raffle.prizes, 1):
        show.console.page.get_by_role("button", name=f"Draw: {prize}").click()
        while len(show.room.demo.call("GET", facts)["winners"]) < number:
            show.console.page.wait_for_timeout(50)
    winners = {w["ticket"]: w["prize"] for w in show.room.demo.call("GET", facts)["winners"]}
    assert len(winners) == len(raffle.prizes)
    for ticket in winners:
        expect(show.stage.page.locator("#screen")).to_contain_text(ticket)
    for one, ticket in zip(phones, tickets, strict=True):
        said = f"You won {winners[ticket]}" if ticket in winners else "Not your ticket"
        expect(one.page.locator("#screen")).to_contain_text(re.compile(said.replace(" ", r"\s+")))
    show.look("raffle-drawn")
    phones[0].page.goto(f"{show.room.demo.url}/r/{show.room.code}/raffle/{raffle.id}")
    assert_accessible(phones[0].page, "raffle check page")
    picture(phones[0].page, f"{show.step:02d}-raffle-check-phone-{show.scheme}")
    phones[0].page.go_back()


def _end(show: Show, guest: Any) -> None:
    show.press(re.compile("^Podium", re.IGNORECASE), "10 right")
    show.look("podium")
    show.console.page.on("dialog", lambda dialog: dialog.accept())
    show.console.page.locator("#room-more > summary").click()
    show.console.page.get_by_role("button", name=re.compile("^Archive")).click()
    expect(show.phones[0].page.locator("#screen")).to_contain_text(re.compile("over", re.IGNORECASE))
    show.look("ended")
    visitor = guest(PHONE, color_scheme=show.scheme)
    visitor.watch.allowed += ("Failed to load resource",)
    for name, path in (
        ("enter", "/"),
        ("ended", f"/r/{show.room.code}"),
        ("unknown", "/r/BBBB"),
        ("signin", "/present"),
    ):
        visitor.page.goto(show.room.demo.url + path)
        assert_accessible(visitor.page, name)
        picture(visitor.page, f"00-{name}-phone-{show.scheme}")
    show.console.page.goto(f"{show.room.demo.url}/present")
    assert_accessible(show.console.page, "rooms")
    picture(show.console.page, f"00-rooms-{show.scheme}")
