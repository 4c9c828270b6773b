"""The log in memory: a `Store` for unit tests, with failures that the test chooses."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from enum import Enum, auto

from .store import AlreadyExists, NotFound, StoreUnavailable, check_key, check_prefix


class Fault(Enum):
    """How a call fails: both raise StoreUnavailable, as the caller of a real store cannot tell them apart."""

    REFUSED = auto()  # nothing was done
    ANSWER_LOST = auto()  # it was done


Hook = Callable[[str, str], Awaitable[Fault | None]]
"""Awaited before each call with its method's name and its key or prefix. It may hold the call, or raise."""


class MemoryStore:
    """A `Store` in a dictionary. `objects` is what is stored, `writes` every write that was done, in order."""

    def __init__(self, hook: Hook | None = None) -> None:
        self.objects: dict[str, bytes] = {}
        self.writes: list[tuple[str, bytes]] = []
        self.hook = hook

    async def get(self, key: str) -> bytes:
        await self._reach("get", check_key(key))
        try:
            return self.objects[key]
        except KeyError:
            raise NotFound(key) from None

    async def put(self, key: str, body: bytes) -> None:
        fault = await self._reach("put", check_key(key))
        self._write(key, body, fault)

    async def create(self, key: str, body: bytes) -> None:
        fault = await self._reach("create", check_key(key))
        if key in self.objects:
            raise AlreadyExists(key)
        self._write(key, body, fault)

    async def list(self, prefix: str, after: str = "") -> list[str]:
        await self._reach("list", check_prefix(prefix))
        return sorted(key for key in self.objects if key.startswith(prefix) and key > after)

    async def folders(self, prefix: str) -> list[str]:
        await self._reach("folders", check_prefix(prefix))
        below = (key.removeprefix(prefix).split("/") for key in self.objects if key.startswith(prefix))
        return sorted({parts[0] for parts in below if len(parts) > 1})

    async def ping(self) -> None:
        await self._reach("ping", "")

    async def close(self) -> None:
        pass

    def _write(self, key: str, body: bytes, fault: Fault | None) -> None:
        self.objects[key] = bytes(body)
        self.writes.append((key, bytes(body)))
        if fault is Fault.ANSWER_LOST:
            raise StoreUnavailable(f"{key}: the answer got lost (injected)")

    async def _reach(self, method: str, key: str) -> Fault | None:
        await asyncio.sleep(0)  # a real store always lets other tasks run
        fault = await self.hook(method, key) if self.hook else None
        if fault is Fault.REFUSED or (fault and method not in ("put", "create")):
            raise StoreUnavailable(f"{method} {key}: refused (injected)")
        return fault
