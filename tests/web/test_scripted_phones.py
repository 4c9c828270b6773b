"""That no phone of a load tool is ever taken for one of the audience."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from callers import HTML, Phone, Web, listening, web_on
from hypothesis import given
from hypothesis import strategies as st
from replica import END, Replica, running

from tests.room.logs import responses, rooms
from tests.sample_room import QUIZ, RAFFLE, SURVEY, T0_MS, SampleRoom
from webapp.crowd import expected_requests
from webapp.report.answers import answers
from webapp.room.events import Joined, decode_response, encode
from webapp.room.state import fold
from webapp.views.console import console_screen
from webapp.views.stage import stage_screen


async def joined(web: Web, code: str, source: str = "k6") -> Phone:
    phone = Phone(web.client(), code)
    response = await phone.post("join", {}, headers={"x-load-source": source})
    assert response.status_code == 201, response.text
    return phone


def script(room: SampleRoom, *participants: str) -> None:
    for who in participants:
        nickname = f"Scripted {who}"
        room.add(Joined(id="join", participant=who, at_ms=room.now_ms, nickname=nickname, source="k6"))


def test_a_line_of_a_log_from_before_there_were_scripts_is_a_person() -> None:
    line = b'{"type":"joined","id":"join","participant":"p","at_ms":1,"nickname":"Calm Otter"}'
    assert not decode_response(line).scripted
    assert decode_response(encode(Joined(id="join", participant="p", at_ms=1, nickname="S", source="k6"))).scripted


@given(st.data())
def test_scripted_phones_change_nothing_that_is_shown_of_a_room_with_people(data: st.DataObject) -> None:
    room = data.draw(rooms()).join("eve")
    moments = st.integers(T0_MS - 500, room.now_ms + 2500)
    sent = [replace(r, participant=f"k6-{r.participant}") for r in data.draw(st.lists(responses(moments), min_size=1))]
    sent = [replace(r, source="k6") if isinstance(r, Joined) else r for r in sent]
    sent += [
        Joined(id="join", participant=p, at_ms=T0_MS, nickname="S", source="k6") for p in {r.participant for r in sent}
    ]
    loaded = fold(room.info, room.control, [*sent, *room.state.responses.values()])
    now_ms = room.now_ms
    seen = stage_screen(loaded, now_ms, "", False)
    before = room.state.scripted
    assert seen.scripted == before + len({r.participant for r in sent})
    assert replace(seen, scripted=before) == stage_screen(room.state, now_ms, "", False)
    assert replace(console_screen(loaded, now_ms, {}), scripted=before) == console_screen(room.state, now_ms, {})
    assert answers(loaded) == answers(room.state)


def test_scripted_phones_alone_are_shown_as_a_rehearsal_until_the_first_person_comes() -> None:
    room = SampleRoom()
    script(room, "s1", "s2")
    room.start(QUIZ.id).answer("s1", QUIZ.id, "b")
    room.do("reveal")
    screen = stage_screen(room.state, room.now_ms, "", False)
    assert (screen.rehearsal, screen.joined, screen.answered) == (True, 2, 1)
    assert [s.participant for s in room.state.standings()] == ["s1", "s2"]
    room.join("ann")
    screen = stage_screen(room.state, room.now_ms, "", False)
    assert (screen.rehearsal, screen.joined, screen.scripted, screen.answered) == (False, 1, 2, 0)
    assert room.state.tally(QUIZ) == ({"a": 0, "b": 0, "c": 0}, 0)
    assert [s.participant for s in room.state.standings()] == ["ann"]


def test_an_answer_whose_join_has_not_come_yet_counts_only_with_it() -> None:
    room = SampleRoom().join("ann").start(QUIZ.id)
    room.answer("s1", QUIZ.id, "b")
    assert room.state.tally(QUIZ)[1] == 0
    script(room, "s1")
    assert room.state.tally(QUIZ)[1] == 0


def test_scripted_phones_win_nothing_where_people_are() -> None:
    room = SampleRoom().join("ann")
    script(room, *(f"s{n}" for n in range(20)))
    room.start(RAFFLE.id)
    assert room.do("close").entrants == (room.state.ticket("ann"),)
    assert room.do("draw").participant == "ann"


def test_scripted_phones_are_expected_to_load_the_fleet() -> None:
    room = SampleRoom().join("ann").start(QUIZ.id)
    alone = expected_requests(room.state, room.now_ms, 3.0)
    script(room, "s1", "s2", "s3")
    assert expected_requests(room.state, room.now_ms, 3.0) == pytest.approx(4 * alone)
    room.answer("s1", QUIZ.id, "a")
    assert expected_requests(room.state, room.now_ms, 3.0) == pytest.approx(3 * alone)


async def test_a_scripted_phone_says_so_wherever_it_is_named(web: Web, code: str) -> None:
    await web.join(code)
    scripted = [await joined(web, code, source) for source in ("k6", "locust", "something else")]
    for phone in scripted:
        assert (await phone.post("nickname", {"nickname": "Ann"})).status_code == 200
    await web.start(code, SURVEY.id)
    assert (await scripted[0].send(SURVEY.id, stars=5)).status_code == 200
    records = [json.loads(line) for line in (await web.export(code, "jsonl")).splitlines()]
    marked = [r for r in records if r["scripted"]]
    assert len(marked) == len(records) - 1 == 2 * len(scripted) + 1
    assert all(r["nickname"].startswith("Scripted ") for r in marked)
    assert [r["counts"] for r in records if r["type"] == "surveyed"] == [False]
    stage = (await web.client().get(f"/stage/{code}", headers=HTML)).text
    assert "<strong>1</strong> joined · <strong>3</strong> scripted phones" in stage
    assert "Rehearsal" not in stage
    console = (await web.presenter.get(f"/present/{code}", headers=HTML)).text
    assert "<strong>3</strong> scripted phones, not counted" in console
    facts = (await web.presenter.get(f"/api/rooms/{code}")).json()
    assert (facts["people"], facts["scripted"]) == (1, 3)
    assert [a["phase"] for a in facts["activities"] if a["id"] == SURVEY.id] == ["open"]


async def test_a_rehearsal_says_so_on_stage_and_in_the_console(web: Web, code: str) -> None:
    await joined(web, code)
    stage = (await web.client().get(f"/stage/{code}", headers=HTML)).text
    assert "Rehearsal" in stage
    assert "scripted phone is here" in stage
    assert "person is" not in stage
    await web.start(code, QUIZ.id)
    assert "Rehearsal" in (await web.client().get(f"/stage/{code}", headers=HTML)).text
    assert "a rehearsal" in (await web.presenter.get(f"/present/{code}", headers=HTML)).text


@pytest.mark.parametrize("source", ["k6", "locust"])
async def test_a_scripted_phones_reply_is_asked_for_in_the_tools_name(tmp_path: Path, source: str) -> None:
    replica = Replica()
    replica.say("Because.", END)
    async with running(replica) as upstream, web_on(tmp_path, inference_url=upstream) as web, listening(web) as url:
        code = await web.room()
        await web.start(code, "ask")
        phone = await joined(web, code, source)
        reply = (await phone.send("ask", question="Why?")).json()["reply"]
        cookie = f"crowdspike_phone={phone.http.cookies['crowdspike_phone']}"
        async with httpx.AsyncClient(base_url=url, headers={"cookie": cookie}) as http:
            assert "Because." in (await http.get(reply)).text
            metrics = (await http.get("/metrics")).text
        counted = [line for line in metrics.splitlines() if line.startswith("crowdspike_gateway_requests_total{")]
        assert any(f'source="{source}"' in line and not line.endswith(" 0.0") for line in counted), counted
        assert not any('source="audience"' in line and not line.endswith(" 0.0") for line in counted), counted
