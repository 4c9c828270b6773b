"""OpenAI's HTTP over the gateway, as plain ASGI: `/v1/chat/completions`, `/v1/completions`, `/v1/models`.

To be mounted at the root or at `/v1`. What is refused here never reaches a replica: an unknown path, a request without
a good key or over its quota, a body that is no JSON or over a cap. Each refusal is counted, as every ticket is.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from inference.asgi import BodyTooLarge, ClientLeft, Headers, Receive, Scope, Send, dumps, read_body, respond
from webapp.gateway.caps import Caps, capped
from webapp.gateway.errors import BadRequest, Closed, GatewayError, NoKey, NotFound, TooLarge, WrongMethod
from webapp.gateway.gateway import NO_TRACE, Gateway, new_request_id
from webapp.gateway.keys import Keyring
from webapp.gateway.metrics import SOURCES
from webapp.gateway.quota import Quota
from webapp.gateway.record import Record
from webapp.gateway.stream import send_answer
from webapp.gateway.ticket import CHAT, COMPLETIONS, Ticket

MODELS = "/v1/models"
METHODS = {CHAT: "POST", COMPLETIONS: "POST", MODELS: "GET"}
HEADERS_HELD = (b"x-headers-held", b"until-first-token")
"""On the list of models: tells a load tool that the time to an answer's headers is the time to its first token."""
CLAIMABLE = {name.encode(): name for name in SOURCES if name != "audience"}
"""Sources that a caller may name. The audience comes through the pages; scripted load is never shown as audience."""
PATH_CHARS = 128
MAX_DEPTH = 64  # of lists and objects in a body
_REQUEST_ID = re.compile(rb"[\w.-]{1,128}")
# https://www.w3.org/TR/trace-context/: version `ff` and ids of nothing but zeros are invalid.
_TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_TRACESTATE_MEMBER = re.compile(rb"[a-z0-9][a-z0-9_*/@-]{0,255}=[ -+\--<>-~]{0,255}[!-+\--<>-~]")
_TRACESTATE_BYTES, _TRACESTATE_MEMBERS = 512, 32


@dataclass(slots=True)
class _Call:
    """A request before it has a ticket. `marks` are the headers that go on its answer."""

    path: str
    headers: dict[bytes, bytes]
    request_id: str
    source: str
    marks: Headers
    began_at: float
    key: str | None = None


class GatewayApp:
    """With `keys`, every request needs one of them, and `quota` counts what it uses."""

    def __init__(
        self, gateway: Gateway, caps: Caps | None = None, keys: Keyring | None = None, quota: Quota | None = None
    ) -> None:
        self._gateway = gateway
        self._caps = caps or Caps()
        self._keys = keys
        self._quota = quota or Quota()
        self._created = int(time.time())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        call = _call(scope)
        try:
            ticket = await self._admit(call, scope["method"], receive)
        except GatewayError as error:
            self._count(call, error)
            await _refuse(send, call, error)
        except ClientLeft:
            self._count(call, Closed("the client left before it had asked"))
        else:
            if ticket is None:
                await respond(send, 200, dumps(self._models()), headers=[*call.marks, HEADERS_HELD])
                return
            try:
                await send_answer(
                    ticket, receive, send, call.marks, scope.get("extensions", {}).get("crowdspike.connection")
                )
            except GatewayError as error:
                await _refuse(send, call, error)
            except ClientLeft:
                pass

    async def _admit(self, call: _Call, method: str, receive: Receive) -> Ticket | None:
        """A ticket for a request that may be asked; None for the list of models. Raises GatewayError, ClientLeft."""
        if call.path not in METHODS:
            _no_such_path(call.path)
        if method != METHODS[call.path]:
            raise WrongMethod(f"this path takes {METHODS[call.path]} only")
        if self._keys is not None:
            self._check_key(call, self._keys)
        if call.path == MODELS:
            return None
        body = capped(_parse(await self._read(call, receive)), call.path, self._caps)
        trace = _trace(call.headers)
        # The replica gets what was checked here, written anew: readers differ in what they make of a name given twice.
        return self._gateway.open(body, call.source, call.request_id, path=call.path, key=call.key, trace=trace)

    def _check_key(self, call: _Call, keys: Keyring) -> None:
        key = keys.find(call.headers.get(b"authorization", b"").decode("latin-1"))
        call.key = key.name
        try:
            self._quota.admit(key)
        finally:
            call.marks += self._quota.marks(key)

    async def _read(self, call: _Call, receive: Receive) -> bytes:
        most = self._caps.body_bytes
        length = call.headers.get(b"content-length", b"0")
        try:
            if length.isdigit() and int(length) > most:
                raise BodyTooLarge
            return await read_body(receive, most)
        except BodyTooLarge:
            raise TooLarge(f"the body is over {most} bytes") from None

    def _count(self, call: _Call, error: GatewayError) -> None:
        e2e_s = time.monotonic() - call.began_at
        path = call.path[:PATH_CHARS]
        record = Record(call.request_id, path, call.source, error.status, e2e_s, key=call.key, error=error.type)
        self._gateway.ended(record)

    def _models(self) -> dict[str, Any]:
        names = self._gateway.pool.models()
        cards = [{"id": n, "object": "model", "created": self._created, "owned_by": "vllm"} for n in names]
        return {"object": "list", "data": cards}


def _call(scope: Scope) -> _Call:
    fields = scope["headers"]
    headers = dict(fields)
    if len(headers) < len(fields):
        headers = _joined(fields)
    given = headers.get(b"x-request-id", b"")
    request_id = given.decode() if _REQUEST_ID.fullmatch(given) else new_request_id()
    source = CLAIMABLE.get(headers.get(b"x-load-source", b""), "api")
    marks = [(b"x-request-id", request_id.encode()), (b"x-load-source", source.encode())]
    return _Call(_path(scope), headers, request_id, source, marks, time.monotonic())


def _joined(fields: Headers) -> dict[bytes, bytes]:
    """Fields that came more than once, as a list (RFC 9110, 5.3): where one value is meant, that is none."""
    headers: dict[bytes, bytes] = {}
    for name, value in fields:
        headers[name] = headers[name] + b"," + value if name in headers else value
    return headers


def _path(scope: Scope) -> str:
    """The path from `/v1` on, wherever the application is mounted."""
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    return "/v1/" + path.removeprefix("/v1").lstrip("/")


def _no_such_path(path: str) -> NoReturn:
    if path.rstrip("/") in METHODS:
        raise NotFound(f"no such path; write {path.rstrip('/')} without a slash at its end")
    raise NotFound(f"no such path; there are {', '.join(METHODS)}")


def _trace(headers: Mapping[bytes, bytes]) -> Mapping[str, str]:
    """The caller's trace, if it is well-formed; a tracestate that is not goes alone."""
    parent = headers.get(b"traceparent")
    if parent is None or not _TRACEPARENT.fullmatch(parent):
        return NO_TRACE
    trace = {"traceparent": parent.decode()}
    state = headers.get(b"tracestate", b"")
    members = [member.strip(b" \t") for member in state.split(b",")]
    fits = len(state) <= _TRACESTATE_BYTES and len(members) <= _TRACESTATE_MEMBERS
    if fits and all(_TRACESTATE_MEMBER.fullmatch(member) for member in members):
        trace["tracestate"] = state.decode()
    return trace


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number in JSON")


_decoder = json.JSONDecoder(parse_constant=_no_number)


def _parse(raw: bytes) -> dict[str, Any]:
    try:
        body = _decoder.decode(raw.decode())
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON in UTF-8: {error}") from error
    if not isinstance(body, dict):
        raise BadRequest("the body must be a JSON object")
    if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH and _is_deep(body):
        raise BadRequest(f"the body nests deeper than {MAX_DEPTH}")
    return body


def _is_deep(body: dict[str, Any]) -> bool:
    """Whether it nests deeper than MAX_DEPTH: what was just read must be written without an overflow, too."""
    level: list[Any] = [body]
    for _ in range(MAX_DEPTH):
        level = [
            value
            for parent in level
            for value in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(value, dict | list)
        ]
    return bool(level)


async def _refuse(send: Send, call: _Call, error: GatewayError) -> None:
    marks = call.marks
    if error.retry_after_s is not None:
        marks.append((b"retry-after", str(error.retry_after_s).encode()))
    if isinstance(error, WrongMethod):
        marks.append((b"allow", METHODS[call.path].encode()))
    if isinstance(error, NoKey):
        marks.append((b"www-authenticate", b"Bearer"))
    await respond(send, error.status, error.body(), headers=marks)
