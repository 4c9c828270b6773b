"""`GET /r/{code}/state`: the one small document that every phone polls, and that a cache in front may answer.

Plain ASGI: a crowd asks for it once a second, and a framework's handling would cost more than the answer. No cookie is
read or set, and nothing in it depends on who asks.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter
from starlette.types import ASGIApp, Receive, Scope, Send

from webapp.errors import AppError
from webapp.live_room import LiveRoom
from webapp.rooms import Rooms

_CACHE = b"public, max-age=1, s-maxage=1"
_CACHE_UNKNOWN = b"public, max-age=5, s-maxage=5"


def state_document(room: LiveRoom, now_ms: int) -> dict:
    """Version, activity, phase and deadline: what a phone needs to know that it should look again."""
    state = room.state
    windows = state.of(state.current).windows if state.current else []
    return {
        "version": state.version,
        "activity": state.current,
        "kind": str(state.activity.kind) if state.activity else None,
        "phase": state.phase(now_ms),
        "opened_ms": windows[-1].opened_ms if windows else None,
        "deadline_ms": windows[-1].deadline_ms if windows else None,
        "room": "archived" if state.archived_ms is not None else "open",
    }


class StateApp:
    """Answers state polls and passes everything else on to `app`."""

    def __init__(self, app: ASGIApp, rooms: Rooms, clock: Callable[[], int], registry: CollectorRegistry) -> None:
        self._app = app
        self._rooms = rooms
        self._clock = clock
        polls = Counter("crowdspike_state_polls", "State polls that reached this process", registry=registry)
        self._count = polls.inc
        self._documents: dict[tuple[str, int, str | None], tuple[bytes, bytes]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if scope["type"] != "http" or not path.endswith("/state") or not path.startswith("/r/"):
            return await self._app(scope, receive, send)
        parts = path.split("/")
        if len(parts) != 4 or scope["method"] not in ("GET", "HEAD"):
            return await self._app(scope, receive, send)
        self._count()
        try:
            room = self._rooms.peek(parts[2]) or await self._rooms.get(parts[2])
        except AppError as error:
            return await self._refuse(send, error)
        body, etag = self._document(room)
        headers = [(b"cache-control", _CACHE), (b"etag", etag), (b"x-content-type-options", b"nosniff")]
        if any(name == b"if-none-match" and etag in value for name, value in scope["headers"]):
            await send({"type": "http.response.start", "status": 304, "headers": headers})
            return await send({"type": "http.response.body"})
        headers += [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    def _document(self, room: LiveRoom) -> tuple[bytes, bytes]:
        """The body and its ETag, made once for each version and phase."""
        now_ms = self._clock()
        key = (room.info.code, room.state.seq, room.state.phase(now_ms))
        known = self._documents.get(key)
        if known is None:
            if len(self._documents) > 1000:
                self._documents.clear()
            body = json.dumps(state_document(room, now_ms), separators=(",", ":")).encode()
            etag = f'"{room.info.created_ms}-{room.state.version}-{room.state.phase(now_ms)}"'.encode()
            known = self._documents[key] = (body, etag)
        return known

    async def _refuse(self, send: Send, error: AppError) -> None:
        unknown = type(error).__name__ == "RoomUnknown"
        body = json.dumps({"title": str(error), "status": 404 if unknown else 503}).encode()
        headers = [
            (b"content-type", b"application/problem+json"),
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", _CACHE_UNKNOWN if unknown else b"no-store"),
        ]
        if not unknown:
            headers.append((b"retry-after", b"2"))
        await send({"type": "http.response.start", "status": 404 if unknown else 503, "headers": headers})
        await send({"type": "http.response.body", "body": body})
