"""Around every page: the content security policy with a fresh nonce, other headers, a limit on what is sent to us."""

from __future__ import annotations

import secrets
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from webapp.errors import TooLarge

_POLICY = (
    "default-src 'none'; script-src 'self' 'nonce-{nonce}'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_ALWAYS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}


class Guard:
    """ASGI middleware. `request.state.nonce` is for the templates; a body above the limit raises TooLarge."""

    def __init__(self, app: ASGIApp, max_body_bytes: int) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        nonce = secrets.token_urlsafe(12)
        scope.setdefault("state", {})["nonce"] = nonce

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _ALWAYS.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "no-store")
                if headers.get("content-type", "").startswith("text/html"):
                    headers.setdefault("content-security-policy", _POLICY.format(nonce=nonce))
            await send(message)

        # Nothing reads the body of a GET, and a stream that waits for its reader to leave must not meet an error there.
        bounded = receive if scope["method"] in ("GET", "HEAD") else self._bounded(scope, receive)
        await self._app(scope, bounded, send_guarded)

    def _bounded(self, scope: Scope, receive: Receive) -> Receive:
        declared = Headers(scope=scope).get("content-length", "0")
        left = self._max_body_bytes

        async def receive_bounded() -> dict[str, Any]:
            nonlocal left
            if declared.isdigit() and int(declared) > self._max_body_bytes:
                raise TooLarge(f"{declared} bytes were announced; at most {self._max_body_bytes} are taken.")
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise TooLarge(f"At most {self._max_body_bytes} bytes are taken.")
            return message

        return receive_bounded
