"""The engine in time: batches one after another, each as long as the profile says. The clock is passed in, so that an
hour can be simulated in seconds and a seed replays it."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable

from inference.engine.scheduler import Batch, Capacity, Scheduler, Sequence

StepTime = Callable[[Batch, random.Random], float]  # seconds


class Core:
    """`add` and `abort` requests, and call `advance` whenever the clock has reached `due_s`.

    With `async_scheduling` (vLLM's default on GPUs) the next batch is formed when the current one starts, not when it
    has ended: the GPU never waits, but a request that arrives meanwhile waits for one step more.
    """

    def __init__(
        self, capacity: Capacity, step_time: StepTime, *, async_scheduling: bool = True, seed: int = 0
    ) -> None:
        self.scheduler = Scheduler(capacity)
        self._step_time = step_time
        self._depth = 2 if async_scheduling else 1
        self._random = random.Random(seed)
        self._batches: deque[Batch] = deque()  # the first one runs
        self.due_s: float | None = None  # when the running batch ends; None when idle

    def add(self, seq: Sequence, now_s: float) -> None:
        self.scheduler.add(seq, now_s)
        if self.due_s is None:
            self._start(now_s)

    def abort(self, seq: Sequence) -> None:
        """The step that runs goes on, as on a GPU, but nobody gets this request's token."""
        self.scheduler.abort(seq)

    def advance(self, now_s: float) -> tuple[Batch, list[Sequence]]:
        """End the batch that is due at `now_s` and start the next at once. Returns it and those who got a token."""
        assert self.due_s is not None, "nothing runs"
        batch = self._batches.popleft()
        got = self.scheduler.finish(batch, now_s)
        self.due_s = None
        self._start(now_s)
        return batch, got

    def _start(self, now_s: float) -> None:
        while len(self._batches) < self._depth and (batch := self.scheduler.schedule(now_s)) is not None:
            self._batches.append(batch)
        if self._batches:
            self.due_s = now_s + self._step_time(self._batches[0], self._random)
