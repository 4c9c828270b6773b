"""One request in the engine, between the scheduler that counts its tokens and the task that writes them out."""

from __future__ import annotations

import asyncio
from enum import Enum

from inference.engine.output import Output
from inference.engine.scheduler import Sequence


class Broken(Enum):
    """Why an answer ends before it is whole."""

    ABORTED = "abort"  # the replica ends at once, or nobody reads any more
    FAILED = "error"  # the replica waited for it, and not long enough
    REFUSED = "refused"  # others were quicker to fill the queue


class Generation:
    """`ready` tokens of `output` may be written. A slow reader costs no memory: what waits for it is a number."""

    __slots__ = ("_reader", "_wanted", "arrived_s", "broken", "last_s", "max_tokens", "output", "ready", "seq")

    def __init__(self, prompt_tokens: int, max_tokens: int, output: Output, arrived_s: float) -> None:
        self.seq = Sequence(prompt_tokens, len(output.texts), payload=self)
        self.max_tokens = max_tokens
        self.output = output
        self.arrived_s = arrived_s
        self.last_s = 0.0  # when the engine made its latest token
        self.ready = 0
        self.broken: Broken | None = None
        self._wanted = 0
        self._reader: asyncio.Future[None] | None = None

    async def until(self, count: int) -> int:
        """Waits for `count` tokens. Returns how many are ready; fewer only if it is `broken`."""
        if self.ready < count and self.broken is None:
            self._wanted = count
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        return self.ready

    def token(self) -> None:
        self.ready += 1
        if self.ready >= self._wanted:
            self._wake()

    def end(self, why: Broken) -> None:
        """No further token comes."""
        self.broken = why
        self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)
