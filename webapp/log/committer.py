"""Group commit: many lines a second from many phones become a few objects a second in the store.

One committer writes the segments `{prefix}{writer}/{seq:08d}.jsonl` of one room, from seq 1, one PUT at a time. A
segment is tried with the same key and the same bytes until it is stored, so segments have no gaps and a key never
has two contents. What the lines say is left to others.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from .store import Store, StoreError

BACKOFF_FIRST_S, BACKOFF_MAX_S = 0.1, 1.0
SEGMENT_MAX_BYTES = 4 * 1024 * 1024  # what piled up in an outage goes out in pieces, not in one endless upload

log = logging.getLogger(__name__)


class NotYetStored(Exception):
    """The line is not known to be stored; the sender should send it again under the same key.

    Unless the committer was full or closed, the line stays pending and will be stored all the same.
    """


@dataclass(frozen=True, slots=True)
class _Pending:
    line: bytes
    since_s: float
    stored: asyncio.Future[bool]


class GroupCommitter:
    """Stores the lines of one writer in one room. `writer` must be new for each process (`new_writer_id`).

    `on_committed` is called with the lines of each stored segment before their senders wake. It must not raise.
    `now` gives seconds; `sleep` is awaited for the window and between tries.
    """

    def __init__(
        self,
        store: Store,
        prefix: str,
        writer: str,
        on_committed: Callable[[list[bytes]], None] = lambda lines: None,
        *,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        window_s: float = 0.025,
        max_pending: int = 20_000,
        ack_timeout_s: float = 3.0,
    ) -> None:
        self._store = store
        self._folder = f"{prefix}{writer}/"
        self._on_committed = on_committed
        self._now = now
        self._sleep = sleep
        self._window_s = window_s
        self._max_pending = max_pending
        self._ack_timeout_s = ack_timeout_s
        self._pending: dict[str, _Pending] = {}
        self._waiting: deque[str] = deque()  # keys of pending lines that no segment holds yet
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self._seq = 0
        self._last_put_ms: float | None = None
        self._failing_since: float | None = None

    @property
    def pending(self) -> int:
        """Lines taken and not yet stored."""
        return len(self._pending)

    @property
    def seq(self) -> int:
        """Number of the last stored segment; 0 before the first."""
        return self._seq

    @property
    def last_put_ms(self) -> float | None:
        """How long the last successful PUT took; None before the first."""
        return self._last_put_ms

    @property
    def failing_since(self) -> float | None:
        """When the store began to fail, in seconds of `now`; None while it works."""
        return self._failing_since

    def has(self, key: str) -> bool:
        """Whether a line under this key was taken and is not stored yet."""
        return key in self._pending

    async def append(self, key: str, line: bytes) -> None:
        """Return once `line` (no newline in it) is stored; raise NotYetStored after `ack_timeout_s`, or at once
        when too much is pending. A `key` that is pending already is waited for and this `line` dropped.

        A cancelled caller leaves its line pending.
        """
        pending = self._pending.get(key) or self._take(key, line)
        await asyncio.wait([pending.stored], timeout=self._ack_timeout_s)
        if not (pending.stored.done() and pending.stored.result()):
            raise NotYetStored(key)

    async def close(self, deadline_s: float) -> int:
        """Take no more lines and store the pending ones, for at most `deadline_s`. How many are left unstored."""
        self._closed = True
        if self._task is not None:
            _, running = await asyncio.wait([self._task], timeout=deadline_s)
            for task in running:
                task.cancel()
                await asyncio.wait([task])
        left = list(self._pending.values())
        self._pending.clear()
        for pending in left:
            pending.stored.set_result(False)
        return len(left)

    def _take(self, key: str, line: bytes) -> _Pending:
        assert line and b"\n" not in line, "a line is one line"
        if self._closed or len(self._pending) >= self._max_pending:
            raise NotYetStored(key)
        pending = _Pending(line, self._now(), asyncio.get_running_loop().create_future())
        self._pending[key] = pending
        self._waiting.append(key)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        return pending

    async def _run(self) -> None:
        """Segment after segment until nothing waits. The first line of each waits at most the window, less what
        it has waited for the PUT before."""
        while self._waiting:
            oldest = self._pending[self._waiting[0]]
            window_left_s = oldest.since_s + self._window_s - self._now()
            if window_left_s > 0 and not self._closed:
                await self._sleep(window_left_s)
            keys = self._next_segment()
            lines = [self._pending[key].line for key in keys]
            await self._put(self._seq + 1, b"".join(line + b"\n" for line in lines))
            self._seq += 1
            try:
                self._on_committed(lines)
            except Exception:
                log.exception("the lines of segment %s%08d are stored, but not taken in", self._folder, self._seq)
            for key in keys:
                self._pending.pop(key).stored.set_result(True)

    def _next_segment(self) -> list[str]:
        keys, size_bytes = [], 0
        while self._waiting:
            size_bytes += len(self._pending[self._waiting[0]].line) + 1
            if keys and size_bytes > SEGMENT_MAX_BYTES:
                break
            keys.append(self._waiting.popleft())
        return keys

    async def _put(self, seq: int, body: bytes) -> None:
        """Try until it is stored. A try that failed may have stored it, or may yet: the same bytes do no harm."""
        key = f"{self._folder}{seq:08d}.jsonl"
        backoff_s = BACKOFF_FIRST_S
        while True:
            started = self._now()
            try:
                await self._store.put(key, body)
            except Exception as error:  # whatever it is, giving up would leave a gap
                if self._failing_since is None:
                    self._failing_since = started
                    log.warning("cannot store %s, trying on: %s", key, error, exc_info=_unforeseen(error))
                await self._sleep(backoff_s * random.uniform(0.5, 1.0))
                backoff_s = min(2 * backoff_s, BACKOFF_MAX_S)
            else:
                break
        self._last_put_ms = (self._now() - started) * 1000
        if self._failing_since is not None:
            log.warning("stored %s after %.1f s", key, self._now() - self._failing_since)
            self._failing_since = None


def _unforeseen(error: Exception) -> Exception | None:
    return None if isinstance(error, StoreError) else error
