"""What can go wrong on the way to a replica, and how each looks in OpenAI's shape.

GatewayError
├── BadRequest       400  the body is no JSON object
│   └── BadField     400  a field of it is over a cap; `param` names it
├── NoKey            401  no API key, or none that is known
├── NotFound         404  no such path
├── WrongMethod      405
├── TooLarge         413  the body is over the limit
├── OverQuota        429  the key has used up its requests or tokens of this minute
├── Closed           499  the caller closed its ticket while it waited
├── FromReplica
│   ├── Refused      4xx  the replica refused the request; its own words
│   └── Failed       5xx  no replica gave an answer, or it broke off
├── NoReplica        503  none became ready in time
├── QueueFull        503  none is ready, and too many wait for one already
└── AllFull          429  all are busy, and too many wait already or this one has waited too long
"""

from __future__ import annotations

import json
from typing import Any


class GatewayError(Exception):
    """`type` is OpenAI's error type; `retry_after_s` is set where trying again later can help."""

    status = 500
    type = "server_error"
    retry_after_s: int | None = None

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def to_json(self) -> dict[str, Any]:
        error = {"message": self.message, "type": self.type, "param": None, "code": self.status}
        return {"error": error}

    def body(self) -> bytes:
        return json.dumps(self.to_json(), separators=(",", ":"), ensure_ascii=False).encode()


class BadRequest(GatewayError):
    status = 400
    type = "invalid_request_error"


class NotFound(GatewayError):
    status = 404
    type = "invalid_request_error"


class WrongMethod(GatewayError):
    status = 405
    type = "invalid_request_error"


class TooLarge(GatewayError):
    status = 413
    type = "invalid_request_error"


class Closed(GatewayError):
    status = 499
    type = "client_closed_request"


class FromReplica(GatewayError):
    """What a replica answered or failed to: `raw` is its body if that has OpenAI's shape, and is passed on as it is."""

    def __init__(self, status: int, raw: bytes = b"", retry_after: str | None = None, message: str = "") -> None:
        error = _openai_error(raw)
        super().__init__(message or str(error.get("message") or f"the replica answered {status}"))
        self.status = status
        self.raw = raw if error else b""
        if isinstance(error.get("type"), str):
            self.type = error["type"]
        if retry_after is not None and retry_after.isdigit():
            self.retry_after_s = int(retry_after)
        elif status in (429, 503):
            self.retry_after_s = 1

    def body(self) -> bytes:
        return self.raw or super().body()


class Refused(FromReplica):
    type = "invalid_request_error"


class Failed(FromReplica):
    type = "server_error"


class NoReplica(GatewayError):
    status = 503
    type = "overloaded_error"
    retry_after_s = 10


class QueueFull(GatewayError):
    status = 503
    type = "overloaded_error"
    retry_after_s = 5


def _openai_error(raw: bytes) -> dict[str, Any]:
    try:
        error = json.loads(raw)["error"]
    except (ValueError, LookupError, TypeError):
        return {}
    return error if isinstance(error, dict) else {}


class BadField(BadRequest):
    """`param` is the field's name."""

    def __init__(self, param: str, message: str) -> None:
        super().__init__(message)
        self.param = param

    def to_json(self) -> dict[str, Any]:
        return {"error": super().to_json()["error"] | {"param": self.param}}


class NoKey(GatewayError):
    """OpenAI's client makes an AuthenticationError of it."""

    status = 401
    type = "invalid_request_error"

    def to_json(self) -> dict[str, Any]:
        return {"error": super().to_json()["error"] | {"code": "invalid_api_key"}}


class OverQuota(GatewayError):
    """OpenAI's client makes a RateLimitError of it."""

    status = 429
    type = "rate_limit_error"
    retry_after_s = 60

    def __init__(self, message: str, retry_after_s: int = 60) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s

    def to_json(self) -> dict[str, Any]:
        return {"error": super().to_json()["error"] | {"code": "rate_limit_exceeded"}}


class AllFull(GatewayError):
    """The type says that it is the fleet, not the caller's quota (`rate_limit_error`), that is used up."""

    status = 429
    type = "overloaded_error"
    retry_after_s = 5
