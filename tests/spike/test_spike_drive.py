"""That a room is led through its whole talk in the time given, and that what hinders it is said."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen import processes
from loadgen.processes import TOKEN
from loadgen.spike.drive import LEAST_S, DriveFailed, drive, make_room, steps

TALK = """\
title: A talk of all kinds
activities:
  - quiz: Which?
    id: quiz
    time_limit: 5
    options: [{correct: This}, That]
  - ask: Ask the model
    id: ask
  - survey: How was it?
    id: survey
    fields: [{rating: Stars, id: stars}]
  - raffle: Win
    id: raffle
    prizes: [A book]
"""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("web")
    talk: Path = folder / "talk.yaml"
    talk.write_text(TALK)
    web = processes.web_app(folder / "web.log", str(folder / "store"), talk=talk)
    try:
        web.wait_ready()
        yield web.url
    finally:
        web.end()


KINDS = ("quiz", "ask", "survey", "raffle")


@given(st.lists(st.sampled_from(KINDS), min_size=1, max_size=30), st.floats(1, 14_400))
def test_activities_are_opened_and_closed_in_turn_within_the_time(kinds: list[str], duration_s: float) -> None:
    talk = [(f"{kind}{n}", kind) for n, kind in enumerate(kinds)]
    found = steps(talk, duration_s)
    times = [step.at_s for step in found]
    assert times == sorted(times)
    assert times[0] > 0
    assert times[-1] <= duration_s
    opened = {s.activity: s.at_s for s in found if s.act == "open"}
    closed = {s.activity: s.at_s for s in found if s.act == "close"}
    assert list(opened) == list(closed) == [name for name, _ in talk if name in opened]
    assert all(closed[one] > opened[one] for one in opened)
    if duration_s >= LEAST_S * (len(talk) + 1):
        assert len(opened) == len(talk)
    elif len(opened) > 1:
        assert duration_s >= LEAST_S * (len(opened) + 1)


def test_a_short_run_opens_one_of_each_kind_before_a_second() -> None:
    talk = [("q1", "quiz"), ("q2", "quiz"), ("win", "raffle"), ("a1", "ask"), ("s1", "survey"), ("a2", "ask")]
    opened = [step.activity for step in steps(talk, 4 * LEAST_S) if step.act == "open"]
    assert opened == ["q1", "a1", "s1"]


async def test_a_room_is_made_and_led_through_its_talk(url: str) -> None:
    code = await make_room(url, TOKEN)
    said: list[str] = []
    await drive(url, TOKEN, code, 3.0, said.append, least_s=0.5)
    async with httpx.AsyncClient(base_url=url, headers={"authorization": f"Bearer {TOKEN}"}) as http:
        activities = (await http.get(f"/api/rooms/{code}")).json()["activities"]
    assert {one["id"]: one["phase"] for one in activities} == {
        "quiz": "revealed",
        "ask": "closed",
        "survey": "revealed",
        "raffle": "closed",
    }
    # Nobody has joined, so there is nobody to win.
    *steps_said, draw = said
    assert steps_said == [
        *("quiz: goto", "quiz: open", "quiz: close", "quiz: reveal"),
        *("ask: goto", "ask: open", "ask: close"),
        *("survey: goto", "survey: open", "survey: close", "survey: reveal"),
        *("raffle: goto", "raffle: open", "raffle: close"),
    ]
    assert draw.startswith("raffle: draw refused: 409 There are no tickets yet.")


async def test_a_wrong_token_and_an_unknown_room_are_said(url: str) -> None:
    with pytest.raises(DriveFailed, match="does not take the presenter token"):
        await make_room(url, "another")
    with pytest.raises(DriveFailed, match="404"):
        await drive(url, TOKEN, "ZZZZ", 4.0, lambda text: None)


async def test_a_server_that_is_not_there_is_said() -> None:
    address = f"http://127.0.0.1:{processes.free_port()}"
    with pytest.raises(DriveFailed, match=f"{address}.*ConnectError"):
        await make_room(address, TOKEN)
