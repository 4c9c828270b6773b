import asyncio
import logging
import socket
from contextlib import asynccontextmanager

import pytest

from inference.discovery import Discovery, check_url, resolve
from inference.pool import Pool
from tests.inference.servers import engine, serving, until

NAME = "dns+http://vllm.default.svc:8000"


class Names:
    """A resolver whose answer can be changed; `asked` counts the lookups."""

    def __init__(self, *addresses: str) -> None:
        self.answer: list[str] | Exception = list(addresses)
        self.asked = 0

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def asked_again(self) -> None:
        seen = self.asked
        await until(lambda: self.asked > seen + 1)


@asynccontextmanager
async def following(names, *urls: str):
    pool = Pool()
    discovery = Discovery(pool, urls, resolve=names, every_s=0.01)
    await discovery.start()
    yield pool
    await discovery.close()
    await pool.close()


async def test_each_address_of_a_name_is_a_replica_beside_plain_ones_in_the_order_given():
    async with following(Names("10.0.0.2", "10.0.0.1", "fd00::1", "10.0.0.2"), NAME, "http://gpu:8000/base") as pool:
        assert pool.urls == [
            "http://10.0.0.1:8000",
            "http://10.0.0.2:8000",
            "http://[fd00::1]:8000",
            "http://gpu:8000/base",
        ]


async def test_name_is_followed_as_its_addresses_change():
    names = Names("10.0.0.1", "10.0.0.2")
    async with following(names, NAME) as pool:
        stays = pool.replicas[1]
        names.answer = ["10.0.0.2", "10.0.0.3"]
        await until(lambda: pool.urls == ["http://10.0.0.2:8000", "http://10.0.0.3:8000"])
        assert pool.replicas[0] is stays


@pytest.mark.parametrize("trouble", [OSError("no such name"), socket.gaierror(-2, "not known"), []])
async def test_lookup_that_finds_nothing_keeps_the_last_known_and_says_so_once(trouble, caplog):
    names = Names("10.0.0.1")
    async with following(names, NAME) as pool:
        with caplog.at_level(logging.WARNING):
            names.answer = trouble
            await names.asked_again()
            assert pool.urls == ["http://10.0.0.1:8000"]
            names.answer = ["10.0.0.9"]
            await until(lambda: pool.urls == ["http://10.0.0.9:8000"])
        assert [record.args[0] for record in caplog.records] == ["vllm.default.svc"]


async def test_name_that_is_not_known_at_first_comes_later():
    names = Names()
    async with following(names, NAME) as pool:
        assert pool.urls == []
        names.answer = ["10.0.0.1"]
        await until(lambda: pool.urls == ["http://10.0.0.1:8000"])


async def test_real_name_leads_to_a_real_replica():
    async with serving(engine()) as url:
        port = url.rpartition(":")[2]
        async with following(resolve, f"dns+http://localhost:{port}") as pool:
            assert f"http://127.0.0.1:{port}" in pool.urls
            await pool.start()
            assert pool.pick() is not None


async def test_slow_lookup_of_one_name_delays_no_other():
    asked = []

    async def lookup(host: str, port: int) -> list[str]:
        asked.append(host)
        if host == "slow":
            await asyncio.Event().wait()
        return ["10.0.0.1"]

    pool = Pool()
    discovery = Discovery(pool, ["dns+http://slow", "dns+http://quick"], resolve=lookup, every_s=0.01)
    starting = asyncio.create_task(discovery.start())
    await until(lambda: pool.urls == ["http://10.0.0.1:80"] and asked.count("quick") > 2)
    assert asked.count("slow") == 1
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    await discovery.close()
    await pool.close()


@pytest.mark.parametrize("url", ["vllm:8000", "dns+https://x", "dns+http://", "ftp://x", "http://x:port"])
def test_what_stands_for_no_replica_is_refused(url):
    with pytest.raises(ValueError):
        check_url(url)
