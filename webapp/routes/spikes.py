"""Load runs by HTTP: chosen, armed, fired and stopped by the presenter, and what they left."""

from __future__ import annotations

import re
import secrets
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response

from loadgen.spike.folder import POINTS, REPORT, SUMMARY
from webapp.context import App, Crowdspike, Room, now_ms, presenter, read_form, same_site, wants_html
from webapp.errors import AppError, BadForm, NotSaved
from webapp.live_room import LiveRoom
from webapp.log.store import NotFound, StoreError
from webapp.room import spikes
from webapp.room.commands import CommandRefused
from webapp.room.spikes import Spike
from webapp.spikes import keeping
from webapp.spikes.choice import Limits, choose
from webapp.spikes.installed import missing
from webapp.views.spike_panel import SpikePanel, spike_panel

private = APIRouter(dependencies=[Depends(presenter)])
changing = Depends(same_site)
ACTIONS = ("arm", "fire", "stop")
_ID = re.compile(r"[0-9a-f]{8,32}")
FILES = {
    "report": (REPORT, "text/html; charset=utf-8"),
    "summary.json": (SUMMARY, "application/json"),
    "points.jsonl.gz": (POINTS, "application/gzip"),
}
REPORT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; sandbox"
)
"""A page by itself, with its style in it: it runs nothing and asks for nothing."""


@private.get("/present/{code}/spikes")
async def shown(request: Request, app: Crowdspike, room: Room) -> Response:
    """The panel for htmx, JSON for everybody else."""
    if "hx-request" in request.headers:
        return _panel(request, app, room)
    return JSONResponse({"spikes": [_facts(app, spike) for spike in room.state.spikes.values()]})


@private.post("/present/{code}/spikes", dependencies=[changing])
async def act(request: Request, app: Crowdspike, room: Room) -> Response:
    """`action`: `arm` what `webapp.spikes.choice` reads, then `fire`; `stop` at any time. Fire and stop are of the run
    with the `id`, or of the one under way. Answers with the panel, a redirect, or JSON, as asked for."""
    form = await read_form(request)
    try:
        spike = await _act(app, room, form)
    except (AppError, CommandRefused) as refused:
        if "hx-request" in request.headers:
            return app.page(request, "console/refused.html", 200, message=str(refused))
        raise
    if "hx-request" in request.headers:
        return _panel(request, app, room)
    if wants_html(request):
        return RedirectResponse(f"/present/{room.info.code}", 303)
    return JSONResponse(_facts(app, spike))


@private.delete("/present/{code}/spikes/{id}", dependencies=[changing])
async def stop(app: Crowdspike, room: Room, id: str) -> Response:
    spike = _known(room, id)
    if spike.ended is None and spike.stopped_ms is None:
        await app.spikes.stop(room, id)
    return JSONResponse(_facts(app, room.state.spikes[id]))


@private.get("/present/{code}/spikes/{id}/{name}")
async def file(app: Crowdspike, room: Room, id: str, name: str) -> Response:
    """What a run has left: `report`, `summary.json`, `points.jsonl.gz`. 404 until it has ended."""
    if name not in FILES or id not in room.state.spikes:
        raise HTTPException(404)
    stored, media_type = FILES[name]
    try:
        body = await app.rooms.store.get(keeping.place(room.info.code, id, stored))
    except NotFound:
        raise HTTPException(404) from None
    except StoreError as error:
        raise NotSaved("The store does not answer just now. Try again in a few seconds.") from error
    filename = f"spike-{room.info.code}-{id}.{'html' if name == 'report' else name}"
    shown = "inline" if name == "report" else "attachment"
    headers = {"content-disposition": f'{shown}; filename="{filename}"'}
    if name == "report":
        headers["content-security-policy"] = REPORT_POLICY
    return Response(body, media_type=media_type, headers=headers)


def panel_of(app: App, room: LiveRoom) -> SpikePanel:
    active = spikes.active(room.state.spikes)
    progress = app.spikes.progress(active.id) if active else None
    return spike_panel(room.state, now_ms(), progress, missing(), _limits(app), app.spike_target)


async def _act(app: App, room: LiveRoom, form: dict[str, Any]) -> Spike:
    action = str(form.get("action", ""))
    if action not in ACTIONS:
        raise BadForm(f"action must be one of {', '.join(ACTIONS)}, not {action[:20]!r}.")
    if action == "arm":
        return await _arm(app, room, form)
    id = str(form.get("id", ""))
    active = spikes.active(room.state.spikes)
    spike = _known(room, id) if id else active
    if spike is None:
        raise CommandRefused("No load run stands ready or is under way.")
    if action == "stop" and spike.ended is None and spike.stopped_ms is None:
        await app.spikes.stop(room, spike.id)
    if action == "fire" and spike.fired is None:
        await app.spikes.fire(room, spike.id)
    return room.state.spikes[spike.id]


async def _arm(app: App, room: LiveRoom, form: dict[str, Any]) -> Spike:
    choice = choose(form, app.spike_target, _limits(app))
    if why_not := missing()[choice.tool]:
        raise CommandRefused(why_not)
    id = str(form.get("request_id", ""))
    return await app.spikes.arm(room, choice, id if _ID.fullmatch(id) else secrets.token_hex(12))


def _limits(app: App) -> Limits:
    return Limits(app.settings.spike_max_peak, app.settings.spike_max_duration_s)


def _known(room: LiveRoom, id: str) -> Spike:
    spike = room.state.spikes.get(id)
    if spike is None:
        raise HTTPException(404)
    return spike


def _facts(app: App, spike: Spike) -> dict[str, Any]:
    progress = app.spikes.progress(spike.id)
    return {
        "id": spike.id,
        "phase": spike.phase,
        "armed": asdict(spike.armed),
        "fired_ms": spike.fired.at_ms if spike.fired else None,
        "stopped_ms": spike.stopped_ms,
        "ended": asdict(spike.ended) if spike.ended else None,
        "progress": asdict(progress) if progress else None,
    }


def _panel(request: Request, app: App, room: LiveRoom) -> Response:
    return app.page(request, "console/spike.html", code=room.info.code, spike=panel_of(app, room))
