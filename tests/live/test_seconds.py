"""The tick of each second."""

from __future__ import annotations

import asyncio

import pytest

from webapp.live.seconds import each_second


async def test_all_tick_in_order_and_one_that_fails_stops_nobody(caplog: pytest.LogCaptureFixture) -> None:
    ticked: list[str] = []
    twice = asyncio.Event()

    def fail() -> None:
        ticked.append("first")
        raise RuntimeError("broken")

    def last() -> None:
        ticked.append("last")
        if len(ticked) == 4:
            twice.set()

    task = asyncio.create_task(each_second(lambda: 0.999, fail, last))  # the next second is always near
    await asyncio.wait_for(twice.wait(), 10)
    task.cancel()
    assert ticked == ["first", "last", "first", "last"]
    assert "a second was left out" in caplog.text
