"""Which replicas there are: a fixed list of URLs, and names whose DNS answer is a replica each, followed as it changes.

`dns+http://vllm.default.svc:8000` stands for all addresses of a headless Service. A lookup that fails or finds nothing
keeps the last known ones: the name server may be ill while the replicas are well, and those that are gone fail their
health checks.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Iterable
from urllib.parse import SplitResult, urlsplit

from inference.pool import Pool

log = logging.getLogger("crowdspike.discovery")

EVERY_S = 2.0
FIRST_LOOKUP_S = 5.0
DNS = "dns+http"

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""The addresses of a name (host, port). Raises OSError."""


async def resolve(host: str, port: int) -> list[str]:
    """The A and AAAA records, as the system's resolver knows them."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


def check_url(url: str) -> None:
    """Raises ValueError for what stands for no replica."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https", DNS) or not parts.hostname or parts.port == 0:
        raise ValueError(f"{url!r} is not the address of a server; write http://host:port or {DNS}://name:port")


class Discovery:
    """Keeps a pool in step with `urls`."""

    def __init__(
        self, pool: Pool, urls: Iterable[str], *, resolve: Resolve = resolve, every_s: float = EVERY_S
    ) -> None:
        self._pool = pool
        self._resolve = resolve
        self._every_s = every_s
        # In the order given: what each stands for now.
        self._found: dict[str, list[str]] = {}
        for url in urls:
            check_url(url)
            self._found[url] = [] if url.startswith(DNS) else [url]
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Look each name up once, for some seconds at most, then follow it in the background."""
        names = [url for url in self._found if url.startswith(DNS)]
        first = {url: asyncio.get_running_loop().create_future() for url in names}
        self._tasks = [asyncio.create_task(self._follow(url, first[url])) for url in names]
        self._tell()
        if names:
            await asyncio.wait(first.values(), timeout=FIRST_LOOKUP_S)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    async def _follow(self, url: str, looked_up: asyncio.Future[None]) -> None:
        parts = urlsplit(url)
        failing = False
        while True:
            try:
                addresses = sorted(set(await self._resolve(parts.hostname or "", parts.port or 80)))
                trouble = "" if addresses else "it has no address"
            except (OSError, UnicodeError) as error:
                addresses, trouble = [], str(error)
            if trouble and not failing:
                log.warning("cannot look up %s, so its last known replicas stay: %s", parts.hostname, trouble)
            failing = bool(trouble)
            if addresses:
                self._found[url] = [_url(parts, address) for address in addresses]
                self._tell()
            if not looked_up.done():
                looked_up.set_result(None)
            await asyncio.sleep(self._every_s)

    def _tell(self) -> None:
        self._pool.set(url for found in self._found.values() for url in found)


def _url(parts: SplitResult, address: str) -> str:
    host = f"[{address}]" if ":" in address else address
    return f"http://{host}:{parts.port or 80}{parts.path}"
