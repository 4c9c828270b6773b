"""That the presenter's side is the presenter's alone."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest
from callers import HTML, Web, listening, web_on
from fastapi import FastAPI
from starlette.routing import Route

OPEN_TO_ALL = {("POST", "/present"), ("POST", "/present/signout")}  # to sign in and out


def routes(web: Web) -> list[tuple[str, str]]:
    """Every method and path of the application, as it is mounted."""
    app: object = web.front._pages
    while not isinstance(app, FastAPI):
        app = app._app
    found = _routes(app.router)
    assert ("GET", "/present/{code}/events") in found
    assert ("GET", "/api/rooms/{code}/questions") in found
    return found


def _routes(router) -> list[tuple[str, str]]:
    found = []
    for route in router.routes:
        if isinstance(route, Route) or hasattr(route, "methods"):
            found += [(method, route.path) for method in route.methods]
        else:
            found += _routes(getattr(route, "original_router", None) or route.app)
    return found


def concrete(path: str, code: str) -> str:
    return re.sub(r"{[^}]+}", "x", path.replace("{code}", code))


async def test_nothing_of_the_presenters_is_given_without_the_token(web: Web, code: str) -> None:
    private = [(m, p) for m, p in routes(web) if p.startswith(("/present", "/api")) and (m, p) not in OPEN_TO_ALL]
    assert len(private) >= 9
    for method, path in private:
        for headers in ({}, HTML, {"authorization": "Bearer wrong"}, {"authorization": "Basic cHJlc2VudGVyLXRva2Vu"}):
            response = await web.client().request(method, concrete(path, code), headers=headers)
            assert response.status_code == 401, (method, path)
            assert code not in response.text.replace(f"/{code}", "")
        unknown = await web.client().request(method, concrete(path, "ZZZZ"))
        assert unknown.status_code == 401, "says whether a room is there"


async def test_a_phones_cookie_is_no_presenters(web: Web, code: str) -> None:
    phone = await web.join(code)
    for name in ("crowdspike_phone", "crowdspike_presenter"):
        cookie = f"{name}={phone.http.cookies['crowdspike_phone']}"
        assert (await web.client(cookie=cookie).get(f"/present/{code}/screen")).status_code == 401


async def test_every_request_that_changes_something_is_refused_from_another_site(web: Web, code: str) -> None:
    phone = await web.join(code)
    changing = [(method, path) for method, path in routes(web) if method not in ("GET", "HEAD")]
    assert len(changing) >= 8
    for method, path in changing:
        client = web.presenter if path.startswith(("/present", "/api")) else phone.http
        for headers in (
            {"sec-fetch-site": "cross-site"},
            {"sec-fetch-site": "same-site"},
            {"origin": "https://evil.test"},
            {"origin": "null"},
        ):
            response = await client.request(method, concrete(path, code), headers=headers, json={})
            assert response.status_code == 403, (method, path, headers)
            assert response.json()["title"] == "The request came from another site"


async def test_our_own_pages_and_scripts_may_change_things(web: Web, code: str) -> None:
    for headers in ({}, {"sec-fetch-site": "same-origin"}, {"sec-fetch-site": "none"}, {"origin": "http://talk.test"}):
        response = await web.presenter.post(f"/present/{code}/control", json={"action": "lock"}, headers=headers)
        assert response.status_code == 200


async def test_the_printed_link_signs_in_and_the_token_leaves_the_address(web: Web, code: str) -> None:
    http = web.client()
    response = await http.get("/present", params={"token": web.token}, headers=HTML)
    assert (response.status_code, response.headers["location"]) == (303, "/present")
    cookie = response.headers["set-cookie"]
    assert web.token not in cookie
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert (await http.get("/present", headers=HTML)).status_code == 200
    assert (await http.get(f"/api/rooms/{code}/questions")).status_code == 200
    assert (await http.post("/present/signout")).status_code == 303
    assert (await http.get(f"/api/rooms/{code}/questions")).status_code == 401


async def test_a_form_with_the_token_signs_in_and_a_wrong_one_does_not(web: Web) -> None:
    http = web.client()
    response = await http.post("/present", data={"token": "wrong"}, headers=HTML)
    assert response.status_code == 401
    assert "not the presenter token" in response.text
    assert "set-cookie" not in response.headers
    assert (await http.post("/present", data={"token": f" {web.token}\n"})).status_code == 303


async def test_a_changed_token_ends_all_sessions(tmp_path: Path) -> None:
    async with web_on(tmp_path) as web:
        http = web.client()
        await http.get("/present", params={"token": web.token})
    async with web_on(tmp_path, presenter_token="another-token") as web:
        cookie = f"crowdspike_presenter={http.cookies['crowdspike_presenter']}"
        assert (await web.client(cookie=cookie).get("/present", headers=HTML)).status_code == 401


async def test_guessing_the_token_is_slowed_down(tmp_path: Path) -> None:
    async with web_on(tmp_path, sign_ins_per_minute_per_address=2) as web:
        http = web.client()
        responses = [await http.get("/present", params={"token": f"guess{n}"}) for n in range(4)]
        assert [r.status_code for r in responses[:2]] == [401, 401]
        assert responses[-1].status_code == 429
        assert int(responses[-1].headers["retry-after"]) > 0


async def test_control_by_json_answers_with_what_happened(web: Web, code: str) -> None:
    response = await web.control(code, "next")
    assert response.json() == {"type": "moved", "seq": 1, "version": 1}
    response = await web.control(code, "open", at="q1:ready:0")
    assert response.json()["type"] == "opened"
    response = await web.presenter.post(f"/present/{code}/control", json={"action": "open", "at": "q1:ready:0"})
    assert (response.status_code, response.headers["content-type"]) == (409, "application/problem+json")
    response = await web.presenter.post(f"/present/{code}/control", json={"action": "extend", "by_s": "-3"})
    assert response.status_code == 400


async def test_control_by_form_leads_back_to_the_console(web: Web, code: str) -> None:
    response = await web.presenter.post(f"/present/{code}/control", data={"action": "next"}, headers=HTML)
    assert (response.status_code, response.headers["location"]) == (303, f"/present/{code}")
    response = await web.presenter.post(
        f"/present/{code}/control", data={"action": "open"}, headers={**HTML, "hx-request": "true"}
    )
    assert response.status_code == 200
    assert "+15 s" in response.text


async def test_a_refused_action_is_shown_in_the_console(web: Web, code: str) -> None:
    headers = {**HTML, "hx-request": "true"}
    response = await web.presenter.post(f"/present/{code}/control", data={"action": "reveal"}, headers=headers)
    assert response.status_code == 200
    assert "start the talk first" in response.text


async def test_two_presenters_at_once_make_one_step(web: Web, code: str, tmp_path: Path) -> None:
    await web.start(code, "q1")
    async with web_on(tmp_path / "store") as other:
        await other.front.parts.rooms.get(code)
        path, body = f"/present/{code}/control", {"action": "close", "at": "q1:open:0"}
        await web.control(code, **body)
        assert (await other.presenter.post(path, json=body)).status_code == 409


@pytest.mark.parametrize("body", [{"talk": "9"}, {"talk": "-1"}, {"talk": "²"}, {"talk": "9" * 5000}, {"talk": ["0"]}])
async def test_a_room_of_no_talk_is_refused(web: Web, body: dict) -> None:
    assert (await web.presenter.post("/present/rooms", json=body)).status_code == 400


async def test_a_room_can_be_made_again_with_the_talk_of_another(web: Web, code: str) -> None:
    response = await web.presenter.post("/present/rooms", json={"same_as": code.lower()})
    other = response.json()["code"]
    assert other != code
    rooms = (await web.presenter.get("/present", headers=HTML)).text
    assert code in rooms
    assert other in rooms


async def test_the_presenters_stream_tells_of_changes_at_once(web: Web, code: str) -> None:
    headers = {"authorization": f"Bearer {web.token}"}
    async with listening(web) as url, httpx.AsyncClient(base_url=url, headers=headers) as http:
        for path in (f"/present/{code}/events", f"/stage/{code}/events"):
            async with http.stream("GET", path) as stream:
                assert stream.headers["content-type"].startswith("text/event-stream")
                assert stream.headers["cache-control"] == "no-store"
                lines = stream.aiter_lines()
                await _until(lines, "event: changed")
                await web.control(code, "lock", on=path.startswith("/present"))
                await _until(lines, "event: changed")


async def _until(lines, wanted: str) -> None:
    async for line in lines:
        if line == wanted:
            return
    raise AssertionError(f"the stream ended without {wanted!r}")
