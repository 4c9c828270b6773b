"""The presenter's pages and calls. Everything but signing in needs the token."""

from __future__ import annotations

import secrets
from dataclasses import fields, replace
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response

from webapp import export
from webapp.context import (
    App,
    Crowdspike,
    Room,
    is_presenter,
    now_ms,
    presenter,
    read_form,
    same_site,
    session_of,
    wants_html,
)
from webapp.errors import BadForm
from webapp.identity import PRESENTER_COOKIE, same
from webapp.live_room import LiveRoom
from webapp.room.commands import Action, CommandRefused
from webapp.room.events import Asked, Moderated
from webapp.room.names import normal_code
from webapp.routes import spikes as spike_routes
from webapp.routes.cluster import panel_of
from webapp.routes.stage import event_stream, stage_snapshot
from webapp.talk.check import summary
from webapp.views.console import ConsoleScreen, console_screen

router = APIRouter()
private = APIRouter(dependencies=[Depends(presenter)])
changing = Depends(same_site)
REPLY_LOST_AFTER_MS = 120_000
COALESCE_S = 0.5  # a full console is half a megabyte of HTML
COOKIE_AGE_S = 30 * 24 * 3600


@router.get("/present")
async def rooms(request: Request, app: Crowdspike, token: str = "") -> Response:
    """The list of rooms; the link with the token signs in and leads here without it."""
    if token:
        return _sign_in(request, app, token)
    if not is_presenter(request, app):
        return app.page(request, "pages/signin.html", 401, error=None)
    rows = [
        {
            "code": row.code,
            "title": row.title,
            "created_ms": row.created_ms,
            "created": datetime.fromtimestamp(row.created_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC"),
            "joined": row.joined,
            "scripted": row.scripted,
            "archived": row.archived,
            "simulated": app.settings.simulated,
        }
        for row in await app.rooms.list()
    ]
    talks = [{"path_id": str(i), "title": t.title, "summary": summary(t)} for i, t in enumerate(app.talks)]
    return app.page(request, "console/rooms.html", rooms=rows, talks=talks)


@router.post("/present", dependencies=[changing])
async def sign_in(request: Request, app: Crowdspike) -> Response:
    return _sign_in(request, app, str((await read_form(request)).get("token", "")))


@router.post("/present/signout", dependencies=[changing])
async def sign_out() -> Response:
    response = RedirectResponse("/present", 303)
    response.delete_cookie(PRESENTER_COOKIE)
    return response


@private.post("/present/rooms", dependencies=[changing])
async def make_room(request: Request, app: Crowdspike) -> Response:
    """A new room of an offered talk (`talk`, its number in the list) or of the talk of another room (`same_as`)."""
    form = await read_form(request)
    same_as = normal_code(str(form.get("same_as", "")))
    number = str(form.get("talk", "0"))
    if same_as is not None:
        talk = (await app.rooms.get(same_as)).info.talk
    elif number.isascii() and number.isdigit() and len(number) < 5 and int(number) < len(app.talks):
        talk = app.talks[int(number)]
    else:
        raise BadForm(f"talk must be a number from 0 to {len(app.talks) - 1}, or give same_as a room's code.")
    room = await app.rooms.make(talk)
    if wants_html(request):
        return RedirectResponse(f"/present/{room.info.code}", 303)
    return JSONResponse({"code": room.info.code}, 201)


@private.get("/present/{code}")
async def console(request: Request, app: Crowdspike, room: Room) -> Response:
    return _page(request, app, room, "console/page.html")


@private.get("/present/{code}/screen")
async def screen(request: Request, app: Crowdspike, room: Room) -> Response:
    return _page(request, app, room, "console/screen.html")


@private.get("/present/{code}/events")
async def events(app: Crowdspike, room: Room) -> Response:
    def view() -> object:
        return replace(_screen(app, room), now_ms=0), dict(room.state.spikes)

    def snapshot() -> dict[str, Any]:
        return {**stage_snapshot(app, room, cluster=False), "store_fails": room.responses.failing_since is not None}

    return event_stream(app, room, view, snapshot, COALESCE_S)


@private.post("/present/{code}/control", dependencies=[changing])
async def control(request: Request, app: Crowdspike, room: Room) -> Response:
    """One action, see `webapp.room.commands`. Answers with the new console, a redirect, or JSON, as asked for."""
    try:
        event = await room.command(_action(await read_form(request)))
    except CommandRefused as refused:
        if "hx-request" in request.headers:
            return app.page(request, "console/refused.html", 200, message=str(refused))
        raise
    if isinstance(event, Moderated):
        _reply_again(app, room, event)
    if "hx-request" in request.headers:
        return _page(request, app, room, "console/screen.html")
    if wants_html(request):
        return RedirectResponse(f"/present/{room.info.code}", 303)
    return JSONResponse({"type": type(event).__name__.lower(), "seq": room.state.seq, "version": room.state.version})


@private.get("/present/{code}/export")
@private.get("/api/rooms/{code}/export")
async def download(room: Room, format: str = "csv") -> Response:
    """Every response of the room, as CSV or as lines of JSON."""
    if format not in export.FORMATS:
        raise BadForm(f"format must be one of {', '.join(export.FORMATS)}, not {format[:20]!r}.")
    await room.catch_up()
    body = "".join(export.FORMATS[format](room.state))
    media_type = "text/csv; charset=utf-8" if format == "csv" else "application/jsonl"
    name = f"crowdspike-{room.info.code}.{format}"
    return Response(body, media_type=media_type, headers={"content-disposition": f'attachment; filename="{name}"'})


@private.get("/api/rooms/{code}")
async def room_facts(room: Room) -> dict[str, Any]:
    """The talk's activities, in order, and who is here: for scripts that lead or load the room."""
    state, at_ms = room.state, now_ms()
    return {
        "code": room.info.code,
        "title": room.info.talk.title,
        "people": len(state.people),
        "scripted": state.scripted,
        "activities": [
            {"id": a.id, "kind": str(a.kind), "title": a.title, "phase": str(state.of(a.id).phase(at_ms))}
            for a in room.info.talk.activities
        ],
    }


@private.get("/api/rooms/{code}/questions")
async def questions(room: Room) -> dict[str, Any]:
    """What the room asked, for load scripts: `id` is stable, `approved` says that the stage may show it."""
    return {
        "questions": [
            {
                "id": q.key,
                "activity": q.activity,
                "question": q.question,
                "at_ms": q.at_ms,
                "approved": room.state.may_show(f"q:{q.key}"),
            }
            for q in room.state.questions()
        ]
    }


def _reply_again(app: App, room: LiveRoom, event: Moderated) -> None:
    """A question for the stage that still has no reply: the process that made it has ended, so it is made here."""
    asked = room.state.responses.get(event.item.removeprefix("q:"))
    if isinstance(asked, Asked) and event.at_ms - asked.at_ms > REPLY_LOST_AFTER_MS:
        app.replies.start(room, asked)


def _sign_in(request: Request, app: App, token: str) -> Response:
    address = request.client.host if request.client else ""
    app.limit("sign-in", app.settings.sign_ins_per_minute_per_address, address)
    if not same(token.strip(), app.presenter_token):
        error = "That is not the presenter token. It was printed when the server started."
        return app.page(request, "pages/signin.html", 401, error=error)
    response = RedirectResponse("/present", 303)
    response.set_cookie(
        PRESENTER_COOKIE,
        app.signer.sign("presenter", session_of(app)),
        max_age=COOKIE_AGE_S,
        httponly=True,
        samesite="lax",
        secure=request.url.scheme == "https",
    )
    return response


def _action(form: dict[str, Any]) -> Action:
    known = {f.name: f for f in fields(Action)}
    values: dict[str, Any] = {"id": secrets.token_hex(8), "action": ""}
    for name, raw in {"id": form.get("request_id", values["id"]), **form}.items():
        if name not in known:
            continue
        text = str(raw)
        if name == "on":
            values[name] = text.lower() in ("1", "true", "on", "yes")
        elif name in ("by_s", "prize"):
            if not text.isascii() or not text.isdigit() or len(text) > 6:
                raise BadForm(f"{name} must be a whole number, not {text[:20]!r}.")
            values[name] = int(text)
        else:
            values[name] = text[:500]
    return Action(**values)


def _screen(app: App, room: LiveRoom) -> ConsoleScreen:
    return console_screen(room.state, now_ms(), room.presence, app.replies.texts(room))


def _page(request: Request, app: App, room: LiveRoom, template: str) -> Response:
    view = _screen(app, room)
    return app.page(
        request,
        template,
        talk=room.info.talk,
        screen=view,
        activity=view.activity,
        code=room.info.code,
        join_url=f"{app.public_url(request)}/j/{room.info.code}",
        panel=panel_of(app.fleet),
        spike=spike_routes.panel_of(app, room),
    )
