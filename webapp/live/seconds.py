"""The tick of each second, for all who are to see the same second."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

log = logging.getLogger("crowdspike.live")

AFTER_S = 0.001
"""A timer may fire a little early, and would still be in the second before."""


async def each_second(clock: Callable[[], float], *ticks: Callable[[], None]) -> None:
    """Calls them, one right after the other in this order, as each full second of `clock` begins; until cancelled.
    What goes wrong in one is logged, and the next goes on."""
    while True:
        for tick in ticks:
            try:
                tick()
            except Exception:
                log.exception("a second was left out")
        await asyncio.sleep(1 - clock() % 1 + AFTER_S)
