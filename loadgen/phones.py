"""Many scripted phones in one room."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from loadgen.http import Client
from loadgen.phone import Habits, Phone, Sent


class Stuck(Exception):
    """Something that all phones should have done did not happen in time."""


class Phones:
    """`habits` are shared by all; `seed` decides every choice and moment."""

    def __init__(self, servers: Sequence[str], code: str, count: int, habits: Habits, seed: int) -> None:
        self.habits = habits
        self.each = [Phone(Client(servers, turn=i), code, habits, random.Random(f"{seed}:{i}")) for i in range(count)]

    def start(self, within_s: float) -> None:
        for i, phone in enumerate(self.each):
            phone.start(within_s * i / len(self.each))

    async def close(self) -> None:
        await asyncio.gather(*(phone.close() for phone in self.each))

    @property
    def sent(self) -> list[Sent]:
        return [sent for phone in self.each for sent in phone.record.sent.values()]

    def of(self, activity: str) -> list[Sent]:
        return [sent for sent in self.sent if sent.activity == activity]

    @property
    def faults(self) -> Counter[str]:
        return sum((phone.record.faults for phone in self.each), Counter[str]())

    @property
    def polls(self) -> int:
        return sum(phone.record.polls for phone in self.each)

    @property
    def screens(self) -> int:
        return sum(phone.record.screens for phone in self.each)

    async def all(self, holds: Callable[[Phone], bool], what: str, within_s: float) -> None:
        """Waits until it holds for every phone. Raises Stuck with how many it does not hold for."""
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + within_s
        while missing := sum(1 for phone in self.each if not holds(phone)):
            if loop.time() > give_up_at:
                faults = dict(self.faults) or "none"
                raise Stuck(
                    f"{missing} of {len(self.each)} phones not {what} within {within_s:.0f} s; faults: {faults}"
                )
            await asyncio.sleep(0.05)

    async def all_acked(self, activity: str, within_s: float) -> None:
        await self.all(lambda phone: sent_of(phone, activity).acked, f"acknowledged for {activity}", within_s)

    async def all_replied(self, activity: str, within_s: float) -> None:
        await self.all(
            lambda phone: sent_of(phone, activity).reply_done_at is not None, f"with a reply to {activity}", within_s
        )


_NOTHING = Sent("", "", 0.0)


def sent_of(phone: Phone, activity: str) -> Sent:
    """What the phone sent for an activity; an empty one when nothing yet."""
    return phone.record.sent.get(activity, _NOTHING)


@asynccontextmanager
async def phones_in(
    servers: Sequence[str], code: str, count: int, habits: Habits, join_within_s: float = 1.0, seed: int = 1
) -> AsyncIterator[Phones]:
    """Phones that have joined over `join_within_s` and seen the room; they end with the block."""
    phones = Phones(servers, code, count, habits, seed)
    phones.start(join_within_s)
    try:
        await phones.all(lambda phone: bool(phone.record.shown), "in the room", join_within_s + 60)
        yield phones
    finally:
        await phones.close()
