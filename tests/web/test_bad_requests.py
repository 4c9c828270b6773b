"""Requests that no page of ours makes: each is refused for what it is, and none brings anything down."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from callers import HTML, Web, listening, web_on
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

MIB = 1024 * 1024
JSON = {"content-type": "application/json"}
FORM = "application/x-www-form-urlencoded"


async def chunks(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b"x" * MIB


async def in_pieces(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 1000):
        yield body[start : start + 1000]


@pytest.mark.parametrize("chunked", [False, True])
async def test_twenty_megabytes_are_refused(web: Web, code: str, chunked: bool) -> None:
    phone = await web.join(code)
    content = chunks(20) if chunked else b"x" * 20 * MIB
    response = await phone.http.post(f"/r/{code}/responses", content=content, headers=JSON)
    assert (response.status_code, response.json()["title"]) == (413, "That is too large")


@pytest.mark.parametrize("chunked", [False, True])
async def test_twenty_megabytes_over_tcp_are_refused_and_the_server_goes_on(web: Web, code: str, chunked: bool) -> None:
    phone = await web.join(code)
    cookie = {"cookie": f"crowdspike_phone={phone.http.cookies['crowdspike_phone']}"}
    async with listening(web) as url, httpx.AsyncClient(base_url=url, headers=cookie) as http:
        path = f"/r/{code}/responses"
        for headers in (JSON, {"content-type": FORM}):
            response = await http.post(path, content=chunks(20) if chunked else b"x" * 20 * MIB, headers=headers)
            assert response.status_code == 413
        assert (await http.get(f"/r/{code}/state")).status_code == 200


async def test_a_body_that_comes_with_a_get_is_of_no_account(web: Web, code: str) -> None:
    async with listening(web) as url, httpx.AsyncClient(base_url=url) as http:
        async with http.stream("GET", f"/stage/{code}/events", content=b"x" * MIB) as stream:
            assert await anext(stream.aiter_lines()) == "event: snapshot"
        assert (await http.request("GET", "/healthz", content=b"x" * MIB)).status_code == 200


async def test_a_body_just_within_the_limit_is_read(web: Web, code: str) -> None:
    phone = await web.join(code)
    room_for = web.front.parts.settings.max_body_bytes
    body = json.dumps({"nickname": ""}).encode()
    response = await phone.http.post(f"/r/{code}/join", content=body.ljust(room_for), headers=JSON)
    assert response.status_code == 201
    response = await phone.http.post(f"/r/{code}/join", content=in_pieces(body.ljust(room_for)), headers=JSON)
    assert response.status_code == 201
    for content in (body.ljust(room_for + 1), in_pieces(body.ljust(room_for + 1))):
        response = await phone.http.post(f"/r/{code}/join", content=content, headers=JSON)
        assert response.status_code == 413


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[1]",
        b'"text"',
        b"null",
        b"\xff\xfe",
        b"[" * 60_000,
        b'{"a":' * 10_000,
        b'{"x": "\\ud800"}',
        b"1" * 5000,
        b'{"x": ' + b"1" * 5000 + b"}",
    ],
)
async def test_broken_json_is_refused(web: Web, code: str, body: bytes) -> None:
    phone = await web.join(code)
    for client, path in ((phone.http, f"/r/{code}/responses"), (web.presenter, f"/present/{code}/control")):
        response = await client.post(path, content=body, headers=JSON)
        assert response.status_code == 400
        assert response.headers["content-type"] == "application/problem+json"
        assert len(response.json()["detail"]) < 300


@pytest.mark.parametrize(
    "content_type", ["", "text/plain", "application/xml", "application/jsonx", "multipart/form-data; boundary=b"]
)
async def test_another_content_type_is_refused(web: Web, code: str, content_type: str) -> None:
    phone = await web.join(code)
    response = await phone.http.post(f"/r/{code}/responses", content=b"{}", headers={"content-type": content_type})
    assert response.status_code == 415


@pytest.mark.parametrize("body", [b"&".join(b"a%d=1" % n for n in range(500)), b"\xff=\xff&%ff=%ff&=&&;", b"%"])
async def test_a_broken_form_is_refused_and_never_a_server_error(web: Web, code: str, body: bytes) -> None:
    phone = await web.join(code)
    response = await phone.http.post(f"/r/{code}/responses", content=body, headers={"content-type": FORM})
    assert response.status_code in (400, 422)


async def test_a_cookie_that_we_did_not_sign_is_refused_and_taken_away(web: Web, code: str) -> None:
    phone = await web.join(code)
    who, _, mac = phone.http.cookies["crowdspike_phone"].partition(".")
    for forged in (f"{'0' * 16}.{mac}", f"{who}.{'0' * 32}", who, ".", "x", f"{who}.{mac}é"):
        http = web.client(cookie=f"crowdspike_phone={forged}".encode())
        response = await http.get(f"/r/{code}/screen")
        assert (response.status_code, response.json()["title"]) == (403, "This phone's pass is not valid"), forged
        assert 'crowdspike_phone=""' in response.headers["set-cookie"]
        assert f"Path=/r/{code}" in response.headers["set-cookie"]


async def test_a_cookie_of_another_room_opens_nothing(web: Web, code: str) -> None:
    phone = await web.join(code)
    other = await web.room()
    cookie = phone.http.cookies["crowdspike_phone"]
    http = web.client(cookie=f"crowdspike_phone={cookie}")
    await web.start(other, "q1")
    body = {"response_id": "response-x", "activity_id": "q1", "choice": "b"}
    assert (await http.post(f"/r/{other}/responses", json=body)).status_code == 403
    assert (await http.get(f"/r/{other}/screen")).status_code == 403


async def test_another_deployments_cookie_is_refused(web: Web, code: str, tmp_path) -> None:
    signed = web.front.parts.signer.sign(f"phone:{code}", "0" * 16)
    assert (await web.client(cookie=f"crowdspike_phone={signed}").get(f"/r/{code}/screen")).status_code == 401
    presenter = web.front.parts.signer.sign("presenter", "0" * 32)
    response = await web.client(cookie=f"crowdspike_presenter={presenter}").get(f"/present/{code}/screen")
    assert response.status_code == 401


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/r/{}/nothing", 404),
        ("GET", "/r/{}/state/more", 404),
        ("DELETE", "/r/{}/screen", 405),
        ("GET", "/r/{}/responses", 405),
        ("POST", "/healthz", 405),
        ("GET", "/r/{}/screen?v=x", 422),
        ("GET", "/static/x/../../app.py", 404),
        ("GET", "/static/x/..%2f..%2fwebapp/app.py", 404),
        ("GET", "/theme/xyzxyz.css", 404),
        ("GET", "/r/{}/raffle/q1.json", 404),
        ("GET", "/r/{}/raffle/nothing", 404),
        ("GET", "/r/{}/replies/nothing", 404),
    ],
)
async def test_what_is_not_there_is_said_to_not_be_there(web: Web, code: str, method, path, status) -> None:
    phone = await web.join(code)
    for headers in ({}, HTML):
        response = await phone.http.request(method, path.format(code), headers=headers)
        assert response.status_code == status
        assert response.headers["content-type"].startswith("text/html" if headers else "application/problem+json")


def test_no_json_at_all_makes_a_server_error(tmp_path_factory: pytest.TempPathFactory) -> None:
    from_json = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
        max_leaves=5,
    )
    names = ["response_id", "activity_id", "choice", "question", "stars", "topics", "comment", "nickname", "rtt_ms"]
    names += ["misses", "action", "at", "item", "by_s", "prize", "on", "id", "scene", "participant", "talk", "same_as"]
    known = st.sampled_from(["q1", "q2", "ask", "survey", "response-x", "b", "goto", "open", "show", "approve", "lock"])
    bodies = st.dictionaries(st.sampled_from(names), known | from_json, max_size=8)

    @settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
    @given(bodies=st.lists(bodies, min_size=1, max_size=4))
    def all_answered(bodies: list[dict]) -> None:
        loop.run_until_complete(_post_all(web, code, bodies))

    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        context = _open_room(tmp_path_factory.mktemp("store"))
        web, code = loop.run_until_complete(context.__aenter__())
        try:
            all_answered()
        finally:
            loop.run_until_complete(context.__aexit__(None, None, None))


@asynccontextmanager
async def _open_room(folder: Path) -> AsyncIterator[tuple[Web, str]]:
    async with web_on(folder, sign_ins_per_minute_per_address=10**6) as web:
        code = await web.room()
        await web.start(code, "ask")
        yield web, code


async def _post_all(web: Web, code: str, bodies: list[dict]) -> None:
    await web.control(code, "lock", on=False)
    phone = await web.join(code)
    for body in bodies:
        content = json.dumps(body)
        for path in (f"/r/{code}/join", f"/r/{code}/responses", f"/r/{code}/presence", f"/r/{code}/nickname"):
            response = await phone.http.post(path, content=content, headers=JSON)
            assert response.status_code < 500, (path, body, response.text)
        for path in (f"/present/{code}/control", "/present/rooms", "/present"):
            response = await web.presenter.post(path, content=content, headers=JSON)
            assert response.status_code < 500, (path, body, response.text)
