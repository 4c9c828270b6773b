"""What a phone calls: joining, its screen, its responses, the replies to them."""

from __future__ import annotations

import secrets
from random import SystemRandom
from typing import Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response, StreamingResponse

from webapp.context import (
    App,
    Crowdspike,
    Participant,
    Room,
    Visitor,
    now_ms,
    read_form,
    same_site,
    wants_html,
)
from webapp.errors import ActivityUnknown, BadForm, BadResponse, LobbyLocked, RoomEnded, RoomFull
from webapp.gateway.metrics import SOURCES
from webapp.identity import PARTICIPANT_COOKIE, new_participant
from webapp.live_room import LiveRoom
from webapp.responses import parse_response
from webapp.room import names, raffle
from webapp.room.events import AUDIENCE, Answered, Asked, Joined, Named
from webapp.room.state import Phase
from webapp.talk.model import Raffle
from webapp.views.console import Presence
from webapp.views.phone import PhoneScreen, phone_screen

router = APIRouter()
changing = Depends(same_site)
SCREENS_PER_MINUTE = 120
COOKIE_AGE_S = 30 * 24 * 3600
_random = SystemRandom()

NOTICES = {
    "saved": ("ok", "Saved."),
    "late": ("error", "Too late: this was closed before your answer arrived."),
    "answered": ("ok", "You have answered already; the first answer counts."),
    "named": ("ok", "Your new name is saved."),
}


@router.get("/")
async def enter(request: Request, app: Crowdspike, code: str = "") -> Response:
    """The form to type a room's code, and where it leads."""
    wanted = names.normal_code(code)
    if wanted is not None:
        return RedirectResponse(f"/r/{wanted}", 303)
    error = f"A room code has {names.CODE_LENGTH} letters, such as KWXM." if code else None
    return app.page(request, "pages/enter.html", 200 if not code else 422, error=error, code=code[:12])


@router.get("/j/{code}")
async def scan(room: Room) -> Response:
    """Where the QR code leads."""
    return RedirectResponse(f"/r/{room.info.code}", 303)


@router.get("/r/{code}")
async def phone(request: Request, app: Crowdspike, room: Room, who: Visitor, notice: str = "") -> Response:
    talk = room.info.talk
    if request.path_params["code"] != room.info.code:
        return RedirectResponse(f"/r/{room.info.code}", 303)  # the cookie is for the one spelling
    if who is None:
        if room.state.archived_ms is not None:
            raise RoomEnded("This talk is over. If another one is on, type its code.")
        return app.page(request, "phone/join.html", talk=talk, **_join_names(app, room))
    screen = _screen(app, room, who)
    kind, text = NOTICES.get(notice, ("", ""))
    return app.page(
        request,
        "phone/page.html",
        talk=talk,
        screen=screen,
        notice={"kind": kind, "text": text} if text else None,
        autorefresh=_waits(screen),
        activity=screen.activity,
        code=room.info.code,
    )


@router.get("/r/{code}/screen")
async def screen(request: Request, app: Crowdspike, room: Room, who: Participant, v: int = 0) -> Response:
    """The phone's own screen, to be swapped in. `v` is the version that it saw in the state document."""
    if room.state.version < v:
        app.limit("catch-up", SCREENS_PER_MINUTE, who)
        await room.catch_up()
    view = _screen(app, room, who)
    return app.page(
        request, "phone/screen.html", talk=room.info.talk, screen=view, activity=view.activity, code=room.info.code
    )


@router.post("/r/{code}/join", dependencies=[changing])
async def join(request: Request, app: Crowdspike, room: Room, who: Visitor) -> Response:
    form = await read_form(request)
    if who is None:
        who = await _join(request, app, room, str(form.get("nickname", "")))
    response: Response = RedirectResponse(f"/r/{room.info.code}", 303)
    if not wants_html(request):
        response = JSONResponse({"nickname": room.state.nickname(who)}, 201)
    response.set_cookie(
        PARTICIPANT_COOKIE,
        app.signer.sign(f"phone:{room.info.code}", who),
        max_age=COOKIE_AGE_S,
        path=f"/r/{room.info.code}",
        httponly=True,
        samesite="lax",
        secure=app.public_url(request).startswith("https:"),
    )
    return response


@router.post("/r/{code}/nickname", dependencies=[changing])
async def nickname(request: Request, app: Crowdspike, room: Room, who: Participant) -> Response:
    app.limit("nickname", 10, who)
    form = await read_form(request)
    name = names.clean_line(str(form.get("nickname", "")))
    if not 1 <= len(name) <= names.NICKNAME_MAX:
        message = f"A nickname has 1 to {names.NICKNAME_MAX} characters, not {len(name)}."
        raise BadResponse(message, fields={"nickname": message})
    event = Named(id=f"name-{secrets.token_hex(6)}", participant=who, at_ms=now_ms(), nickname=name)
    await room.submit(event)
    return _done(request, room, "named", {"nickname": name})


@router.post("/r/{code}/responses", dependencies=[changing])
async def respond(request: Request, app: Crowdspike, room: Room, who: Participant) -> Response:
    """Stores an answer, a question or a survey form. Only a stored one is answered with 200."""
    received_ms = now_ms()
    app.limit("responses", app.settings.responses_per_minute, who)
    event = parse_response(room.info.talk, who, await read_form(request), received_ms)
    stored = await room.submit(event)
    app.saved.labels(type(stored).__name__.lower()).inc()
    reply = None
    if isinstance(stored, Answered | Asked):
        app.replies.start(room, stored)
        reply = f"/r/{room.info.code}/replies/{stored.id}"
    return _done(request, room, "saved", {"response_id": stored.id, "at_ms": stored.at_ms, "reply": reply})


@router.get("/r/{code}/replies/{response_id}")
async def replies(
    request: Request, app: Crowdspike, room: Room, who: Participant, response_id: str, after: str = ""
) -> Response:
    """The LLM's reply to one's own response, as server-sent events; resumes after `Last-Event-ID`, or `after` (a page
    that opens a stream of its own again cannot set the header)."""
    key = f"{who}:{response_id}"
    if not room.state.has(key):
        await room.catch_up()
    response = room.state.responses.get(key)
    if not isinstance(response, Answered | Asked):
        raise ActivityUnknown("There is no such response of yours to reply to.")
    last_event_id = request.headers.get("last-event-id", after)[:64]
    events = app.replies.stream(room, response, last_event_id, app.stopping)
    return StreamingResponse(events, media_type="text/event-stream", headers={"x-accel-buffering": "no"})


@router.post("/r/{code}/presence", dependencies=[changing])
async def presence(request: Request, app: Crowdspike, room: Room, who: Participant) -> Response:
    """What the phone found out about its link, about three times a minute."""
    app.limit("presence", 30, who)
    form = await read_form(request)
    rtt_ms, misses = form.get("rtt_ms"), form.get("misses")
    if not (isinstance(rtt_ms, int) and isinstance(misses, int) and 0 <= rtt_ms < 10**6 and 0 <= misses <= 10):
        raise BadForm("rtt_ms (milliseconds) and misses (0 to 10) must be whole numbers.")
    room.beacon(who, Presence(now_ms(), rtt_ms, misses))
    return Response(status_code=204)


@router.get("/r/{code}/raffle/{activity_id}.json")
async def raffle_json(room: Room, activity_id: str) -> dict[str, Any]:
    """Everything that a draw is checked with."""
    _, facts = _raffle_facts(room, activity_id)
    return facts


@router.get("/r/{code}/raffle/{activity_id}")
async def raffle_page(request: Request, app: Crowdspike, room: Room, activity_id: str) -> Response:
    activity, facts = _raffle_facts(room, activity_id)
    winners = [(w["prize"], w["ticket"]) for w in facts["winners"]]
    return app.page(
        request,
        "pages/raffle.html",
        talk=room.info.talk,
        code=room.info.code,
        talk_title=room.info.talk.title,
        raffle=activity,
        commitment=facts["commitment"],
        seed=facts["seed"] or "",
        tickets=facts["tickets"],
        winners=winners,
    )


def _raffle_facts(room: LiveRoom, activity_id: str) -> tuple[Raffle, dict[str, Any]]:
    activity = room.info.talk.activity(activity_id)
    if not isinstance(activity, Raffle):
        raise ActivityUnknown(f"This talk has no raffle {activity_id[:40]!r}.")
    progress = room.state.of(activity.id)
    seed = progress.draws[0].seed if progress.draws else None
    return activity, {
        "commitment": raffle.commitment(room.info.seed),
        "tickets": list(progress.entrants),
        "seed": seed,
        "draws": [{"prize": activity.prizes[d.prize], "ticket": d.ticket} for d in progress.draws],
        "winners": [
            {"prize": activity.prizes[prize], "ticket": d.ticket} for prize, d in sorted(progress.winners.items())
        ],
    }


def _join_names(app: App, room: LiveRoom) -> dict[str, Any]:
    name = names.nickname(_random, room.state.given_names)
    return {
        "talk_title": room.info.talk.title,
        "code": room.info.code,
        "locked": room.state.locked,
        "nickname": name,
        "signed_nickname": app.signer.sign("nickname", name),
    }


async def _join(request: Request, app: App, room: LiveRoom, signed_nickname: str) -> str:
    """Lets a new participant in, under the name that the join page offered, or another generated one. Who says in
    `X-Load-Source` to be a script gets a name that says so, too."""
    address = request.client.host if request.client else ""
    app.limit("join", app.settings.joins_per_minute_per_address, address)
    if room.state.archived_ms is not None:
        raise RoomEnded("This talk is over. Nobody can join any more.")
    if room.state.locked:
        raise LobbyLocked("The presenter has locked the room. Ask them to let you in.")
    if len(room.state.joins) >= app.settings.max_participants:
        raise RoomFull(f"This room takes {app.settings.max_participants} phones, and all places are taken.")
    who = new_participant()
    source = request.headers.get("x-load-source", AUDIENCE)
    if source == AUDIENCE:
        name = app.signer.verify("nickname", signed_nickname) or _join_names(app, room)["nickname"]
    else:
        source, name = source if source in SOURCES else "api", f"Scripted {who[:6]}"
    await room.append(Joined(id="join", participant=who, at_ms=now_ms(), nickname=name, source=source))
    return who


def _screen(app: App, room: LiveRoom, who: str) -> PhoneScreen:
    return phone_screen(room.state, who, now_ms(), app.replies.texts(room))


def _waits(screen: PhoneScreen) -> bool:
    """Whether a phone without JavaScript may reload by itself: nothing that somebody typed would be lost."""
    typing = screen.name in ("ask", "survey") or (screen.name == "quiz" and not screen.answered)
    return not (typing and screen.phase is Phase.OPEN)


def _done(request: Request, room: LiveRoom, notice: str, facts: dict[str, Any]) -> Response:
    if wants_html(request):
        return RedirectResponse(f"/r/{room.info.code}?notice={notice}", 303)
    return JSONResponse({notice: True, **facts})
