"""OpenAI's HTTP over the gateway, as plain ASGI: `/v1/chat/completions`, `/v1/completions`, `/v1/models`.

To be mounted at the root or at `/v1`. Status and headers of a stream are held until its first token, so that a load
tool's time to first byte is the time to first token, and so that until then another replica can step in.
"""

from __future__ import annotations

import json
import re
import time
from typing import Any
from uuid import uuid4

from inference.asgi import (
    BodyTooLarge,
    ClientLeft,
    Headers,
    Receive,
    Scope,
    Send,
    dumps,
    read_body,
    respond,
    while_connected,
)
from webapp.gateway import sse
from webapp.gateway.errors import BadRequest, GatewayError, NotFound, TooLarge, WrongMethod
from webapp.gateway.gateway import Gateway
from webapp.gateway.ticket import CHAT, COMPLETIONS, Ticket

MODELS = "/v1/models"
BODY_LIMIT_BYTES = 1024 * 1024
_REQUEST_ID = re.compile(r"[\w.-]{1,128}", re.ASCII)


class GatewayApp:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._created = int(time.time())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        request_id = headers.get(b"x-request-id", "")
        if not _REQUEST_ID.fullmatch(request_id):
            request_id = uuid4().hex
        marks = [(b"x-request-id", request_id.encode())]
        try:
            await self._route(scope, receive, send, headers, marks, request_id)
        except GatewayError as error:
            if error.retry_after_s is not None:
                marks.append((b"retry-after", str(error.retry_after_s).encode()))
            if isinstance(error, WrongMethod):
                marks.append((b"allow", b"GET" if _path(scope) == MODELS else b"POST"))
            await respond(send, error.status, error.body(), headers=marks)
        except ClientLeft:
            pass

    async def _route(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        headers: dict[bytes, str],
        marks: Headers,
        request_id: str,
    ) -> None:
        match scope["method"], _path(scope):
            case "POST", path if path in (CHAT, COMPLETIONS):
                raw = await _read(receive, headers)
                source = headers.get(b"x-load-source", "api")
                ticket = self._gateway.open(_parse(raw), source, request_id, path=path, raw=raw)
                marks.append((b"x-load-source", ticket.source.encode()))
                try:
                    async with while_connected(receive):
                        await self._answer(ticket, send, marks)
                finally:
                    await ticket.aclose()
            case "GET", path if path == MODELS:
                await respond(send, 200, dumps(self._models()), headers=marks)
            case _, path if path in (CHAT, COMPLETIONS, MODELS):
                raise WrongMethod("this path does not take that method")
            case _:
                raise NotFound("no such path")

    async def _answer(self, ticket: Ticket, send: Send, marks: Headers) -> None:
        answer = await ticket.begin()
        content_type = answer.content_type.encode("latin-1")
        if answer.body is not None:
            await respond(send, answer.status, answer.body, content_type, marks)
            return
        fields = [
            (b"content-type", content_type),
            (b"cache-control", b"no-store"),
            (b"x-accel-buffering", b"no"),
            *marks,
        ]
        await send({"type": "http.response.start", "status": answer.status, "headers": fields})
        try:
            while events := await ticket.read():
                await send({"type": "http.response.body", "body": events, "more_body": True})
        except GatewayError as error:
            # Too late for a status: the stream says it, and ends as a stream should.
            last = b"data: " + error.body() + b"\n\n" + sse.DONE
            await send({"type": "http.response.body", "body": last, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    def _models(self) -> dict[str, Any]:
        names = self._gateway.pool.models()
        cards = [{"id": n, "object": "model", "created": self._created, "owned_by": "vllm"} for n in names]
        return {"object": "list", "data": cards}


def _path(scope: Scope) -> str:
    """The path from `/v1` on, wherever the application is mounted."""
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    return "/v1/" + path.removeprefix("/v1").lstrip("/")


async def _read(receive: Receive, headers: dict[bytes, str]) -> bytes:
    length = headers.get(b"content-length", "0")
    try:
        if length.isdigit() and int(length) > BODY_LIMIT_BYTES:
            raise BodyTooLarge
        return await read_body(receive, BODY_LIMIT_BYTES)
    except BodyTooLarge:
        raise TooLarge(f"the body is over {BODY_LIMIT_BYTES} bytes") from None


def _parse(raw: bytes) -> dict[str, Any]:
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise BadRequest("the body must be a JSON object")
    return body
