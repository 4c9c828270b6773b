"""Liveness, readiness and metrics."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from webapp.context import Crowdspike
from webapp.log.store import StoreError

router = APIRouter()


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """This process answers."""
    return {"status": "ok"}


@router.get("/readyz")
async def readyz(app: Crowdspike) -> Response:
    """Whether the store answers; without a replica the room still works, so that only is reported."""
    try:
        await app.rooms.store.ping()
        store = "ok"
    except StoreError as error:
        store = str(error)
    ready = app.pool.ready_count
    body = {"store": store, "replicas_ready": ready, "replicas": len(app.pool.replicas)}
    return JSONResponse(body, 200 if store == "ok" else 503)


@router.get("/metrics")
async def metrics(app: Crowdspike) -> Response:
    return Response(generate_latest(app.registry), media_type=CONTENT_TYPE_LATEST)
