"""The projector's page. Needs no token and shows no secret."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse

from webapp.context import App, Crowdspike, Room, now_ms
from webapp.errors import RateLimited
from webapp.live_room import LiveRoom
from webapp.routes.state import state_document
from webapp.views.spike_mark import with_spikes
from webapp.views.stage import StageScreen, stage_screen

router = APIRouter()
MAX_WATCHERS = 500
SNAPSHOT_S = 1.0
COALESCE_S = 0.2
SHOWS = ("room", "cluster", "both")


@router.get("/stage/{code}")
async def stage(request: Request, app: Crowdspike, room: Room) -> Response:
    return _page(request, app, room, "stage/page.html")


@router.get("/stage/{code}/screen")
async def screen(request: Request, app: Crowdspike, room: Room) -> Response:
    return _page(request, app, room, "stage/screen.html")


@router.get("/stage/{code}/events")
async def events(request: Request, app: Crowdspike, room: Room) -> Response:
    """`snapshot`: a JSON document a second. `changed`: the screen is another, fetch it."""
    return event_stream(
        app,
        room,
        lambda: replace(_screen(request, app, room), now_ms=0),
        lambda: stage_snapshot(app, room),
    )


def event_stream(
    app: App, room: LiveRoom, view: Callable[[], object], snapshot: Callable[[], dict], coalesce_s: float = COALESCE_S
) -> Response:
    """Server-sent events for a page that follows a room: every change at once, though at most one in `coalesce_s`, and
    a snapshot a second."""
    if room.watchers >= MAX_WATCHERS:
        raise RateLimited(f"{MAX_WATCHERS} screens follow this room already.")

    async def stream() -> AsyncIterator[bytes]:
        shown: object = None
        async for _ in room.changes(SNAPSHOT_S - coalesce_s, app.stopping):
            room.used_ms = now_ms()
            body = f"event: snapshot\ndata: {json.dumps(snapshot())}\n\n"
            current = view()
            if current != shown:
                shown = current
                body += "event: changed\ndata: {}\n\n"
            yield body.encode()
            await asyncio.sleep(coalesce_s)

    return StreamingResponse(stream(), media_type="text/event-stream", headers={"x-accel-buffering": "no"})


def stage_snapshot(app: App, room: LiveRoom, cluster: bool = True) -> dict:
    """The numbers of the moment. Nothing in it may be a secret."""
    at_ms = now_ms()
    replicas = app.pool.replicas
    shown = {}
    if app.fleet and cluster:
        edge_s = app.fleet.chain.edge_at_s if app.fleet.chain else None
        shown = {"cluster": with_spikes(app.fleet.document(), room.state.spikes, edge_s, at_ms)}
    return {
        **state_document(room, at_ms),
        "now_ms": at_ms,
        "joined": len(room.state.people),
        "scripted": room.state.scripted,
        "model": {
            "simulated": app.settings.simulated,
            "replicas": len(replicas),
            "ready": sum(1 for r in replicas if r.ready),
            "in_flight": sum(r.in_flight for r in replicas),
        },
        **shown,
    }


def _screen(request: Request, app: App, room: LiveRoom) -> StageScreen:
    join_url = f"{app.public_url(request)}/j/{room.info.code}"
    return stage_screen(room.state, now_ms(), join_url, app.settings.simulated, app.replies.texts(room))


def _page(request: Request, app: App, room: LiveRoom, template: str) -> Response:
    view = _screen(request, app, room)
    slots = app.fleet.slots if app.fleet else 0
    asked = request.query_params.get("show", "")
    return app.page(
        request,
        template,
        talk=room.info.talk,
        screen=view,
        activity=view.activity,
        code=room.info.code,
        slots=slots,
        show=(asked if asked in SHOWS else "both") if slots else "room",
    )
