"""Reads metrics as Prometheus would: each target once an interval, at an offset of its own, whatever the others do."""

from __future__ import annotations

import asyncio
import logging
import math
import zlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from inference.cluster.scraping import Scrapes
from inference.exchange import UpstreamError

log = logging.getLogger("crowdspike.cluster")

TIMEOUT_S = 10.0  # Prometheus' default; never more than the interval

Read = Callable[[], Awaitable[bytes]]
"""The page as it is now. Raises UpstreamError, TimeoutError, ValueError or OSError."""


@dataclass(frozen=True, slots=True)
class Target:
    """`on_page` hears each page that came and can be read; `close` is called when it is no target any more."""

    name: str
    read: Read
    labels: Mapping[str, str]
    on_page: Callable[[bytes], None] = lambda page: None
    close: Callable[[], None] = lambda: None


class Scraper:
    """Puts what it reads, and what it could not read, into `scrapes`. `late` is told by how much each scrape began too
    late, in seconds."""

    def __init__(
        self,
        scrapes: Scrapes,
        interval_s: float,
        clock: Callable[[], float],
        late: Callable[[float], None] = lambda late_s: None,
    ) -> None:
        self._scrapes = scrapes
        self._interval_s = interval_s
        self._clock = clock
        self._late = late
        self._targets: dict[str, tuple[Target, asyncio.Task[None]]] = {}

    def add(self, target: Target) -> None:
        assert target.name not in self._targets, "added twice"
        self._targets[target.name] = (target, asyncio.create_task(self._follow(target)))

    def remove(self, name: str) -> None:
        """Its series end now."""
        target, task = self._targets.pop(name)
        task.cancel()
        target.close()
        self._scrapes.forget(name, self._clock())

    async def close(self) -> None:
        tasks = [task for _, task in self._targets.values()]
        for name in list(self._targets):
            self.remove(name)
        await asyncio.gather(*tasks, return_exceptions=True)

    async def refresh(self) -> None:
        """Read every target now, side by side."""
        await asyncio.gather(*(self._scrape(target) for target, _ in list(self._targets.values())))

    async def _follow(self, target: Target) -> None:
        now = asyncio.get_running_loop().time
        # As Prometheus spreads them: by a hash of the name, so that a restart changes nothing.
        offset_s = zlib.crc32(target.name.encode()) / 2**32 * self._interval_s
        due = now() + (offset_s - now()) % self._interval_s
        while True:
            await asyncio.sleep(due - now())
            self._late(max(0.0, now() - due))
            await self._scrape(target)
            # One that took long, or a machine that slept, skips rounds and keeps its offset.
            due += self._interval_s * max(1, math.ceil((now() - due) / self._interval_s))

    async def _scrape(self, target: Target) -> None:
        at_s = self._clock()
        page: bytes | None = None
        try:
            async with asyncio.timeout(min(TIMEOUT_S, self._interval_s)):
                page = await target.read()
        except (UpstreamError, TimeoutError, ValueError, OSError) as error:
            log.debug("scrape of %s failed: %s", target.name, error)
        except Exception:
            log.exception("scrape of %s failed", target.name)
        if not self._is_target(target):
            return
        if self._scrapes.put(target.name, at_s, page, target.labels) and page is not None:
            target.on_page(page)

    def _is_target(self, target: Target) -> bool:
        """It may have gone while it was read."""
        return target.name in self._targets and self._targets[target.name][0] is target
