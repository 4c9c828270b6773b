"""The cluster's half of stage and console: what is shown of it, and what the presenter does to it."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response

from inference.cluster.cluster import NotPossible
from webapp.context import App, Crowdspike, Room, presenter, read_form, same_site, wants_html
from webapp.errors import BadForm
from webapp.live.controls import ACTIONS
from webapp.live.fleet import Fleet
from webapp.live_room import LiveRoom
from webapp.room.commands import CommandRefused
from webapp.views.cluster_panel import NO_CLUSTER, Panel, cluster_panel, no_panel

router = APIRouter()
private = APIRouter(dependencies=[Depends(presenter)])


@router.get("/stage/{code}/history")
async def history(app: Crowdspike, room: Room) -> dict[str, Any]:
    """The last twenty minutes in columns, for a stage that has just been opened; 404 where there is no cluster."""
    if app.fleet is None:
        raise HTTPException(404)
    return app.fleet.history.columns()


@private.get("/present/{code}/cluster")
async def panel(request: Request, app: Crowdspike, room: Room) -> Response:
    return _panel(request, app, room)


@private.post("/present/{code}/cluster", dependencies=[Depends(same_site)])
async def steer(request: Request, app: Crowdspike, room: Room) -> Response:
    """One `action` of `webapp.live.controls`: `pin` with `replicas`, `deny` and `allow` with an instance type as
    `name`, `kill` and `interrupt` with a `name` or without. Answers with the panel, a redirect, or JSON, as asked."""
    form = await read_form(request)
    try:
        said = await _do(app.fleet, form)
    except CommandRefused as refused:
        if "hx-request" in request.headers:
            return app.page(request, "console/refused.html", 200, message=str(refused))
        raise
    if "hx-request" in request.headers:
        return _panel(request, app, room)
    if wants_html(request):
        return RedirectResponse(f"/present/{room.info.code}", 303)
    return JSONResponse({"said": said})


def panel_of(fleet: Fleet | None) -> Panel:
    if fleet is None:
        return no_panel()
    snapshot, controls = fleet.cluster.snapshot(), fleet.controls
    return cluster_panel(
        snapshot,
        fleet.document(fresh=True),
        controls.unavailable,
        controls.refused,
        controls.said,
        fleet.cluster.told(),
    )


async def _do(fleet: Fleet | None, form: dict[str, Any]) -> str:
    action, name = str(form.get("action", "")), str(form.get("name", ""))[:100]
    if action not in ACTIONS:
        raise BadForm(f"action must be one of {', '.join(ACTIONS)}, not {action[:20]!r}.")
    if fleet is None:
        raise CommandRefused(NO_CLUSTER)
    if action in ("deny", "allow") and not name:
        raise BadForm(f"{action} needs the name of an instance type.")
    replicas = _replicas(fleet, str(form.get("replicas", ""))) if action == "pin" else None
    try:
        return await fleet.controls.do(action, name or None, replicas)
    except NotPossible as error:
        raise CommandRefused(str(error)) from error


def _replicas(fleet: Fleet, text: str) -> int:
    scaler = fleet.cluster.snapshot().autoscaler
    if scaler is None:
        raise CommandRefused("Nothing scales this cluster.")
    if not (text.isascii() and text.isdigit() and len(text) < 5 and int(text) <= scaler.max_replicas):
        raise BadForm(f"replicas must be a whole number from 0 to {scaler.max_replicas}, not {text[:20]!r}.")
    return int(text)


def _panel(request: Request, app: App, room: LiveRoom) -> Response:
    return app.page(request, "console/cluster.html", code=room.info.code, panel=panel_of(app.fleet))
