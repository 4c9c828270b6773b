"""The waiting room: who waits, who is next, and what is said to those for whom there is no place."""

import asyncio

import pytest

from tests.gateway.gateways import BODY, UNREACHABLE, answer, gateway_to, greet, hold, text_of
from tests.inference.servers import PATIENCE_S, STREAM_HEAD, chunk, event, scripted, until
from webapp.gateway.errors import AllFull, NoReplica, QueueFull
from webapp.gateway.line import Limits


class Seats:
    """A script: each request gets its token once `free()` was called for it, in the order they came."""

    def __init__(self) -> None:
        self.came: list[bytes] = []
        self._free = asyncio.Semaphore(0)

    def free(self) -> None:
        self._free.release()

    async def __call__(self, reader, writer):
        await self._free.acquire()
        await greet(reader, writer)


def asking(gateway, *names: str) -> list[asyncio.Task[str]]:
    """One request after the other; each is in its place before the next comes."""
    return [asyncio.create_task(text_of(gateway.open(BODY, "api", name))) for name in names]


def order(replica) -> list[str]:
    return [head.partition(b"x-request-id: ")[2].partition(b"\r")[0].decode() for head in replica.heads]


async def test_full_replica_gets_no_more_and_those_who_wait_go_on_in_the_order_they_came():
    seats = Seats()
    limits = Limits(max_in_flight_per_replica=2)
    async with scripted(seats) as (url, replica), gateway_to(url, limits=limits) as gateway:
        tasks = asking(gateway, *"abcdef")
        await until(lambda: replica.posts == 2 and gateway.value("waiting") == 4)
        assert gateway.value("replicas", state="full") == 1
        for _ in tasks:
            seats.free()
        assert await asyncio.gather(*tasks) == ["Hi"] * 6
        assert order(replica) == list("abcdef")
        assert gateway.value("wait_seconds_count") == 6
        assert gateway.is_idle()


async def test_replica_that_is_added_takes_those_who_wait():
    limits = Limits(max_in_flight_per_replica=1)
    async with (
        scripted(hold) as (full, _),
        scripted(greet) as (fresh, _),
        gateway_to(full, limits=limits) as gateway,
    ):
        first, *rest = asking(gateway, *"abcd")
        await until(lambda: gateway.value("waiting") == 3)
        gateway.pool.add(fresh)
        assert await asyncio.wait_for(asyncio.gather(*rest), PATIENCE_S) == ["Hi"] * 3
        first.cancel()


@pytest.mark.parametrize("why", ["full", "unready"])
async def test_place_of_one_who_leaves_goes_to_the_next(why):
    limits = Limits(max_in_flight_per_replica=1)
    seats = Seats()
    async with scripted(seats) as (url, replica), gateway_to(url, limits=limits) as gateway:
        if why == "unready":
            gateway.pool.replicas[0].in_flight = 1
        tasks = asking(gateway, *"abcd")
        await until(lambda: gateway.value("waiting") == (4 if why == "unready" else 3))
        tasks[1].cancel()
        tasks[2].cancel()
        await asyncio.gather(tasks[1], tasks[2], return_exceptions=True)
        assert gateway.value("waiting") == (2 if why == "unready" else 1)
        if why == "unready":
            gateway._line.give_back(gateway.pool.replicas[0])
        seats.free()
        seats.free()
        assert await asyncio.gather(tasks[0], tasks[3]) == ["Hi", "Hi"]
        assert order(replica) == ["a", "d"]
        assert gateway.is_idle()


async def test_one_who_leaves_in_the_moment_of_being_next_passes_the_replica_on():
    limits = Limits(max_in_flight_per_replica=1)
    async with scripted(greet) as (url, replica), gateway_to(url, limits=limits) as gateway:
        gateway.pool.replicas[0].in_flight = 1
        tasks = asking(gateway, *"ab")
        await until(lambda: gateway.value("waiting") == 2)
        gateway._line.give_back(gateway.pool.replicas[0])
        tasks[0].cancel()  # it has been granted the replica and does not know yet
        assert await asyncio.wait_for(tasks[1], PATIENCE_S) == "Hi"
        assert order(replica) == ["b"]
        assert gateway.is_idle()


async def test_too_many_and_too_long_while_none_is_ready_get_503():
    async with gateway_to(UNREACHABLE, limits=Limits(max_waiting=1, max_wait_s=0.2)) as gateway:
        (waiting,) = asking(gateway, "a")
        await until(lambda: gateway.value("waiting") == 1)
        with pytest.raises(QueueFull) as full:
            await text_of(gateway.open(BODY, "api"))
        with pytest.raises(NoReplica) as late:
            await waiting
        assert full.value.status == late.value.status == 503
        assert full.value.type == late.value.type == "overloaded_error"
        assert full.value.retry_after_s
        assert late.value.retry_after_s
        assert gateway.value("requests_total", source="api", status="503") == 2
        assert gateway.is_idle()


async def test_too_many_and_too_long_while_all_are_full_get_429():
    limits = Limits(max_waiting=1, max_wait_s=0.2, max_in_flight_per_replica=1)
    async with scripted(hold) as (url, _), gateway_to(url, limits=limits) as gateway:
        served, waiting = asking(gateway, *"ab")
        await until(lambda: gateway.value("waiting") == 1)
        for late in (text_of(gateway.open(BODY, "api")), waiting):
            with pytest.raises(AllFull) as caught:
                await late
            assert (caught.value.status, caught.value.type) == (429, "overloaded_error")
            assert caught.value.retry_after_s
        assert gateway.value("requests_total", source="api", status="429") == 2
        served.cancel()


async def test_request_that_was_refused_goes_before_those_who_came_later():
    """Two have a place on replicas that then say they have enough: both go on before the two that wait."""
    go_on = asyncio.Event()
    tries = 0

    async def script(reader, writer):
        nonlocal tries
        tries += 1
        if tries > 2:
            await greet(reader, writer)
        else:
            await go_on.wait()
            await answer(503)(reader, writer)

    limits = Limits(max_in_flight_per_replica=2)
    async with scripted(script) as (url, replica), gateway_to(url, limits=limits) as gateway:
        tasks = asking(gateway, *"abcd")
        await until(lambda: replica.posts == 2 and gateway.value("waiting") == 2)
        go_on.set()
        assert await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE_S) == ["Hi"] * 4
        assert sorted(order(replica)[2:4]) == ["a", "b"]
        assert order(replica)[4:] == ["c", "d"]


async def test_one_who_waits_for_another_replica_holds_up_nobody():
    """`a` failed on the first replica and the second is full: `b`, who came later, takes the first."""
    tries = 0

    async def fail_once(reader, writer):
        nonlocal tries
        tries += 1
        await (answer(500) if tries == 1 else greet)(reader, writer)

    async def one_token(reader, writer):
        writer.write(STREAM_HEAD + chunk(event(content="Hi")))
        await reader.read()

    limits = Limits(max_in_flight_per_replica=1)
    async with (
        scripted(fail_once) as (a, first),
        scripted(one_token) as (b, _),
        gateway_to(a, b, limits=limits) as gateway,
    ):
        first_replica, other = gateway.pool.replicas
        other.in_flight = 1
        (failing,) = asking(gateway, "a")
        await until(lambda: gateway.value("retries_total", reason="error") == 1 and gateway.value("waiting") == 1)
        assert await asyncio.wait_for(text_of(gateway.open(BODY, "api", "b")), PATIENCE_S) == "Hi"
        assert order(first) == ["a", "b"]
        assert not failing.done()
        assert first_replica.in_flight == 0
        failing.cancel()
