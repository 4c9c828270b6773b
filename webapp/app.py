"""Puts the parts together. The only module that knows them all."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse, Response
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter
from prometheus_client import CollectorRegistry, Gauge, GCCollector, PlatformCollector, ProcessCollector
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from inference.cluster.cluster import Cluster
from inference.cluster.karpenter import catalogue
from inference.discovery import Discovery
from inference.pool import Pool
from webapp.cluster import configured_cluster
from webapp.context import App, now_ms, wants_html
from webapp.crowd import expected_requests, seconds_per_reply
from webapp.errors import (
    HTTP,
    RETRY_AFTER_S,
    ActivityClosed,
    AlreadyAnswered,
    CookieForged,
    NotJoined,
    NotSaved,
    TokenNeeded,
)
from webapp.gateway.asgi import GatewayApp
from webapp.gateway.caps import Caps
from webapp.gateway.gateway import Gateway
from webapp.gateway.keys import Keyring
from webapp.gateway.line import Limits
from webapp.gateway.log import RequestLog
from webapp.gateway.metrics import Metrics
from webapp.gateway.quota import Quota
from webapp.identity import PARTICIPANT_COOKIE, Signer
from webapp.live.fleet import Fleet
from webapp.live.seconds import each_second
from webapp.live.vitals import Vitals
from webapp.log.open import open_store
from webapp.log.store import AlreadyExists, NotFound, Store, StoreError
from webapp.recorder import Recorder
from webapp.replies import Replies
from webapp.rooms import Rooms
from webapp.routes import cluster as cluster_routes
from webapp.routes import health, phone, present, stage, static
from webapp.routes import spikes as spike_routes
from webapp.routes.state import StateApp
from webapp.security import Guard
from webapp.settings import Settings
from webapp.spikes import keys as spike_keys
from webapp.spikes.environment import Environments
from webapp.spikes.runs import Runs, folder_for
from webapp.talk.model import Talk
from webapp.templating import environment, static_build

log = logging.getLogger("crowdspike.app")

SECRET_KEY = "server/secret.json"
DROP_UNUSED_EVERY_S = 60
DESERTED_AFTER_S = 60
"""A room that no phone and no screen has asked for in so long keeps no replicas warm."""


class Front:
    """The whole program as one ASGI app: `/v1` to the gateway, the rest to the pages."""

    def __init__(self, parts: App, gateway: ASGIApp, pages: ASGIApp) -> None:
        self.parts = parts
        self._gateway = gateway
        self._pages = pages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"] if scope["type"] == "http" else ""
        app = self._gateway if path.startswith("/v1/") or path == "/v1" else self._pages
        await app(scope, receive, send)


@asynccontextmanager
async def running_app(settings: Settings, talks: list[Talk], cluster: Cluster | None = None) -> AsyncIterator[Front]:
    """The program with its background work running. Raises StoreError when the store can't be used. `cluster` is the
    caller's to start and to close; without it, the one that the settings name is made."""
    registry = CollectorRegistry()
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    key = settings.inference_api_key
    pool = Pool(api_key=key.get_secret_value() if key else None)
    with configured_cluster(settings, talks, pool, registry) as own:
        async with _running(settings, talks, registry, pool, cluster or own) as app:
            if own is not None:
                await own.start()
            try:
                yield app
            finally:
                app.parts.stopping.set()
                if own is not None:
                    await own.close()


@asynccontextmanager
async def _running(
    settings: Settings, talks: list[Talk], registry: CollectorRegistry, pool: Pool, cluster: Cluster | None
) -> AsyncIterator[Front]:
    store = open_store(settings.store, settings.s3_endpoint_url)
    await store.ping()
    signer = Signer(settings.secret or await shared_secret(store))
    discovery = Discovery(pool, settings.inference_urls)
    keys = Keyring(store, passes=spike_keys.passes(signer, now_ms)) if settings.api_keys == "required" else None
    quota = Quota()
    request_log = RequestLog(sys.stdout)
    metrics = Metrics(registry)
    vitals = Vitals(metrics.in_flight, lambda: gateway.waiting, time.time, metrics.streamed_tokens)
    fleet = None if cluster is None else Fleet(cluster, vitals, time.time, catalogue.load().as_of)
    rooms = Rooms(store, now_ms, settings.tail_interval_s)
    presenter_token = settings.presenter_token or signer.presenter_token()
    stopping = asyncio.Event()
    environments = Environments(signer, presenter_token, settings.spike_api_key)
    runs = Runs(rooms, folder_for(settings.spikes_dir, settings.store), now_ms, environments, stopping)
    recorder = Recorder(rooms, vitals, cluster, now_ms, settings.simulated)
    on_end = [quota.charge, vitals.ended, recorder.ended]
    if fleet is not None:
        on_end.append(fleet.ended)
    if settings.log_requests:
        on_end.append(request_log.write)
    gateway = Gateway(pool, metrics, _limits(settings), on_end, vitals.first_token)
    build = static_build()
    templates = environment(build)
    templates.globals["new_id"] = lambda: secrets.token_hex(12)
    parts = App(
        settings=settings,
        signer=signer,
        presenter_token=presenter_token,
        rooms=rooms,
        spikes=runs,
        replies=Replies(gateway.open, now_ms),
        pool=pool,
        templates=templates,
        talks=talks,
        registry=registry,
        limiter=FixedWindowRateLimiter(MemoryStorage()),
        vitals=vitals,
        cluster=cluster,
        fleet=fleet,
        stopping=stopping,
    )
    _observe(registry, parts.rooms, metrics)
    pages = _pages(parts, build)
    if keys is not None:
        await keys.start()
    await discovery.start()
    await pool.start()
    await runs.start()
    # The recorder comes last: what it reads is what the stages show until the next second.
    ticks = [recorder.tick] if fleet is None else [fleet.tick, recorder.tick]
    background = [asyncio.create_task(work) for work in (_sweep(parts.rooms), each_second(time.time, *ticks))]
    try:
        openai = GatewayApp(gateway, _caps(settings), keys, quota)
        yield Front(parts, openai, StateApp(pages, parts.rooms, now_ms, registry))
    finally:
        parts.stopping.set()
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        await runs.close()
        await parts.replies.close()
        await parts.rooms.close()
        await discovery.close()
        await pool.close()
        if keys is not None:
            await keys.close()
        await store.close()
        request_log.flush()


def _limits(settings: Settings) -> Limits:
    return Limits(
        max_waiting=settings.gateway_max_waiting,
        max_wait_s=settings.gateway_max_wait_s,
        max_in_flight_per_replica=settings.gateway_max_in_flight_per_replica,
        first_token_timeout_s=settings.gateway_first_token_timeout_s,
    )


def _caps(settings: Settings) -> Caps:
    return Caps(
        body_bytes=settings.gateway_max_body_bytes,
        prompt_chars=settings.gateway_max_prompt_chars,
        max_tokens=settings.gateway_max_tokens,
    )


def _observe(registry: CollectorRegistry, rooms: Rooms, metrics: Metrics) -> None:
    """Gauges that are read from the rooms of this process when they are asked for."""

    def gauge(name: str, text: str, read: Callable[[], float]) -> None:
        Gauge(name, text, registry=registry).set_function(read)

    gauge(
        "crowdspike_participants",
        "Phones in live rooms, scripted ones too.",
        lambda: sum(len(r.state.present) for r in rooms.live),
    )
    gauge("crowdspike_log_pending", "Lines not stored yet.", lambda: sum(r.responses.pending for r in rooms.live))
    gauge(
        "crowdspike_log_put_ms",
        "How long a segment's last PUT took, in the slowest room.",
        lambda: max((r.responses.last_put_ms or 0 for r in rooms.live), default=0),
    )

    def expected() -> float:
        at_ms = now_ms()
        each_s = seconds_per_reply(metrics.ttft["audience"], metrics.e2e["audience"])
        in_use = [room for room in rooms.live if room.used_ms > at_ms - DESERTED_AFTER_S * 1000]
        return sum(expected_requests(room.state, at_ms, each_s) for room in in_use)

    gauge("crowdspike_expected_requests", "Requests that live rooms will soon have in flight.", expected)


async def shared_secret(store: Store) -> str:
    """The secret of this deployment, made by the first process that starts and kept in the store."""
    made = json.dumps({"secret": secrets.token_hex(32)}).encode()
    try:
        return json.loads(await store.get(SECRET_KEY))["secret"]
    except NotFound:
        pass
    with contextlib.suppress(AlreadyExists):
        await store.create(SECRET_KEY, made)
    return json.loads(await store.get(SECRET_KEY))["secret"]


async def _sweep(rooms: Rooms) -> None:
    while True:
        await asyncio.sleep(DROP_UNUSED_EVERY_S)
        await rooms.drop_unused()


def _pages(parts: App, build: str) -> ASGIApp:
    app = FastAPI(title="crowdspike", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.crowdspike = parts
    app.state.static_build = build
    app.state.static_files = static.read_files()
    for module in (phone, stage, cluster_routes, present, static, health):
        app.include_router(module.router)
    for module in (present, cluster_routes, spike_routes):
        app.include_router(module.private)
    for error in HTTP:
        app.add_exception_handler(error, _refuse)
    app.add_exception_handler(StoreError, _refuse_store)
    app.add_exception_handler(HTTPException, _refuse_http)
    app.add_exception_handler(RequestValidationError, _refuse_parameter)
    app.add_exception_handler(Exception, _fail)
    return Guard(app, parts.settings.max_body_bytes)


async def _refuse(request: Request, error: Exception) -> Response:
    """One of our own errors, as a page for people and as a problem document for everything else."""
    status, title = HTTP[type(error)]
    parts: App = request.app.state.crowdspike
    parts.refused.labels(type(error).__name__).inc()
    code = request.path_params.get("code", "")
    if wants_html(request):
        notice = {ActivityClosed: "late", AlreadyAnswered: "answered"}.get(type(error))
        if notice and request.method == "POST":
            return RedirectResponse(f"/r/{code}?notice={notice}", 303)
        if isinstance(error, NotJoined):
            return RedirectResponse(f"/r/{code}", 303)
        if isinstance(error, TokenNeeded):
            return parts.page(request, "pages/signin.html", status, error=None)
    response = _problem(request, status, title, str(error), getattr(error, "extra", {}))
    if type(error) in RETRY_AFTER_S:
        response.headers["retry-after"] = str(RETRY_AFTER_S[type(error)])
    if isinstance(error, TokenNeeded):
        response.headers["www-authenticate"] = "Bearer"
    if isinstance(error, CookieForged):
        response.delete_cookie(PARTICIPANT_COOKIE, path=f"/r/{code}")
    return response


async def _refuse_store(request: Request, error: Exception) -> Response:
    log.warning("%s %s: %s", request.method, request.url.path, error)
    return await _refuse(request, NotSaved("The store does not answer just now. Try again in a few seconds."))


def _problem(request: Request, status: int, title: str, detail: str, extra: dict | None = None) -> Response:
    if wants_html(request):
        code = request.path_params.get("code", "")
        links = [("/", "Enter a room code")]
        if code and status not in (404, 410):
            back = f"/present/{code}" if request.url.path.startswith("/present") else f"/r/{code}"
            links.insert(0, (back, f"Back to room {code}"))
        parts: App = request.app.state.crowdspike
        return parts.page(
            request, "pages/error.html", status, title=title, message=detail, status_code=status, links=links
        )
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail, **(extra or {})}
    return JSONResponse(body, status, media_type="application/problem+json")


async def _refuse_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = "There is nothing at this address." if error.status_code == 404 else str(error.detail)
    titles = {404: "Not found", 405: "Method not allowed"}
    response = _problem(request, error.status_code, titles.get(error.status_code, "Error"), detail)
    for name, value in (error.headers or {}).items():
        response.headers[name] = value
    return response


async def _refuse_parameter(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    detail = "; ".join(f"{e['loc'][-1]}: {e['msg']}" for e in error.errors())
    return _problem(request, 422, "A parameter is wrong", detail)


async def _fail(request: Request, error: Exception) -> Response:
    return _problem(request, 500, "Something went wrong here", "It is in the server's log. Try again.")
