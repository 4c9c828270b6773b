"""That text from phones and talk files is text on every page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from callers import HTML, Phone, Web, web_on
from markup import check_markup

from tests.sample_room import ASK, QUIZ, RAFFLE, SEVERAL, SURVEY, TALK
from webapp.talk.model import Code, Option, Talk

NASTY = "\"><script>alert(1)</script><img src=x onerror='alert(2)'>{{ 7*7 }}${x}&lt;"
SHORT = "<script>x</script>\"'&"  # fits a nickname
NASTY_TALK = Talk(
    f"Talk {NASTY}",
    (
        replace(
            QUIZ,
            title=f"Quiz {NASTY}",
            options=(Option("a", NASTY), Option("b", "</button>" + NASTY, correct=True)),
            explanation=f"Because {NASTY}",
            code=Code(f"print('{NASTY}')", "python"),
        ),
        SEVERAL,
        replace(ASK, title=f"Ask {NASTY}", prompt=NASTY, examples=(NASTY,)),
        replace(
            SURVEY,
            title=f"Survey {NASTY}",
            prompt=NASTY,
            fields=tuple(
                replace(f, label=NASTY, options=tuple(f"{o}{NASTY}" for o in f.options)) for f in SURVEY.fields
            ),
        ),
        replace(RAFFLE, title=f"Raffle {NASTY}", prompt=NASTY, prizes=(NASTY,)),
    ),
    speaker=NASTY,
    subtitle=NASTY,
)


async def look(web: Web, code: str, phone: Phone, where: str) -> str:
    """All pages of the moment, each checked."""
    pages = []
    for client, path in (
        (phone.http, f"/r/{code}"),
        (phone.http, f"/r/{code}/screen"),
        (phone.http, f"/r/{code}/raffle/raffle"),
        (web.client(), f"/stage/{code}"),
        (web.client(), f"/stage/{code}/screen"),
        (web.presenter, f"/present/{code}"),
        (web.presenter, f"/present/{code}/screen"),
        (web.presenter, "/present"),
    ):
        response = await client.get(path, headers=HTML)
        assert response.status_code == 200, (path, where)
        check_markup(response.text, f"{path} at {where}")
        pages.append(response.text)
    return "".join(pages)


@pytest.mark.parametrize("talk", [NASTY_TALK, TALK], ids=["nasty talk", "nasty phones"])
async def test_no_text_becomes_markup_anywhere_in_a_whole_talk(talk: Talk, tmp_path: Path) -> None:
    async with web_on(tmp_path, talks=[talk]) as web:
        code = await web.room()
        phone = await web.join(code)
        await phone.post("nickname", {"nickname": SHORT})
        await web.control(code, "moderation", on=False)
        seen = await look(web, code, phone, "lobby")
        assert seen.count("&lt;script&gt;x&lt;/script&gt;") >= 3
        await web.start(code, "q1")
        seen += await look(web, code, phone, "open")
        await phone.send("q1", choice="b")
        for action in ("close", "reveal"):
            await web.control(code, action)
            seen += await look(web, code, phone, action)
        await web.start(code, "ask")
        await phone.send("ask", question=NASTY)
        asked = await look(web, code, phone, "ask")
        assert asked.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 4
        await web.start(code, "survey")
        await phone.send("survey", stars=5, comment=SHORT)
        await web.control(code, "reveal")
        assert "&lt;script&gt;x" in await look(web, code, phone, "survey")
        await web.start(code, "raffle")
        await web.control(code, "close")
        await web.control(code, "draw")
        await look(web, code, phone, "raffle")
        await web.control(code, "show", scene="podium")
        await look(web, code, phone, "podium")
        await web.control(code, "archive")
        await look(web, code, phone, "archived")


@pytest.mark.parametrize(
    ("path", "params"),
    [
        ("/", {"code": NASTY}),
        ("/r/<script>alert(1)</script>", {}),
        ("/present", {"token": NASTY}),
        ("/r/{code}/raffle/<script>alert(1)</script>", {}),
        ("/r/{code}", {"notice": NASTY}),
        ("/r/{code}/screen", {"v": NASTY}),
        ("/nothing/<script>alert(1)</script>", {}),
    ],
)
async def test_nothing_of_an_address_becomes_markup(web: Web, code: str, path: str, params: dict) -> None:
    phone = await web.join(code)
    response = await phone.http.get(path.format(code=code), params=params, headers=HTML)
    assert response.status_code in (200, 401, 404, 422)
    check_markup(response.text, path)


async def test_a_refused_action_echoes_no_markup(web: Web, code: str) -> None:
    for headers in (HTML, {**HTML, "hx-request": "true"}):
        body = {"action": NASTY, "scene": NASTY}
        response = await web.presenter.post(f"/present/{code}/control", data=body, headers=headers)
        check_markup(response.text, "control")
