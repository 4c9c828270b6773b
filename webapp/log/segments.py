"""Reading the log: other writers' segments as they appear, and the numbered control events of a room."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from dataclasses import dataclass

from .store import AlreadyExists, NotFound, Store, StoreError, StoreUnavailable

READS_AT_ONCE = 16
_SEGMENT = re.compile(r"(\d{8})\.jsonl")
_EVENT = re.compile(r"(\d{6})\.json")
_DIGITS = "0123456789abcdefghijklmnopqrstuv"  # base32hex, whose byte order is the order of the numbers
_SECONDS_DIGITS, _RANDOM_DIGITS = 7, 6

log = logging.getLogger(__name__)


class LogDamaged(StoreError):
    """An event that must be there is missing."""


def new_writer_id(now_s: float) -> str:
    """A name for one process start, `{base32 of the Unix time}-{random}`: later names sort after earlier ones."""
    seconds = int(now_s)
    time = "".join(_DIGITS[seconds >> 5 * place & 31] for place in reversed(range(_SECONDS_DIGITS)))
    return f"{time}-{''.join(secrets.choice(_DIGITS) for _ in range(_RANDOM_DIGITS))}"


class SegmentTail:
    """Follows all writers under `prefix` but `skip_writer`, whose lines are known without reading them."""

    def __init__(self, store: Store, prefix: str, skip_writer: str = "") -> None:
        self._store = store
        self._prefix = prefix
        self._skip_writer = skip_writer
        self._last_seqs: dict[str, int] = {}

    async def poll(self) -> list[bytes]:
        """The lines that no earlier poll gave, in order of (writer, seq). One poll at a time.

        What cannot be read now is left for the next poll. An empty list means that nothing was left out; when
        there is nothing to give because of an error, that StoreError is raised.
        """
        writers = [name for name in await self._store.folders(self._prefix) if name != self._skip_writer]
        slots = asyncio.Semaphore(READS_AT_ONCE)
        reads = await asyncio.gather(*(self._read(writer, slots) for writer in writers))
        lines = [line for read in reads for line in read.lines]
        error = next((read.error for read in reads if read.error), None)
        if error and not lines:
            raise error
        # Only now that nothing can interrupt: lines of a cancelled poll come again.
        self._last_seqs.update((writer, read.last_seq) for writer, read in zip(writers, reads, strict=True))
        return lines

    async def skip_existing(self) -> None:
        """Start after what is there now, without reading it."""
        for writer in await self._store.folders(self._prefix):
            keys = await self._store.list(f"{self._prefix}{writer}/")
            self._last_seqs[writer] = max(_by_seq(keys, f"{self._prefix}{writer}/", _SEGMENT), default=0)

    async def _read(self, writer: str, slots: asyncio.Semaphore) -> _Read:
        folder = f"{self._prefix}{writer}/"
        last_seq = self._last_seqs.get(writer, 0)

        async def get(key: str) -> bytes | StoreError:
            async with slots:
                try:
                    return await self._store.get(key)
                except StoreError as error:
                    return error

        try:
            async with slots:
                keys = await _settled(self._store, folder, f"{folder}{last_seq:08d}.jsonl", _SEGMENT, last_seq)
        except StoreError as error:
            return _Read([], last_seq, error)
        bodies = await asyncio.gather(*map(get, keys.values()))
        lines: list[bytes] = []
        for seq, body in zip(keys, bodies, strict=True):
            if isinstance(body, StoreError):
                return _Read(lines, last_seq, body)
            if seq != last_seq + 1:
                log.error("segments %d to %d of %s are missing", last_seq + 1, seq - 1, folder)
            lines += body.removesuffix(b"\n").split(b"\n")
            last_seq = seq
        return _Read(lines, last_seq)


@dataclass(frozen=True, slots=True)
class _Read:
    """The new lines of one writer, the segment they end with, and why the next one could not be read."""

    lines: list[bytes]
    last_seq: int
    error: StoreError | None = None


async def append_cas(store: Store, prefix: str, seq: int, body: bytes) -> bool:
    """Whether `body` is event `seq` (from 1) under `prefix`: False when another came first.

    After StoreUnavailable call it again with the same `seq` and `body`: should the first try have been stored, the
    second finds it and says True. So bodies of different senders must differ (an id, a time).
    """
    key = f"{prefix}{seq:06d}.json"
    try:
        await store.create(key, body)
    except AlreadyExists:
        try:
            return await store.get(key) == body
        except NotFound:
            raise StoreUnavailable(f"{key} was there and is gone") from None
    return True


async def read_from(store: Store, prefix: str, after_seq: int) -> list[tuple[int, bytes]]:
    """The events under `prefix` with a seq above `after_seq` (0: all), in order. Raises LogDamaged for a gap."""
    keys = await _settled(store, prefix, f"{prefix}{after_seq:06d}.json", _EVENT, after_seq)
    for expected, seq in enumerate(keys, after_seq + 1):
        if seq != expected:
            raise LogDamaged(f"{prefix}{expected:06d}.json is missing, {seq:06d}.json is there")
    slots = asyncio.Semaphore(READS_AT_ONCE)

    async def read(key: str) -> bytes:
        async with slots:
            return await store.get(key)

    bodies = await asyncio.gather(*map(read, keys.values()))
    return list(zip(keys, bodies, strict=True))


async def _settled(store: Store, folder: str, after: str, name: re.Pattern[str], last_seq: int) -> dict[int, str]:
    """The keys right under `folder` after `after`, by their seq, with no gap that only the listing made.

    While a folder on disk is listed, files appear, and a listing may show a later one without an earlier one. Each
    was written after the one before it was there, so a second listing shows all that come before what the first saw.
    """
    keys = _by_seq(await store.list(folder, after), folder, name)
    seqs = list(keys)
    if seqs == list(range(last_seq + 1, last_seq + 1 + len(seqs))):
        return keys
    again = _by_seq(await store.list(folder, after), folder, name)
    return {seq: key for seq, key in again.items() if seq <= seqs[-1]}


def _by_seq(keys: list[str], folder: str, name: re.Pattern[str]) -> dict[int, str]:
    matches = ((name.fullmatch(key.removeprefix(folder)), key) for key in keys)
    return {int(match[1]): key for match, key in matches if match}
