"""A load run from the console with the whole program and a real tool: it starts, ends, and outlives nobody."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from loadgen import processes
from tests.processes import descendants, replica, runs

WITHIN_S = 30.0


@asynccontextmanager
async def served(folder: Path, port: int, replica: str) -> AsyncIterator[tuple[processes.Process, httpx.AsyncClient]]:
    """`crowdspike serve` whose gateway asks for keys, and its presenter."""
    store = str(folder / "store")
    web = await asyncio.to_thread(processes.web_app, folder / "web.log", store, port=port, inference_url=replica)
    headers = {"authorization": f"Bearer {processes.TOKEN}"}
    try:
        await asyncio.to_thread(web.wait_ready)
        async with httpx.AsyncClient(base_url=web.url, headers=headers, timeout=20) as presenter:
            yield web, presenter
    finally:
        await asyncio.to_thread(web.end)


async def asked(presenter: httpx.AsyncClient, path: str, true: Callable[[dict], object]) -> dict:
    """The room's last run, once it is as asked for."""
    async with asyncio.timeout(2 * WITHIN_S):
        while True:
            spike = (await presenter.get(path)).json()["spikes"][-1]
            if true(spike):
                return spike
            await asyncio.sleep(0.1)


def is_armed(spike: dict) -> bool:
    return spike["progress"] is not None and spike["progress"]["state"] == "armed"


async def test_a_real_run_passes_the_gateways_keys_and_none_survives_a_kill_9_of_the_web_process(
    tmp_path: Path,
) -> None:
    port = processes.free_port()
    wanted = {"action": "arm", "scenario": "spike", "tool": "k6", "peak": 4}
    with replica(tmp_path) as engine:
        async with served(tmp_path, port, engine.url) as (web, presenter):
            code = (await presenter.post("/present/rooms", json={"talk": "0"})).json()["code"]
            path = f"/present/{code}/spikes"
            await presenter.post(path, json={**wanted, "duration_s": 5})
            await asked(presenter, path, is_armed)
            await presenter.post(path, json={"action": "fire"})
            ended = (await asked(presenter, path, lambda spike: spike["ended"]))["ended"]
            assert (ended["served"] > 0, ended["failed"], ended["kept"]) == (True, 0, True), ended

            await presenter.post(path, json={**wanted, "duration_s": 600})
            await asked(presenter, path, is_armed)
            await presenter.post(path, json={"action": "fire"})
            await asked(presenter, path, lambda spike: spike["progress"]["served"] > 0)
            started = descendants(web.pid)
            assert len(started) >= 2, "the runner and its tool"
            web.kill()
            async with asyncio.timeout(WITHIN_S):
                while any(map(runs, started)):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)  # a process of somebody else's says nothing when it ends
        async with served(tmp_path, port, engine.url) as (web, presenter):
            ended = (await asked(presenter, path, lambda spike: spike["ended"]))["ended"]
            assert (ended["verdict"], ended["kept"]) == ("stopped", True), ended
            report = await presenter.get(f"{path}/{ended['spike']}/report")
            assert (report.status_code, "Stopped" in report.text) == (200, True)
