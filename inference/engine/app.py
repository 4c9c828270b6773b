"""The simulated replica as an ASGI application."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from uuid import uuid4

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from inference.asgi import BodyTooLarge, ClientLeft, Receive, Scope, Send, dumps, read_body, respond, while_connected
from inference.engine import tokenize, wire
from inference.engine.answers import Entry, pieces, reply
from inference.engine.core import Core
from inference.engine.generation import Broken, Generation
from inference.engine.job import Job, parse
from inference.engine.metrics import Exporter, Stats
from inference.engine.output import output
from inference.engine.profile import Profile, load
from inference.engine.runner import Runner

VERSION = "0.32.0"
BODY_LIMIT_BYTES = 4 * 1024 * 1024
DEFAULT_PROFILE = "a10g-mistral-7b-awq"
EVENT_STREAM = b"text/event-stream; charset=utf-8"
BUSY = "The engine is currently busy and cannot accept new requests. Please try again later or on a different instance."
DIED = "EngineCore encountered an issue. See stack trace (above) for the root cause."
METHODS = {
    **dict.fromkeys(("/v1/chat/completions", "/v1/completions", "/tokenize"), ("POST",)),
    **dict.fromkeys(("/v1/models", "/health", "/version", "/load", "/metrics"), ("GET",)),
    "/ping": ("GET", "POST"),
}
_REQUEST_ID = re.compile(rb"[\w.-]{1,128}")


@dataclass(frozen=True, slots=True)
class Settings:
    """How one replica behaves."""

    profile: Profile = field(default_factory=lambda: load(DEFAULT_PROFILE))
    model: str = "mistral"
    max_num_queued_reqs: int | None = None
    seed: int = 0


class Engine:
    """Serves one model."""

    def __init__(self, settings: Settings, entries: Sequence[Entry] = ()) -> None:
        profile = settings.profile
        self._settings = settings
        self._draining = False
        self._max_model_len = profile.capacity.max_model_len
        self._fingerprint = f"{wire.FINGERPRINT}-{profile.name}"
        self._entries = entries
        core = Core(profile.capacity, profile.step_s, async_scheduling=profile.async_scheduling, seed=settings.seed)
        self._scheduler = core.scheduler
        self._stats = Stats(self._max_model_len)
        self._exporter = Exporter(settings.model, self._stats, core.scheduler)
        self._runner = Runner(core, self._stats, profile.request_overhead_ms.value / 1000, settings.max_num_queued_reqs)

    @property
    def profile(self) -> Profile:
        return self._settings.profile

    @property
    def running(self) -> int:
        return self._scheduler.counts.running

    @property
    def waiting(self) -> int:
        return self._scheduler.counts.waiting

    @property
    def unfinished(self) -> int:
        """Requests that are about to be queued, wait or run."""
        return self._runner.unfinished

    def drain(self) -> None:
        """Take no new request; those that are there go on."""
        self._draining = True

    def end(self, why: Broken) -> None:
        """End every answer that is under way."""
        self._runner.end(why)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        try:
            await self._route(scope, receive, send)
        except wire.ApiError as error:
            await respond(send, error.status, dumps(error.body))
        except wire.Refused as error:
            await respond(send, error.status, dumps(error.body), headers=error.headers)
        except BodyTooLarge:
            error = wire.ApiError(413, "The request is too large.", "Request Entity Too Large")
            await respond(send, error.status, dumps(error.body))
        except ClientLeft:
            pass

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, model = scope["path"], self._settings.model
        if path not in METHODS:
            if (there := path.rstrip("/")) in METHODS:
                await respond(send, 307, b"", content_type=None, headers=[(b"location", _address(scope, there))])
                return
            raise wire.Refused(404, "Not Found")
        if scope["method"] not in METHODS[path]:
            allowed = ", ".join(METHODS[path]).encode()
            raise wire.Refused(405, "Method Not Allowed", [(b"allow", allowed)])
        match path:
            case "/v1/chat/completions" | "/v1/completions":
                await self._complete(path == "/v1/chat/completions", scope, receive, send)
            case "/tokenize":
                body = await _json_body(scope, receive)
                await respond(send, 200, dumps(tokenize.answer(body, model, self._max_model_len)))
            case "/v1/models":
                listing = wire.models(model, int(time.time()), uuid4().hex[:16], self._max_model_len)
                await respond(send, 200, dumps(listing))
            case "/version":
                await respond(send, 200, dumps({"version": VERSION}))
            case "/load":
                # Without --enable-server-load-tracking vLLM does not count.
                await respond(send, 200, dumps({"server_load": 0}))
            case "/metrics":
                await respond(send, 200, self._exporter.text(), CONTENT_TYPE_PLAIN_0_0_4.encode())
            case _:
                await respond(send, 200, b"", content_type=None)

    async def _complete(self, chat: bool, scope: Scope, receive: Receive, send: Send) -> None:
        body = await _json_body(scope, receive)
        arrived_s = time.monotonic()
        job = parse(body, chat, self._settings.model, self._max_model_len)
        self._admit()
        words = output(_words(reply(job.prompt, self._entries, job.seed)), job.limits)
        if job.echo:
            words = replace(words, texts=[job.echo + words.texts[0], *words.texts[1:]])
        shape = wire.Chat if chat else wire.Completion
        answer = shape(_request_id(scope), int(time.time()), self._settings.model, self._fingerprint)
        generation = Generation(job.prompt_tokens, job.limits.max_tokens, words, arrived_s)
        self._runner.start(generation)
        try:
            async with while_connected(receive):
                if job.stream:
                    await self._stream(job, answer, generation, send)
                else:
                    await self._whole(job, answer, generation, send)
        finally:
            self._runner.leave(generation)

    def _admit(self) -> None:
        if self._draining:
            raise wire.ApiError(500, "cannot schedule new futures after shutdown", "InternalServerError")
        if self._runner.full:
            self._stats.rejections += 1
            raise wire.ApiError(503, BUSY, "Service Unavailable")

    async def _stream(self, job: Job, answer: wire.Chat | wire.Completion, generation: Generation, send: Send) -> None:
        # As vLLM does: the headers go out before the request is scheduled.
        headers = [(b"content-type", EVENT_STREAM)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        stream = wire.Stream(
            answer, job.prompt_tokens, include_usage=job.include_usage, continuous_usage=job.continuous_usage
        )
        words = generation.output
        last = len(words.texts) - 1
        sent = 0
        while (ready := await generation.until(sent + 1)) <= last and generation.broken is None:
            # A reader that lags gets what has gathered as one chunk, as vLLM's does.
            text = words.texts[sent] if ready == sent + 1 else "".join(words.texts[sent:ready])
            body = stream.token(text, ready)
            if sent == 0:
                body = stream.opening() + body
            await send({"type": "http.response.body", "body": body, "more_body": True})
            sent = ready
        if error := _error(generation):
            body = wire.error_event(error) + wire.DONE
        else:
            reason, stop_reason = _ending(generation)
            body = stream.last("".join(words.texts[sent:ready]), ready, reason, stop_reason)
            if sent == 0:
                body = stream.opening() + body
        await send({"type": "http.response.body", "body": body})

    async def _whole(self, job: Job, answer: wire.Chat | wire.Completion, generation: Generation, send: Send) -> None:
        words = generation.output
        count = await generation.until(len(words.texts))
        if error := _error(generation):
            raise error
        reason, stop_reason = _ending(generation)
        counts = wire.usage(job.prompt_tokens, count)
        whole = answer.whole("".join(words.texts[:count]), reason, stop_reason, counts)
        await respond(send, 200, dumps(whole))


@lru_cache(maxsize=256)
def _words(text: str) -> tuple[str, ...]:
    return tuple(pieces(text))


def _error(generation: Generation) -> wire.ApiError | None:
    """What a request gets in place of its answer, or of the rest of it."""
    if generation.broken is Broken.FAILED:
        return wire.ApiError(500, DIED, "InternalServerError")
    if generation.broken is Broken.REFUSED:
        return wire.ApiError(503, BUSY, "Service Unavailable")
    return None


def _ending(generation: Generation) -> tuple[str, str | None]:
    """The reasons that an answer ends with: finish reason and stop reason."""
    if generation.broken:
        return generation.broken.value, None
    return generation.output.finish_reason, generation.output.stop_reason


async def _json_body(scope: Scope, receive: Receive) -> bytes:
    """The body of a request that says it is JSON: vLLM takes no other."""
    given = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
    if given.lower().split(b";")[0].strip() != b"application/json":
        text = "1 validation error:\n  Unsupported Media Type: Only 'application/json' is allowed"
        raise wire.ApiError(400, text, "Bad Request")
    return await read_body(receive, BODY_LIMIT_BYTES)


def _address(scope: Scope, path: str) -> bytes:
    """Where a path of ours is, as the client knows it."""
    host = next((value for name, value in scope["headers"] if name == b"host"), b"localhost")
    return b"http://" + host + path.encode()


def _request_id(scope: Scope) -> str:
    given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
    return given.decode() if _REQUEST_ID.fullmatch(given) else uuid4().hex[:16]
