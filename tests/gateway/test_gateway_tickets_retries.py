"""What happens when a replica fails before the first token."""

import asyncio
from time import monotonic

import pytest

from inference.exchange import ConnectFailed
from inference.pool import Pool
from tests.gateway.gateways import (
    BODY,
    UNREACHABLE,
    answer,
    break_before_token,
    busy,
    gateway_to,
    greet,
    hold,
    say_nothing,
    text_of,
)
from tests.inference.servers import ROLE, STREAM_HEAD, chunk, scripted
from webapp.gateway.errors import Failed, Refused
from webapp.gateway.line import Limits, Line
from webapp.gateway.tries import MAX_RETRIES, Tries


@pytest.mark.parametrize("script", [break_before_token, answer(500), answer(503)])
async def test_failure_before_the_first_token_goes_to_another_replica(script):
    async with scripted(script) as (bad, failing), scripted(greet) as (good, _), gateway_to(bad, good) as gateway:
        gateway.pool.replicas[1].in_flight = 5  # so that the failing one comes first
        assert await text_of(gateway.open(BODY, "k6")) == "Hi"
        assert failing.posts == 1
        assert gateway.value("retries_total") == 1
        assert gateway.value("requests_total", source="k6", status="200") == 1


async def test_replica_that_cannot_be_reached_is_unready_at_once_and_another_serves():
    async with scripted(greet) as (good, _), gateway_to(UNREACHABLE, good) as gateway:
        dead, live = gateway.pool.replicas
        live.in_flight = 5
        dead.ready = True  # as it was until a moment ago
        assert await text_of(gateway.open(BODY, "api")) == "Hi"
        assert not dead.ready


async def test_retries_end_after_two():
    async with (
        scripted(break_before_token) as (a, one),
        scripted(break_before_token) as (b, two),
        scripted(break_before_token) as (c, three),
        scripted(break_before_token) as (d, four),
        gateway_to(a, b, c, d) as gateway,
    ):
        with pytest.raises(Failed) as caught:
            await text_of(gateway.open(BODY, "api"))
        assert caught.value.status == 502
        assert sorted(r.posts for r in (one, two, three, four)) == [0, 1, 1, 1]


@pytest.mark.parametrize("status", [400, 404, 422])
async def test_request_that_is_refused_for_what_it_is_goes_nowhere_else(status):
    async with (
        scripted(answer(status)) as (a, one),
        scripted(answer(status)) as (b, two),
        gateway_to(a, b) as gateway,
    ):
        with pytest.raises(Refused) as caught:
            await text_of(gateway.open(BODY, "api"))
        error = caught.value
        assert (error.status, error.message, error.type) == (status, "said so", "Kind")
        assert one.posts + two.posts == 1
        assert gateway.pool.ready_count == 2


def busy_event(code: int):
    """vLLM with `max_num_queued_reqs`, asked for a stream: the headers are out before it knows."""

    async def script(reader, writer):
        writer.write(STREAM_HEAD + chunk(b'data: {"error":{"message":"busy","code":%d}}\n\n' % code))
        await writer.drain()

    return script


@pytest.mark.parametrize("refuse", [answer(503), answer(429), busy_event(503)])
async def test_replica_with_enough_requests_gets_none_for_a_while_and_costs_no_retry(refuse):
    async with (
        scripted(refuse) as (a, one),
        scripted(refuse) as (b, two),
        scripted(refuse) as (c, three),
        scripted(greet) as (d, _),
        gateway_to(a, b, c, d) as gateway,
    ):
        busy(gateway.pool.replicas[3])
        assert await asyncio.gather(*(text_of(gateway.open(BODY, "api")) for _ in range(3))) == ["Hi"] * 3
        posts = [r.posts for r in (one, two, three)]
        assert all(posts)
        assert await text_of(gateway.open(BODY, "api")) == "Hi"
        assert [r.posts for r in (one, two, three)] == posts
        assert gateway.value("retries_total", reason="refused") == sum(posts)
        assert gateway.value("replicas", state="full") == 3
        assert gateway.value("replicas_ready") == 4


async def test_refusals_that_do_not_end_are_told_in_the_replicas_words_when_the_wait_is_over():
    async with scripted(answer(503)) as (url, replica), gateway_to(url, limits=Limits(max_wait_s=0.1)) as gateway:
        with pytest.raises(Failed, match="said so") as caught:
            await text_of(gateway.open(BODY, "api"))
        assert (caught.value.status, caught.value.retry_after_s) == (503, 1)
        assert replica.posts == 1
        assert gateway.value("requests_total", status="503") == 1


async def test_only_replica_that_refuses_is_asked_again_until_it_does_not():
    tries = 0

    async def script(reader, writer):
        nonlocal tries
        tries += 1
        await (greet if tries > 2 else answer(503))(reader, writer)

    async with scripted(script) as (url, _), gateway_to(url) as gateway:
        assert await text_of(gateway.open(BODY, "api")) == "Hi"
        assert tries == 3


async def test_only_replica_that_loses_the_connection_is_asked_again():
    tries = 0

    async def script(reader, writer):
        nonlocal tries
        tries += 1
        await (greet if tries == 2 else break_before_token)(reader, writer)

    async with scripted(script) as (url, _), gateway_to(url) as gateway:
        assert await text_of(gateway.open(BODY, "api")) == "Hi"
        assert gateway.value("retries_total", reason="lost") == 1


@pytest.mark.parametrize("script", [say_nothing, hold])
async def test_silent_replica_is_left_for_another_and_alone_it_is_a_timeout(script):
    limits = Limits(first_token_timeout_s=0.1)
    async with (
        scripted(script) as (bad, silent),
        scripted(greet) as (good, _),
        gateway_to(bad, good, limits=limits) as gateway,
    ):
        busy(gateway.pool.replicas[1])
        assert await text_of(gateway.open(BODY, "api")) == "Hi"
        assert silent.posts == 1
        assert gateway.value("retries_total", reason="silent") == 1
        gateway.pool.remove(good)
        with pytest.raises(Failed, match=r"sent nothing for 0\.1 s") as caught:
            await text_of(gateway.open(BODY, "api"))
        assert caught.value.status == 504
        assert silent.posts == 2


async def test_replica_that_passes_its_checks_and_takes_no_connection_does_not_hold_a_request_for_ever():
    pool = Pool(["http://a", "http://b"])
    tries = Tries(Line(pool, Limits()), since=monotonic())
    replica = pool.replicas[0]
    for _ in range(len(pool.replicas) + MAX_RETRIES):
        assert tries.failed(replica, ConnectFailed("no")) == "connect"
        assert not replica.ready
        replica.ready = True
    with pytest.raises(Failed) as caught:
        tries.failed(replica, ConnectFailed("no"))
    assert caught.value.status == 502


async def test_only_replica_that_answers_5xx_is_not_asked_twice():
    async with scripted(answer(500)) as (url, replica), gateway_to(url) as gateway:
        with pytest.raises(Failed, match="said so"):
            await text_of(gateway.open(BODY, "api"))
        assert replica.posts == 1


@pytest.mark.parametrize(("code", "kind"), [(400, Refused), (500, Failed)])
async def test_error_event_before_the_first_token_is_an_error_not_a_token(code, kind):
    async def script(reader, writer):
        writer.write(STREAM_HEAD + chunk(ROLE + b'data: {"error":{"message":"no","code":%d}}\n\n' % code))
        await writer.drain()

    async with scripted(script) as (url, _), gateway_to(url) as gateway:
        with pytest.raises(kind) as caught:
            await text_of(gateway.open(BODY, "api"))
        assert caught.value.status == code
