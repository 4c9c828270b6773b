"""One request on its way: line, replica, first token, stream. Retries on another replica, but never after a token."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from time import monotonic
from typing import Any, Literal

from inference.exchange import UpstreamError
from inference.pool import Replica
from webapp.gateway import sse
from webapp.gateway.attempt import Answer, Attempt, Request
from webapp.gateway.errors import Closed, Failed, FromReplica, GatewayError
from webapp.gateway.line import Line
from webapp.gateway.metrics import Metrics
from webapp.gateway.record import Record
from webapp.gateway.tries import Tries

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
LEFT = 499  # nginx's status for a client that went away

State = Literal["warming", "waiting", "streaming", "done", "failed"]


class Ticket:
    """A request in flight. Use either `deltas()`, or `begin()` and then `read()`; both raise GatewayError.

    `ended` is told once, when the request has ended and holds nothing any more; `first_token` the TTFT of a stream.
    """

    def __init__(
        self,
        line: Line,
        metrics: Metrics,
        request: Request,
        ended: Callable[[Record], None],
        first_token: Callable[[float], None],
    ) -> None:
        self._line = line
        self._metrics = metrics
        self._request = request
        self._tell_ended = ended
        self._tell_first_token = first_token
        self._number = line.join()
        self._opened_at = monotonic()
        self._waited_s = 0.0
        self._ttft_s: float | None = None
        self._replica: Replica | None = None
        self._last_replica: Replica | None = None
        self._attempt: Attempt | None = None
        self._retries = 0
        self._ended: int | None = None  # the status that the request ended with
        self._beginner: asyncio.Task[Any] | None = None
        self.too_slow = False
        """It was ended since nobody reads its stream; then `on_too_slow` is called."""
        self.on_too_slow: Callable[[], None] | None = None
        metrics.in_flight[request.source] += 1

    @property
    def source(self) -> str:
        return self._request.source

    @property
    def position(self) -> int:
        """1 for the next in line, and so on; 0 once the first token is here or the request has ended."""
        return self._line.position(self._number)

    @property
    def state(self) -> State:
        if self._ended is not None:
            return "done" if self._ended < 400 else "failed"
        if not self.position:
            return "streaming"
        if self._replica is None and not self._line.pool.ready_count:
            return "warming"
        return "waiting"

    async def deltas(self) -> AsyncIterator[str]:
        """The text as it comes. Ends early, without an error, after `aclose()`; leaving the loop aborts the request."""
        self._request = self._request._replace(body={**self._request.body, "stream": True}, raw=None)
        try:
            with suppress(Closed):
                answer = await self.begin()
                if answer.body is not None:
                    raise self._fail("the replica did not stream")
                while events := await self.read():
                    for payload in sse.payloads(events):
                        if payload.get("error"):
                            raise self._fail("the replica broke off with an error")
                        text = sse.text_of(payload)
                        if text and self._ended is None:
                            yield text
        finally:
            await self.aclose()

    async def begin(self, task: asyncio.Task[Any] | None = None) -> Answer:
        """Wait in line and for the first token (or the whole answer); retry until then where that can help.

        `task` is the one that calls it, where that is known."""
        if self._ended is not None:
            raise Closed("the request is closed")
        self._beginner = task or asyncio.current_task()
        try:
            answer = await self._first_answer()
        except GatewayError as error:
            self._end(error.status, error.type)
            raise
        except asyncio.CancelledError:
            if self._ended is None or self._beginner.uncancel() > 0:
                raise
            raise Closed("the request was closed") from None  # by aclose(): nobody cancelled the caller
        finally:
            self._beginner = None
        self._line.leave(self._number)
        if answer.body is None:
            assert self._attempt is not None
            self._ttft_s = monotonic() - self._opened_at
            self._tell_first_token(self._ttft_s)
            self._attempt.stream(self._line.limits.stream_silence_s, self._too_slow)
        else:
            self._end(answer.status)
        return answer

    async def read(self) -> bytes:
        """The next events of the stream as the replica sent them, always whole; empty once the request has ended."""
        if self._ended is not None:
            return b""
        attempt = self._attempt
        assert attempt is not None, "read() before begin()"
        try:
            events = await attempt.more()
        except UpstreamError as error:
            return self._broke_off(attempt, error)
        if not events:
            self._finish(attempt)
        return events

    async def forward(self, write: Callable[[bytes], bool]) -> bool:
        """Give the events to `write` as they come, cheaper than to `read()` them. True once the request has ended;
        False when `write` returned False, and asks to be called again."""
        if self._ended is not None:
            return True
        attempt = self._attempt
        assert attempt is not None, "forward() before begin()"
        try:
            if not await attempt.forward(write):
                return False
        except UpstreamError as error:
            if last := self._broke_off(attempt, error):
                write(last)
        else:
            self._finish(attempt)
        return True

    async def aclose(self) -> None:
        """End the request in any phase and abort it on the replica at once. May be called again, from any task."""
        if self._ended is not None:
            return
        self._end(LEFT, Closed.type)
        if self._beginner is not None and self._beginner is not asyncio.current_task():
            self._beginner.cancel()

    async def _first_answer(self) -> Answer:
        tries = Tries(self._line, self._opened_at)
        while True:
            replica = await self._next_replica(tries)
            try:
                return await self._try(replica)
            except (UpstreamError, FromReplica) as error:
                reason = tries.failed(replica, error)
            self._drop_replica()  # only now, or those who wait would be given what has just failed
            self._metrics.retries[reason,] += 1
            self._retries += 1

    async def _next_replica(self, tries: Tries) -> Replica:
        came_at = monotonic()
        try:
            return await self._line.replica(tries.avoid, again=self._retries > 0, waited_s=self._waited_s)
        except GatewayError as error:
            raise tries.refusal or error from None  # a replica's own words tell more
        finally:
            self._waited_s += monotonic() - came_at

    async def _try(self, replica: Replica) -> Answer:
        """One attempt. The replica is this request's until `_drop_replica()`."""
        self._replica = replica
        self._last_replica = replica
        self._attempt = Attempt(self._request, replica, self._metrics.itl[self.source])
        return await self._attempt.begin(self._line.limits.first_token_timeout_s)

    def _finish(self, attempt: Attempt) -> None:
        said = attempt.error
        self._end(200 if said is None else said.status, None if said is None else said.type)

    def _broke_off(self, attempt: Attempt, error: UpstreamError) -> bytes:
        """What the client is told last, where the replica has told it why."""
        if self._ended is not None:
            return b""
        if attempt.error is None:
            raise self._fail(str(error)) from error
        self._finish(attempt)
        return sse.DONE

    def _too_slow(self) -> None:
        self.too_slow = True
        self._end(LEFT, "slow_reader")
        if self.on_too_slow is not None:
            self.on_too_slow()

    def _fail(self, message: str) -> Failed:
        error = Failed(502, message=message)
        self._end(error.status, error.type)
        return error

    def _end(self, status: int, error: str | None = None) -> None:
        if self._ended is not None:
            return
        self._ended = status
        attempt, replica, request = self._attempt, self._last_replica, self._request
        self._drop_replica()
        self._line.leave(self._number)
        self._metrics.in_flight[request.source] -= 1
        tokens = attempt.tokens if attempt is not None else sse.Usage(0, 0)
        self._tell_ended(
            Record(
                request_id=request.request_id,
                path=request.path,
                source=request.source,
                status=status,
                e2e_s=monotonic() - self._opened_at,
                model=str(request.body.get("model") or (replica and replica.model) or ""),
                key=request.key,
                replica=None if replica is None else replica.url,
                retries=self._retries,
                waited_s=self._waited_s,
                ttft_s=self._ttft_s,
                prompt_tokens=tokens.prompt,
                completion_tokens=tokens.completion,
                error=error,
            )
        )

    def _drop_replica(self) -> None:
        """Let go of the replica and its connection, which aborts whatever is not complete."""
        if self._attempt is not None:
            self._attempt.close()
        if self._replica is not None:
            replica, self._replica = self._replica, None
            self._line.give_back(replica)
