"""`crowdspike replay`: the stage of a room as it was, from its log alone. No replica, no network but the store.

Everybody who looks sees the same moment of it, at the same speed. Pauses in the record of more than a minute are left
out, so that a room that was left overnight is no longer than its talk.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import uvicorn
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response, StreamingResponse
from jinja2 import Environment

from loadgen.plot import clock
from webapp.context import same_site
from webapp.errors import HTTP, CrossSite
from webapp.live.fleet import MAX_SLOTS, MIN_SLOTS
from webapp.routes import static
from webapp.routes.stage import SHOWS
from webapp.routes.state import state_document
from webapp.security import Guard
from webapp.server import GRACE_S, Server, new_loop
from webapp.tape import Log, Tape
from webapp.templating import environment, static_build
from webapp.views.cluster import cluster_document
from webapp.views.spike_mark import with_spikes
from webapp.views.stage import StageScreen, stage_screen

MAX_SPEED = 50.0
SPEEDS = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, MAX_SPEED)
STEP_S = 30.0
TAIL_S = 3.0
RECORD_STEP_S = 2.0
"""Of the record, from one snapshot to the next: the stage's plots draw a line through up to three seconds."""
LOOK_EVERY_S = (0.04, 0.5)
"""From one snapshot to the next, at least and at most."""
MAX_BODY_BYTES = 1024


class Playback:
    """Where in the record everybody is. `now_s` is a monotonic clock in seconds; `length_s` that of the record."""

    def __init__(self, length_s: float, speed: float, loop: bool, now_s: Callable[[], float]) -> None:
        self.length_s = length_s
        self.speed = speed
        self.paused = False
        self.loop = loop
        self.jumps = 0
        """How often it went back: what was drawn over time is to be drawn anew."""
        self._now_s = now_s
        self._since_s = now_s()
        self._from_s = 0.0

    @property
    def position_s(self) -> float:
        """0 to `length_s`. At the end it stays there, or starts again."""
        moved_s = 0.0 if self.paused else (self._now_s() - self._since_s) * self.speed
        position_s = self._from_s + moved_s
        if self.loop and position_s > self.length_s + TAIL_S * self.speed:
            self._go(0.0)
            return 0.0
        return min(position_s, self.length_s)

    def act(self, action: str) -> None:
        """`pause` (or go on), `back` or `forward` by 30 s, `start`, `slower`, `faster`. Raises KeyError."""
        at_s = self.position_s
        steps: dict[str, Callable[[], None]] = {
            "pause": lambda: self._hold(at_s, not self.paused),
            "back": lambda: self._go(at_s - STEP_S),
            "forward": lambda: self._go(at_s + STEP_S, back=False),
            "start": lambda: self._go(0.0),
            "slower": lambda: self._at_speed(at_s, max((s for s in SPEEDS if s < self.speed), default=self.speed)),
            "faster": lambda: self._at_speed(at_s, min((s for s in SPEEDS if s > self.speed), default=self.speed)),
        }
        steps[action]()

    def _hold(self, at_s: float, paused: bool) -> None:
        self._from_s, self._since_s, self.paused = at_s, self._now_s(), paused

    def _go(self, to_s: float, back: bool = True) -> None:
        self._hold(min(max(to_s, 0.0), self.length_s), self.paused)
        self.jumps += back

    def _at_speed(self, at_s: float, speed: float) -> None:
        self._hold(at_s, self.paused)
        self.speed = speed


class Replay:
    """A room's log on its way, as the stage asks for it."""

    def __init__(self, log: Log, speed: float, loop: bool, now_s: Callable[[], float]) -> None:
        self.info = log.info
        self.stopping = asyncio.Event()
        self.changed = asyncio.Condition()
        self._tape = Tape(log)
        self._clock = log.clock()
        self.playback = Playback(self._clock.t_s(log.times_s[-1]), speed, loop, now_s)
        clusters = [m.cluster for m in log.timeline.moments if m.cluster]
        most = [c.autoscaler.max_replicas if c.autoscaler else 0 for c in clusters] + [len(c.pods) for c in clusters]
        self.slots = min(MAX_SLOTS, max(MIN_SLOTS, *most)) if clusters else 0

    @property
    def at_s(self) -> float:
        """Unix seconds, as of the moment that is shown."""
        return self._clock.unix_s(self.playback.position_s)

    @property
    def look_every_s(self) -> float:
        least_s, most_s = LOOK_EVERY_S
        return min(max(RECORD_STEP_S / self.playback.speed, least_s), most_s)

    def screen(self, join_url: str) -> StageScreen:
        at_s = self.at_s
        moment = self._tape.log.timeline.at(at_s)
        simulated = moment is not None and moment.simulated
        return stage_screen(self._tape.state_at(at_s), round(at_s * 1000), join_url, simulated)

    def history(self) -> dict[str, list[Any]]:
        return self._tape.history_at(self.at_s).columns()

    def document(self) -> dict[str, Any]:
        """The stage's snapshot, as `webapp.routes.stage` makes it of a live room, and how the replay goes on."""
        at_s = self.at_s
        self.state = self._tape.state_at(at_s)
        moment = self._tape.log.timeline.at(at_s)
        snapshot = self._tape.log.timeline.snapshot(at_s)
        document: dict[str, Any] = {
            **state_document(self, round(at_s * 1000)),
            "now_ms": round(at_s * 1000),
            "joined": len(self.state.people),
            "scripted": self.state.scripted,
            "model": {
                "simulated": moment is not None and moment.simulated,
                "replicas": len(snapshot.pods) if snapshot else 0,
                "ready": snapshot.ready if snapshot else 0,
                "in_flight": moment.vitals.at_replicas if moment else 0,
            },
            "replay": self.words(at_s),
        }
        if snapshot is not None:
            chain = self._tape.chain_at(at_s)
            edge_s = chain.edge_at_s if chain else None
            shown = cluster_document(snapshot, moment.vitals, chain, at_s)
            document["cluster"] = with_spikes(shown, self.state.spikes, edge_s, round(at_s * 1000))
        return document

    def words(self, at_s: float) -> dict[str, Any]:
        """For the badge."""
        playback = self.playback
        done = playback.position_s >= playback.length_s
        return {
            "title": f"Replay, {playback.speed:g}×",
            "recorded": datetime.fromtimestamp(at_s, UTC).strftime("%-d %B %Y, %H:%M UTC"),
            "position": f"{clock(playback.position_s)} of {clock(playback.length_s)}",
            "state": "paused" if playback.paused else "ended" if done else "",
            "jumps": playback.jumps,
        }


# ---- HTTP

router = APIRouter()


def _replay(request: Request, code: str | None = None) -> Replay:
    replay: Replay = request.app.state.replay
    if code is not None and code.upper() != replay.info.code:
        raise HTTPException(404, f"Only room {replay.info.code} is replayed here.")
    return replay


@router.get("/")
async def front(request: Request) -> Response:
    return RedirectResponse(f"/stage/{_replay(request).info.code}")


@router.get("/stage/{code}")
async def stage(request: Request, code: str) -> Response:
    return _page(request, _replay(request, code), "replay/stage.html")


@router.get("/stage/{code}/screen")
async def screen(request: Request, code: str) -> Response:
    return _page(request, _replay(request, code), "stage/screen.html")


@router.get("/stage/{code}/history")
async def history(request: Request, code: str) -> dict[str, Any]:
    replay = _replay(request, code)
    if not replay.slots:
        raise HTTPException(404)
    return replay.history()


@router.post("/stage/{code}/replay/{action}", dependencies=[Depends(same_site)])
async def act(request: Request, code: str, action: str) -> dict[str, Any]:
    """One of Playback's actions."""
    replay = _replay(request, code)
    try:
        replay.playback.act(action)
    except KeyError:
        raise HTTPException(404) from None
    async with replay.changed:
        replay.changed.notify_all()
    return replay.words(replay.at_s)


@router.get("/stage/{code}/events")
async def events(request: Request, code: str) -> Response:
    """As the live stage's: `snapshot` and `changed`."""
    replay = _replay(request, code)

    async def stream() -> AsyncIterator[bytes]:
        shown: object = None
        while not replay.stopping.is_set():
            body = f"event: snapshot\ndata: {json.dumps(replay.document())}\n\n"
            current = replace(replay.screen(_join_url(request, replay)), now_ms=0)
            if current != shown:
                shown = current
                body += "event: changed\ndata: {}\n\n"
            yield body.encode()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(replay.look_every_s), replay.changed:
                    await replay.changed.wait()

    return StreamingResponse(stream(), media_type="text/event-stream", headers={"x-accel-buffering": "no"})


def _join_url(request: Request, replay: Replay) -> str:
    return f"{str(request.base_url).rstrip('/')}/stage/{replay.info.code}"


def _page(request: Request, replay: Replay, template: str) -> Response:
    view = replay.screen(_join_url(request, replay))
    asked, talk = request.query_params.get("show", ""), replay.info.talk
    templates: Environment = request.app.state.templates
    html = templates.get_template(template).render(
        nonce=request.state.nonce,
        lang=talk.language,
        accent=talk.theme.accent.lstrip("#"),
        screen=view,
        activity=view.activity,
        code=replay.info.code,
        slots=replay.slots,
        show=(asked if asked in SHOWS else "both") if replay.slots else "room",
        replay=replay.words(replay.at_s),
    )
    return HTMLResponse(html)


async def _refuse(request: Request, error: Exception) -> Response:
    return JSONResponse({"detail": str(error)}, HTTP[CrossSite][0])


class ReplayApp(Guard):
    """ASGI. Raises LibrariesMissing."""

    def __init__(self, replay: Replay) -> None:
        self.replay = replay
        build = static_build()
        app = FastAPI(title="crowdspike replay", docs_url=None, redoc_url=None, openapi_url=None)
        app.state.replay = replay
        app.state.templates = environment(build)
        app.state.static_build = build
        app.state.static_files = static.read_files()
        app.include_router(router)
        app.include_router(static.router)
        app.add_exception_handler(CrossSite, _refuse)
        super().__init__(app, MAX_BODY_BYTES)


class _Server(Server):
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        app = self.config.app
        assert isinstance(app, ReplayApp)
        app.replay.stopping.set()
        await uvicorn.Server.shutdown(self, sockets)


def run(log: Log, speed: float, loop: bool, sock: socket.socket, said: Callable[[], None]) -> None:
    """Serves on `sock` until SIGINT or SIGTERM. `said` is called once requests are taken."""

    async def serve() -> None:
        now_s = asyncio.get_running_loop().time
        config = uvicorn.Config(
            ReplayApp(Replay(log, speed, loop, now_s)),
            **{"loop": "none", "ws": "none", "lifespan": "off", "log_config": None, "access_log": False},
            server_header=False,
            timeout_graceful_shutdown=GRACE_S,
        )
        server = _Server(config)
        task = asyncio.create_task(server.serve(sockets=[sock]))
        await server.bound.wait()
        said()
        await task

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(serve())
