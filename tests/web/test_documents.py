"""The documents that caches, scripts, analysts and doubters read, and the headers around every page."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from pathlib import Path

import pytest
from callers import HTML, Web
from markup import check_markup

from webapp.crowd import REPLY_S


async def test_the_state_is_the_same_small_public_document_for_everyone(web: Web, code: str) -> None:
    phone = await web.join(code)
    await web.start(code, "q1")
    responses = [await c.get(f"/r/{code}/state") for c in (web.client(), phone.http, web.presenter)]
    assert len({r.content for r in responses}) == 1
    assert len({r.headers["etag"] for r in responses}) == 1
    document = responses[0].json()
    assert (document["activity"], document["kind"], document["phase"]) == ("q1", "quiz", "open")
    assert document["deadline_ms"] - document["opened_ms"] == 30_000
    assert len(responses[0].content) < 300
    for response in responses:
        assert response.headers["cache-control"] == "public, max-age=1, s-maxage=1"
        assert "set-cookie" not in response.headers
        assert "vary" not in response.headers


async def test_the_state_does_not_change_with_what_phones_send(web: Web, code: str) -> None:
    phone = await web.join(code)
    await web.start(code, "q1")
    before = (await phone.get("state")).content
    await phone.send("q1", choice="b")
    await web.join(code)
    assert (await phone.get("state")).content == before


async def test_a_state_that_is_known_is_not_sent_again(web: Web, code: str) -> None:
    http = web.client()
    etag = (await http.get(f"/r/{code}/state")).headers["etag"]
    for known in (etag, f'W/{etag}, "other"'):
        response = await http.get(f"/r/{code}/state", headers={"if-none-match": known})
        assert (response.status_code, response.content) == (304, b"")
        assert response.headers["etag"] == etag
    seen = {etag}
    steps = ({"action": "next"}, {"action": "open"}, {"action": "extend"}, {"action": "close"}, {"action": "archive"})
    for step in steps:
        await web.control(code, **step)
        response = await http.get(f"/r/{code}/state", headers={"if-none-match": etag})
        assert response.status_code == 200
        assert response.headers["etag"] not in seen
        seen.add(response.headers["etag"])
    response = await http.head(f"/r/{code}/state")
    assert (response.status_code, response.content) == (200, b"")


async def test_an_unknown_rooms_state_is_not_found_and_may_be_kept_for_a_while(web: Web) -> None:
    for path in ("/r/ZZZZ/state", "/r/ZZZZ/state", "/r/nonsense/state"):
        response = await web.client().get(path)
        assert response.status_code == 404
        assert response.headers["cache-control"] == "public, max-age=5, s-maxage=5"


async def test_every_page_has_a_policy_with_a_nonce_of_its_own_and_no_inline_code(web: Web, code: str) -> None:
    phone = await web.join(code)
    await web.start(code, "q1")
    pages = [
        (phone.http, "/"),
        (phone.http, f"/r/{code}"),
        (phone.http, f"/r/{code}/screen"),
        (phone.http, f"/r/{code}/raffle/raffle"),
        (web.client(), f"/r/{code}"),
        (web.client(), f"/stage/{code}"),
        (web.client(), f"/stage/{code}/screen"),
        (web.client(), "/present"),
        (web.client(), "/r/ZZZZ"),
        (web.client(), "/nothing"),
        (web.presenter, "/present"),
        (web.presenter, f"/present/{code}"),
        (web.presenter, f"/present/{code}/screen"),
    ]
    nonces = set()
    for client, path in pages:
        response = await client.get(path, headers=HTML)
        assert response.headers["content-type"].startswith("text/html"), path
        policy = response.headers["content-security-policy"]
        nonces.add(re.search(r"'nonce-([\w-]{16,})'", policy)[1])
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        check_markup(response.text, path)
        headers = response.headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        assert headers["cache-control"] == "no-store"
    assert len(nonces) == len(pages)


async def test_static_files_are_kept_for_ever_under_their_hash_only(web: Web) -> None:
    page = (await web.client().get("/", headers=HTML)).text
    for path in set(re.findall(r'(?:src|href)="(/static/[^"]+)"', page)):
        response = await web.client().get(path, headers={"accept-encoding": "gzip"})
        assert response.status_code == 200
        assert "immutable" in response.headers["cache-control"]
        assert response.headers["vary"] == "accept-encoding"
        plain = await web.client().get(path, headers={"accept-encoding": "identity"})
        assert plain.content == response.content
    stale = await web.client().get("/static/another-build/css/base.css")
    assert "immutable" not in stale.headers["cache-control"]
    assert (await web.client().get("/theme/5b5bd6.css")).headers["content-type"].startswith("text/css")
    assert (await web.client().get("/favicon.ico")).status_code == 200


FORMULAS = ("=1+1", "+SUM(A1)", "-2", "@cmd", "=cmd|' /C calc'!A0", 'a "quote", a comma')


async def test_both_exports_hold_every_response_once(web: Web, code: str) -> None:
    phone, other = await web.join(code), await web.join(code)
    await web.start(code, "q1")
    await phone.send("q1", choice="b")
    await web.start(code, "ask")
    await phone.send("ask", question="Why?")
    await web.start(code, "survey")
    await other.send("survey", stars=5, comment="two\nlines, \"and\" a 'quote'")
    await other.send("survey", stars=4)
    await other.post("nickname", {"nickname": "Ada"})
    lines = [json.loads(line) for line in (await web.export(code, "jsonl")).splitlines()]
    rows = list(csv.DictReader(io.StringIO(await web.export(code, "csv"), newline="")))
    assert len(lines) == len(rows) == 7
    assert [(r["type"], r["id"], r["at"]) for r in rows] == [(x["type"], x["id"], x["at"]) for x in lines]
    assert [x["counts"] for x in lines if x["type"] == "surveyed"] == [False, True]
    assert phone.participant not in json.dumps(lines)


async def test_no_cell_of_the_table_is_a_formula(web: Web, code: str) -> None:
    phones = [await web.join(code) for _ in FORMULAS]
    await web.start(code, "ask")
    for phone, text in zip(phones, FORMULAS, strict=True):
        assert (await phone.post("nickname", {"nickname": text})).status_code == 200
        assert (await phone.send("ask", question=text)).status_code == 200
    rows = list(csv.reader(io.StringIO(await web.export(code, "csv"), newline="")))
    cells = {cell for row in rows for cell in row}
    assert not {cell for cell in cells if cell[:1] in tuple("=+-@\t\r")}
    assert {f"'{text}" for text in FORMULAS[:-1]} | {FORMULAS[-1]} <= cells


async def test_an_export_is_a_file_with_the_rooms_name(web: Web, code: str) -> None:
    response = await web.presenter.get(f"/present/{code}/export?format=csv")
    assert response.headers["content-disposition"] == f'attachment; filename="crowdspike-{code}.csv"'
    assert response.headers["content-type"] == "text/csv; charset=utf-8"
    response = await web.presenter.get(f"/present/{code}/export?format=xlsx")
    assert (response.status_code, "csv" in response.json()["detail"]) == (400, True)


async def test_questions_are_listed_with_stable_ids_and_whether_they_may_be_shown(web: Web, code: str) -> None:
    phone = await web.join(code)
    await web.start(code, "ask")
    for text in ("Why?", "How?"):
        await phone.send("ask", question=text)
    first, second = await web.questions(code)
    assert [(q["question"], q["approved"], q["activity"]) for q in (first, second)] == [
        ("Why?", False, "ask"),
        ("How?", False, "ask"),
    ]
    await web.control(code, "approve", item=f"q:{second['id']}")
    assert await web.questions(code) == [first, {**second, "approved": True}]


async def test_anyone_can_check_a_draw_from_the_published_json(web: Web, code: str) -> None:
    for _ in range(5):
        await web.join(code)
    url = f"/r/{code}/raffle/raffle.json"
    committed = (await web.client().get(url)).json()
    assert (committed["seed"], committed["tickets"], committed["winners"]) == (None, [], [])
    await web.start(code, "raffle")
    await web.control(code, "close")
    frozen = (await web.client().get(url)).json()
    assert frozen["seed"] is None
    await web.control(code, "draw", prize=0)
    await web.control(code, "draw", prize=1)
    await web.control(code, "redraw", prize=0)
    facts = (await web.client().get(url)).json()

    def sha256(text: str) -> str:
        return hashlib.sha256(text.encode()).hexdigest()

    assert facts["commitment"] == committed["commitment"] == sha256(facts["seed"])
    assert facts["tickets"] == frozen["tickets"] == sorted(set(facts["tickets"]))
    assert len(facts["tickets"]) == 5
    digest = sha256("\n".join(facts["tickets"]))
    order = sorted(facts["tickets"], key=lambda t: sha256(f"{facts['seed']}:{digest}:{t}"))
    assert [d["ticket"] for d in facts["draws"]] == order[:3]
    assert facts["winners"] == [{"prize": "Book", "ticket": order[2]}, {"prize": "Mug", "ticket": order[1]}]
    page = (await web.client().get(f"/r/{code}/raffle/raffle", headers=HTML)).text
    assert facts["seed"] in page
    assert order[2] in page


async def test_health_readiness_and_metrics(web: Web, code: str) -> None:
    http = web.client()
    assert (await http.get("/healthz")).json() == {"status": "ok"}
    ready = await http.get("/readyz")
    assert (ready.status_code, ready.json()) == (200, {"store": "ok", "replicas_ready": 0, "replicas": 0})
    phone = await web.join(code)
    await web.start(code, "q1")
    await phone.send("q1", choice="b")
    await phone.send("q1", choice="a")
    await http.get(f"/r/{code}/state")
    text = (await http.get("/metrics")).text
    assert 'crowdspike_responses_saved_total{kind="answered"} 1.0' in text
    assert 'crowdspike_requests_refused_total{error="AlreadyAnswered"} 1.0' in text
    assert "crowdspike_state_polls_total 1.0" in text
    assert "# TYPE crowdspike_requests_refused_total counter" in text
    assert code not in text
    assert phone.participant not in text


async def test_what_the_room_is_about_to_ask_is_a_gauge(web: Web, code: str) -> None:
    async def expected() -> float:
        text = (await web.client().get("/metrics")).text
        return float(re.search(r"^crowdspike_expected_requests (\S+)$", text, re.MULTILINE)[1])

    assert await expected() == 0
    phone = await web.join(code)
    await web.join(code)
    assert await expected() == pytest.approx(2 / 30 * REPLY_S)
    await web.start(code, "q1")
    await phone.send("q1", choice="b")
    assert await expected() == pytest.approx(1 / 30 * REPLY_S)


async def test_without_its_store_a_process_is_alive_but_not_ready(web: Web, code: str, tmp_path: Path) -> None:
    (tmp_path / "store").rename(tmp_path / "away")
    (tmp_path / "store").touch()
    response = await web.client().get("/readyz")
    assert response.status_code == 503
    assert "store" in response.json()["store"]
    assert (await web.client().get("/healthz")).status_code == 200
    for client, path in (
        (web.client(), "/r/KWXM/state"),
        (web.client(), "/stage/KWXM/screen"),
        (web.presenter, "/present"),
        (web.presenter, f"/api/rooms/{code}/export"),
    ):
        response = await client.get(path)
        assert (response.status_code, response.headers["retry-after"]) == (503, "2"), path
    for path, body in (("/present/rooms", {"talk": "0"}), (f"/present/{code}/control", {"action": "next"})):
        response = await web.presenter.post(path, json=body)
        assert (response.status_code, response.headers["retry-after"]) == (503, "2"), path
