"""The simulated replica as an ASGI application."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import uuid4

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from inference.asgi import BodyTooLarge, ClientLeft, Receive, Scope, Send, dumps, read_body, respond, while_connected
from inference.engine import wire
from inference.engine.answers import Entry, pieces, reply
from inference.engine.job import Job, parse
from inference.engine.metrics import Metrics
from inference.engine.seats import Clock, Pace, Seats

VERSION = "0.32.0"
BODY_LIMIT_BYTES = 4 * 1024 * 1024
EVENT_STREAM = b"text/event-stream; charset=utf-8"
_REQUEST_ID = re.compile(rb"[\w.-]{1,128}")


@dataclass(frozen=True, slots=True)
class Settings:
    """How one replica behaves; the defaults are an unhurried GPU's."""

    model: str = "mistral"
    pace: Pace = field(default_factory=Pace)
    max_num_seqs: int = 32
    max_model_len: int = 4096


class Engine:
    """Serves one model. `seats` tells how many requests run and wait."""

    def __init__(self, settings: Settings, entries: Sequence[Entry] = ()) -> None:
        self._settings = settings
        self._entries = entries
        self._created = int(time.time())
        self.seats = Seats(settings.max_num_seqs)
        self._metrics = Metrics(settings.model, self.seats)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        try:
            await self._route(scope, receive, send)
        except wire.ApiError as error:
            await respond(send, error.status, dumps(error.body))
        except BodyTooLarge:
            error = wire.ApiError(413, "The request is too large.", "Request Entity Too Large")
            await respond(send, error.status, dumps(error.body))
        except ClientLeft:
            pass

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        match scope["method"], scope["path"]:
            case "POST", ("/v1/chat/completions" | "/v1/completions") as path:
                await self._complete(path == "/v1/chat/completions", scope, receive, send)
            case "GET", "/v1/models":
                listing = wire.models(self._settings.model, self._created, self._settings.max_model_len)
                await respond(send, 200, dumps(listing))
            case "GET", "/health" | "/ping":
                await respond(send, 200, b"", content_type=None)
            case "GET", "/version":
                await respond(send, 200, dumps({"version": VERSION}))
            case "GET", "/load":
                await respond(send, 200, dumps({"server_load": self.seats.running + self.seats.waiting}))
            case "GET", "/metrics":
                await respond(send, 200, self._metrics.text(), CONTENT_TYPE_PLAIN_0_0_4.encode())
            case _:
                raise wire.ApiError(404, "Not Found", "Not Found")

    async def _complete(self, chat: bool, scope: Scope, receive: Receive, send: Send) -> None:
        body = await read_body(receive, BODY_LIMIT_BYTES)
        job = parse(body, chat, self._settings.model, self._settings.max_model_len)
        shape = wire.Chat if chat else wire.Completion
        answer = shape(_request_id(scope), int(time.time()), self._settings.model)
        async with while_connected(receive):
            if job.stream:
                await self._stream(job, answer, send)
            else:
                await self._whole(job, answer, send)

    async def _stream(self, job: Job, answer: wire.Chat | wire.Completion, send: Send) -> None:
        async def put(data: bytes, more: bool = True) -> None:
            await send({"type": "http.response.body", "body": data, "more_body": more})

        # As vLLM does: the headers go out before the request has a seat.
        headers = [(b"content-type", EVENT_STREAM)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        tokens, finish_reason = self._tokens(job)
        async with self.seats.seat():
            clock = Clock(self._settings.pace)
            self._metrics.prompt_tokens.inc(job.prompt_tokens)
            for i, token in enumerate(tokens):
                await clock.next_token()
                if i == 0 and (opening := answer.opening()):
                    await put(wire.event(opening))
                last = i == len(tokens) - 1
                chunk = answer.token(token, finish_reason if last else None)
                if last and not job.include_usage:
                    chunk["system_fingerprint"] = wire.FINGERPRINT
                self._metrics.generation_tokens.inc()
                await put(wire.event(chunk))
            self._metrics.finished[finish_reason].inc()
        if job.include_usage:
            counts = answer.usage(wire.usage(job.prompt_tokens, len(tokens)))
            await put(wire.event({**counts, "system_fingerprint": wire.FINGERPRINT}))
        await put(wire.DONE, more=False)

    async def _whole(self, job: Job, answer: wire.Chat | wire.Completion, send: Send) -> None:
        tokens, finish_reason = self._tokens(job)
        async with self.seats.seat():
            clock = Clock(self._settings.pace)
            self._metrics.prompt_tokens.inc(job.prompt_tokens)
            for _ in tokens:
                await clock.next_token()
                self._metrics.generation_tokens.inc()
            self._metrics.finished[finish_reason].inc()
        counts = wire.usage(job.prompt_tokens, len(tokens))
        await respond(send, 200, dumps(answer.whole("".join(tokens), finish_reason, counts)))

    def _tokens(self, job: Job) -> tuple[list[str], str]:
        """The tokens of the answer and why it ends. A natural end is a token of its own, without text, as in vLLM."""
        tokens = [*pieces(reply(job.prompt, self._entries)), ""]
        if len(tokens) > job.max_tokens:
            return tokens[: job.max_tokens], "length"
        return tokens, "stop"


def _request_id(scope: Scope) -> str:
    given = dict(scope["headers"]).get(b"x-request-id", b"")
    return given.decode() if _REQUEST_ID.fullmatch(given) else uuid4().hex[:16]
