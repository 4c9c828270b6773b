"""Drives the engine in real time: one timer, and each token to its request at once."""

from __future__ import annotations

import asyncio
from time import monotonic

from inference.engine.core import Core
from inference.engine.generation import Broken, Generation
from inference.engine.metrics import Stats

MAX_LAG_S = 0.25


class Runner:
    """Steps follow the ideal clock: the next one begins when the last was due, not when its timer fired, so that a
    late timer delays no later token. One that is more than MAX_LAG_S behind starts over from now."""

    def __init__(self, core: Core, stats: Stats, overhead_s: float = 0.0, max_queued: int | None = None) -> None:
        self.core = core
        self._max_queued = max_queued
        self._stats = stats
        self._overhead_s = overhead_s
        self._timer: asyncio.TimerHandle | None = None
        self._coming: dict[Generation, asyncio.TimerHandle] = {}
        self._generations: set[Generation] = set()

    @property
    def unfinished(self) -> int:
        """Requests that are about to be queued, wait or run."""
        return len(self._generations)

    @property
    def full(self) -> bool:
        """Whether as many requests wait and run as may. Those that are about to be queued do not count yet."""
        return self._max_queued is not None and len(self._generations) - len(self._coming) >= self._max_queued

    def start(self, generation: Generation) -> None:
        """Queue a request once what it takes outside of the engine is over: HTTP, tokenizer, hand-over."""
        delay_s = generation.arrived_s + self._overhead_s - monotonic()
        if delay_s > 0:
            self._generations.add(generation)
            self._coming[generation] = asyncio.get_running_loop().call_later(delay_s, self._come, generation)
        else:
            self._queue(generation)

    def leave(self, generation: Generation, why: Broken = Broken.ABORTED) -> None:
        """Forget a request, finished or not; its seat and blocks are free at once."""
        if generation not in self._generations:
            return
        self._generations.discard(generation)
        coming = self._coming.pop(generation, None)
        if coming is not None:
            coming.cancel()
        else:
            self.core.abort(generation.seq)
        generation.end(why)

    def end(self, why: Broken) -> None:
        """Leave every request."""
        for generation in list(self._generations):
            self.leave(generation, why)

    def _come(self, generation: Generation) -> None:
        del self._coming[generation]
        self._generations.discard(generation)
        if self.full:
            # vLLM looks a second time when it queues, as many may have come at once.
            self._stats.rejections += 1
            generation.end(Broken.REFUSED)
        else:
            self._queue(generation)

    def _queue(self, generation: Generation) -> None:
        self._generations.add(generation)
        self.core.add(generation.seq, monotonic())
        if self._timer is None:
            self._arm()

    def _arm(self) -> None:
        due_s = self.core.due_s
        if due_s is None:
            self._timer = None
        else:
            self._timer = asyncio.get_running_loop().call_later(max(0.0, due_s - monotonic()), self._step)

    def _step(self) -> None:
        due_s = self.core.due_s
        assert due_s is not None, "the timer is armed while a step runs"
        now_s = monotonic()
        step_s = due_s if now_s - due_s <= MAX_LAG_S else now_s
        _, got = self.core.advance(step_s)
        if got:
            self._stats.step(got, step_s, now_s)
        for seq in got:
            generation: Generation = seq.payload  # type: ignore[assignment]
            if seq.finished:
                self._generations.discard(generation)
            generation.token()
        self._arm()
