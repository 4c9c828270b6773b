"""How phones come in, and what they are called."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from callers import HTML, Phone, Web, web_on


async def test_one_tap_joins_under_the_name_that_the_page_offered(web: Web, code: str) -> None:
    http = web.client()
    page = await http.get(f"/r/{code}", headers=HTML)
    assert page.status_code == 200
    signed = re.search(r'name="nickname"[^>]*value="([^"]+)"', page.text)[1]
    response = await http.post(f"/r/{code}/join", data={"nickname": signed}, headers=HTML)
    assert (response.status_code, response.headers["location"]) == (303, f"/r/{code}")
    cookie = response.headers["set-cookie"]
    assert f"Path=/r/{code};" in cookie
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    name = signed.rpartition(".")[0]
    assert name in (await http.get(f"/r/{code}", headers=HTML)).text
    assert (await http.post(f"/r/{code}/join", json={})).json() == {"nickname": name}


@pytest.mark.parametrize("forged", ["Rude Word", "Rude Word." + "0" * 32, ".", "a.b", "\ud83d.x", 7, None, ["x"]])
async def test_a_name_that_was_not_offered_is_replaced(web: Web, code: str, forged: object) -> None:
    phone = Phone(web.client(), code)
    response = await phone.post("join", {"nickname": forged})
    if forged == "\ud83d.x":
        assert response.status_code == 400
        return
    assert response.status_code == 201
    assert re.fullmatch(r"[A-Z][a-z]+ [A-Z][a-z]+", response.json()["nickname"])


async def test_joining_again_with_the_same_phone_is_the_same_participant(web: Web, code: str) -> None:
    phone = await web.join(code)
    who = phone.participant
    assert (await phone.post("join", {})).status_code == 201
    assert phone.participant == who
    assert (await web.front.parts.rooms.get(code)).state.present == [who]


async def test_a_locked_room_lets_nobody_new_in(web: Web, code: str) -> None:
    inside = await web.join(code)
    await web.control(code, "lock", on=True)
    outside = Phone(web.client(), code)
    response = await outside.post("join", {})
    assert (response.status_code, response.json()["title"]) == (403, "The room is locked")
    assert "set-cookie" not in response.headers
    assert (await inside.post("join", {})).status_code == 201
    await web.control(code, "lock", on=False)
    assert (await outside.post("join", {})).status_code == 201


async def test_a_full_room_says_so_and_when_to_come_back(tmp_path: Path) -> None:
    async with web_on(tmp_path, max_participants=2) as web:
        code = await web.room()
        await web.join(code)
        await web.join(code)
        response = await Phone(web.client(), code).post("join", {})
        assert (response.status_code, response.headers["retry-after"]) == (503, "30")


async def test_too_many_joins_from_one_address_are_slowed_down(tmp_path: Path) -> None:
    async with web_on(tmp_path, joins_per_minute_per_address=2) as web:
        code = await web.room()
        statuses = [(await Phone(web.client(), code).post("join", {})).status_code for _ in range(4)]
        assert 429 in statuses
        assert statuses[:2] == [201, 201]


async def test_presence_reaches_the_console(web: Web, code: str) -> None:
    phone = await web.join(code)
    assert (await phone.post("presence", {"rtt_ms": 50, "misses": 0})).status_code == 204
    room = await web.front.parts.rooms.get(code)
    assert room.presence[phone.participant].rtt_ms == 50


@pytest.mark.parametrize(
    "body", [{}, {"rtt_ms": "50", "misses": 0}, {"rtt_ms": -1, "misses": 0}, {"rtt_ms": 5, "misses": 11}]
)
async def test_presence_that_is_no_measurement_is_refused(web: Web, code: str, body: dict) -> None:
    phone = await web.join(code)
    assert (await phone.post("presence", body)).status_code == 400


async def test_a_new_nickname_is_the_phones_at_once_and_the_stages_when_approved(web: Web, code: str) -> None:
    phone = await web.join(code)
    response = await phone.post("nickname", {"nickname": "  Ada \u202e L. "})
    assert response.json() == {"named": True, "nickname": "Ada L."}
    assert "Ada L." in (await phone.get("screen")).text
    stage = web.client()
    assert "Ada L." not in (await stage.get(f"/stage/{code}/screen")).text
    state = (await web.front.parts.rooms.get(code)).state
    await web.control(code, "approve", item=f"n:{state.chosen_name(phone.participant).key}")
    assert "Ada L." in (await stage.get(f"/stage/{code}/screen")).text


@pytest.mark.parametrize("nickname", ["", "  ", "\u200b\u200d", "x" * 25, "x" * 10_000])
async def test_a_nickname_of_no_or_too_many_characters_is_refused_by_field(web: Web, code: str, nickname: str) -> None:
    phone = await web.join(code)
    response = await phone.post("nickname", {"nickname": nickname})
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    assert set(response.json()["fields"]) == {"nickname"}


async def test_nicknames_cannot_be_changed_without_end(web: Web, code: str) -> None:
    phone = await web.join(code)
    responses = [await phone.post("nickname", {"nickname": f"Ada {n}"}) for n in range(12)]
    assert responses[0].status_code == 200
    assert responses[-1].status_code == 429
    assert int(responses[-1].headers["retry-after"]) > 0


async def test_the_code_on_the_screen_leads_in_however_it_is_typed(web: Web, code: str) -> None:
    http = web.client()
    typed = f" {code[:2].lower()}-{code[2:]}"
    for path in (f"/j/{code}", f"/j/{code.lower()}", f"/r/{code.lower()}"):
        response = await http.get(path, headers=HTML)
        assert (response.status_code, response.headers["location"]) == (303, f"/r/{code}"), path
    response = await http.get("/", params={"code": typed}, headers=HTML)
    assert response.headers["location"] == f"/r/{code}"
    response = await http.get("/", params={"code": "12"}, headers=HTML)
    assert response.status_code == 422
    assert (await http.get("/", headers=HTML)).status_code == 200


async def test_a_removed_participant_is_told_and_can_send_nothing(web: Web, code: str) -> None:
    phone = await web.join(code)
    await web.start(code, "q1")
    await web.control(code, "remove", participant=phone.participant)
    response = await phone.send("q1", choice="b")
    assert (response.status_code, response.json()["title"]) == (403, "You were removed from this room")
    assert (await phone.post("nickname", {"nickname": "Ada"})).status_code == 403
    assert (await phone.get("screen")).status_code == 200
    await web.control(code, "restore", participant=phone.participant)
    assert (await phone.send("q1", choice="b")).status_code == 200


async def test_an_archived_room_takes_nothing_and_can_still_be_looked_at(web: Web, code: str) -> None:
    phone = await web.join(code)
    await web.start(code, "q1")
    await web.control(code, "archive")
    assert (await phone.send("q1", choice="b")).status_code == 410
    assert (await phone.post("nickname", {"nickname": "Ada"})).status_code == 410
    assert (await Phone(web.client(), code).post("join", {})).status_code == 410
    assert (await web.client().get(f"/r/{code}", headers=HTML)).status_code == 410
    assert (await phone.get("screen")).status_code == 200
    assert (await web.client().get(f"/stage/{code}/screen")).status_code == 200
    response = await web.presenter.post(f"/present/{code}/control", json={"action": "next"})
    assert response.status_code == 409


@pytest.mark.parametrize("room", ["ZZZZ", "zzzz", "KWX", "..%2f..", "%2e%2e", "KWXM%00", "é" * 4, "A" * 5000])
async def test_an_unknown_room_is_not_found_wherever_it_is_named(web: Web, room: str) -> None:
    http, presenter = web.client(), web.presenter
    for response in (
        await http.get(f"/r/{room}/state"),
        await http.get(f"/r/{room}"),
        await http.get(f"/stage/{room}/screen"),
        await http.get(f"/stage/{room}/events"),
        await http.post(f"/r/{room}/join", json={}),
        await presenter.get(f"/present/{room}/screen"),
        await presenter.get(f"/api/rooms/{room}/questions"),
    ):
        assert response.status_code == 404, response.request.url
