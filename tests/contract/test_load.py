"""When many ask at once: 32 run, the rest wait, who leaves is forgotten, too many are refused."""

from __future__ import annotations

import pytest

from tests.contract import MAX_NUM_QUEUED_REQS, MAX_NUM_SEQS
from tests.contract.crowd import LONG, crowd
from tests.contract.requests import TEXT_PATH

BUSY = {
    "message": "The engine is currently busy and cannot accept new requests. Please try again later or on a different "
    "instance.",
    "type": "Service Unavailable",
    "param": None,
    "code": 503,
}


async def test_as_many_run_as_there_are_seats_and_the_rest_wait(server):
    async with crowd(server.url) as callers:
        callers.join(3)
        await callers.wait_load(running=3, waiting=0)
        callers.join(MAX_NUM_SEQS)
        figures = await callers.wait_load(running=MAX_NUM_SEQS, waiting=3)
        assert figures["num_requests_waiting_by_reason capacity"] == 3
        assert figures["num_requests_waiting_by_reason deferred"] == 0
        assert 0 < figures["kv_cache_usage_perc"] <= 1


async def test_who_waits_gets_the_seat_of_who_leaves(server):
    async with crowd(server.url) as callers:
        callers.join(MAX_NUM_SEQS)
        await callers.wait_load(running=MAX_NUM_SEQS, waiting=0)
        callers.join(4)
        await callers.wait_load(running=MAX_NUM_SEQS, waiting=4)
        await callers.leave(3)
        await callers.wait_load(running=MAX_NUM_SEQS, waiting=1)


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
async def test_who_leaves_is_forgotten_running_or_waiting(server, stream):
    async with crowd(server.url) as callers:
        callers.join(MAX_NUM_SEQS + 2, stream)
        await callers.wait_load(running=MAX_NUM_SEQS, waiting=2)
        await callers.leave_all()
        figures = await callers.wait_load(running=0, waiting=0)
        assert figures["kv_cache_usage_perc"] == 0


async def test_requests_beyond_the_bound_are_refused(server):
    async with crowd(server.url) as callers:
        before = await callers.values()
        callers.join(MAX_NUM_QUEUED_REQS)
        await callers.wait_load(running=MAX_NUM_SEQS, waiting=MAX_NUM_QUEUED_REQS - MAX_NUM_SEQS)
        for stream in (False, True):
            answer = await callers.client.post(TEXT_PATH, json={**LONG, "stream": stream})
            assert (answer.status_code, answer.json()) == (503, {"error": BUSY})
            assert "retry-after" not in answer.headers
        after = await callers.values()
        name = "admission_rejections_total max_num_queued_reqs"
        assert after[name] - before[name] == 2


async def test_a_place_that_became_free_can_be_taken(server):
    async with crowd(server.url) as callers:
        callers.join(MAX_NUM_QUEUED_REQS)
        await callers.wait_load(running=MAX_NUM_SEQS, waiting=MAX_NUM_QUEUED_REQS - MAX_NUM_SEQS)
        await callers.leave(MAX_NUM_SEQS + 1)
        await callers.wait_load(running=MAX_NUM_SEQS, waiting=MAX_NUM_QUEUED_REQS - 2 * MAX_NUM_SEQS - 1)
        callers.join(1)
        await callers.wait_load(running=MAX_NUM_SEQS, waiting=MAX_NUM_QUEUED_REQS - 2 * MAX_NUM_SEQS)


async def test_load_is_not_tracked_unless_the_server_was_told_to(server):
    async with crowd(server.url) as callers:
        callers.join(2)
        await callers.wait_load(running=2, waiting=0)
        assert (await callers.client.get("/load")).json() == {"server_load": 0}
