"""Local clusters for tests: the real one, with manifests whose waits are short and on a clock that runs fast."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from inference.cluster import manifests
from inference.cluster.local.cluster import LocalCluster
from inference.cluster.snapshot import ClusterSnapshot
from inference.pool import Pool
from inference.upstream import Exchange, Upstream
from tests.processes import descendants

PATIENCE_S = 40


class FastClock:
    """Unix time that passes `factor` times as fast as it does. `jump` puts it forward."""

    def __init__(self, factor: float = 10) -> None:
        self._factor = factor
        self._began_s = time.time()
        self._jumped_s = 0.0

    def __call__(self) -> float:
        return self._began_s + (time.time() - self._began_s) * self._factor + self._jumped_s

    def jump(self, seconds: float) -> None:
        self._jumped_s += seconds


def copy_manifests(folder: Path) -> Path:
    """The project's, all of them; the base's folder in the copy."""
    base = manifests.defaults()
    copy = folder / "kustomize"
    shutil.copytree(base.parent, copy)
    return copy / base.name


def edit(folder: Path, pattern: str, replacement: str) -> None:
    """Replace what `pattern` matches in the manifests, which must be there."""
    found = 0
    for path in folder.rglob("*.yaml"):
        text, count = re.subn(pattern, replacement, path.read_text(), flags=re.MULTILINE)
        if count:
            path.write_text(text)
            found += count
    assert found, f"{pattern} is nowhere in {folder}"


@asynccontextmanager
async def running(folder: Path, **options: object) -> AsyncIterator[tuple[LocalCluster, Pool]]:
    """A cluster and its pool, with cold starts of next to no time."""
    pool = Pool(check_every_s=0.1)
    given = {"profile": "instant", "speed_up": 1000, "clock": FastClock(), **options}
    cluster = LocalCluster(pool, folder=folder, **given)
    await pool.start()
    await cluster.start()
    try:
        yield cluster, pool
    finally:
        await cluster.close()
        await pool.close()


async def until_view(cluster: LocalCluster, holds: Callable[[ClusterSnapshot], bool]) -> ClusterSnapshot:
    """The first view for which it holds. Fails with the last one, and what has happened so far."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not holds(view := cluster.snapshot()):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            return view
    except TimeoutError:
        said = "\n".join(one.text for one in view.happenings)
        raise AssertionError(f"not within {PATIENCE_S} s: {view.pods}\n{view.autoscaler}\n{said}") from None


def ready(count: int) -> Callable[[ClusterSnapshot], bool]:
    """Exactly so many pods, all ready."""
    return lambda view: view.ready == len(view.pods) == count


async def begun(url: str, max_tokens: int) -> Exchange:
    """A stream under way."""
    body = {"prompt": "x", "max_tokens": max_tokens, "ignore_eos": True, "stream": True}
    exchange = await Upstream(url).post("/v1/completions", json.dumps(body).encode())
    await exchange.chunk()
    return exchange


async def finish_reason(stream: Exchange) -> str:
    """Why a stream that was begun has ended, once it has."""
    *_, last, done = (await stream.read()).decode().split("\n\n")[:-1]
    assert done == "data: [DONE]"
    return json.loads(last.removeprefix("data: "))["choices"][0]["finish_reason"]


def engines(pid: int | None = None) -> set[int]:
    """The processes of replicas that this process, or another, has started."""
    return {child for child in descendants(pid or os.getpid()) if "inference.engine" in _command(child)}


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""
