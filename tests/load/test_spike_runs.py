"""The run manager: real child processes, real logs in a folder, web processes that come and go."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.processes import runs as process_runs
from tests.sample_room import TALK
from webapp.gateway.errors import NoKey
from webapp.gateway.keys import Keyring
from webapp.identity import Signer
from webapp.live_room import LiveRoom
from webapp.log.local import LocalStore
from webapp.room.commands import Action, CommandRefused
from webapp.room.spikes import Spike
from webapp.rooms import Rooms
from webapp.spikes import keys
from webapp.spikes.choice import Choice, Limits, choose
from webapp.spikes.environment import Environments
from webapp.spikes.runs import Runs, folder_for

RUNNER = Path(__file__).with_name("spike_runner.py")
OWN = "http://own.test"
WITHIN_S = 30.0
SIGNER = Signer("s" * 32)
RUN = "ab12cd34"


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class Process:
    """A web process as far as load runs go: rooms over the folder `store`, and a manager of runs."""

    def __init__(self, folder: Path, kind: str, clock: Callable[[], int] = now_ms) -> None:
        self.store = LocalStore(folder / "store")
        self.rooms = Rooms(self.store, clock, 0.05)
        self.stopping = asyncio.Event()
        environments = Environments(SIGNER, "presenter-token", None)
        command = [sys.executable, str(RUNNER), kind]
        self.runs = Runs(self.rooms, folder / "spikes", clock, environments, self.stopping, command)

    async def room(self, code: str = "") -> LiveRoom:
        return await (self.rooms.get(code) if code else self.rooms.make(TALK))

    async def close(self) -> None:
        await self.runs.close()
        await self.rooms.close()
        await self.store.close()


@asynccontextmanager
async def process(folder: Path, kind: str = "waits", clock: Callable[[], int] = now_ms) -> AsyncIterator[Process]:
    one = Process(folder, kind, clock)
    try:
        yield one
    finally:
        await one.close()


def choice(target: str = OWN, scenario: str = "spike", **fields: str) -> Choice:
    return choose({"scenario": scenario, "target": target, "confirmed": "1", **fields}, OWN, Limits(200, 1800))


async def until(room: LiveRoom, true: Callable[[Spike], object], spike: str = RUN) -> Spike:
    """The run, once it is as asked for."""
    async with asyncio.timeout(WITHIN_S):
        async for _ in room.changes(0.1, asyncio.Event()):
            if spike in room.state.spikes and true(room.state.spikes[spike]):
                return room.state.spikes[spike]
    raise AssertionError


async def seen(true: Callable[[], object]) -> None:
    """Once it is so."""
    async with asyncio.timeout(WITHIN_S):
        while not true():  # noqa: ASYNC110 (what is looked at is in another process, or tells nobody)
            await asyncio.sleep(0.01)


def armed(runs: Runs) -> Callable[[Spike], object]:
    return lambda spike: (progress := runs.progress(spike.id)) and progress.state == "armed"


def running(runs: Runs) -> Callable[[Spike], object]:
    return lambda spike: (progress := runs.progress(spike.id)) and progress.state == "running"


def over(spike: Spike) -> object:
    return spike.ended


async def test_a_run_waits_for_its_firing_and_leaves_its_figures_in_the_log_and_its_files_in_the_store(
    tmp_path: Path,
) -> None:
    async with process(tmp_path, "quick") as web:
        room = await web.room()
        await web.runs.arm(room, choice(), RUN)
        await until(room, armed(web.runs))
        await web.runs.fire(room, RUN)
        ended = (await until(room, over)).ended
        assert (ended.verdict, ended.headline, ended.kept) == ("pass", "Heard fire.", True)
        assert (ended.served, ended.failed, ended.dropped) == (120, 6, 4)
        assert (ended.ttft_p95_ms, ended.ttft_by) == (750, "token")
        prefix = f"rooms/{room.info.code}/spikes/{RUN}/"
        assert "verdict" in json.loads(await web.store.get(prefix + "summary.json"))
        assert b"The verdict." in await web.store.get(prefix + "report.html")
        assert gzip.decompress(await web.store.get(prefix + "points.jsonl.gz")) == b'{"n":0}\n'


async def test_live_figures_are_there_while_it_runs(tmp_path: Path) -> None:
    async with process(tmp_path) as web:
        room = await web.room()
        await web.runs.arm(room, choice(), RUN)
        await until(room, armed(web.runs))
        await web.runs.fire(room, RUN)
        await until(room, running(web.runs))
        progress = web.runs.progress(RUN)
        assert (progress.level, progress.served, progress.ttft_p95_s, progress.ttft_by) == (40.0, 7, 0.25, "token")


async def test_a_run_can_be_stopped_before_and_after_it_is_fired(tmp_path: Path) -> None:
    async with process(tmp_path) as web:
        room = await web.room()
        for spike, fire in (("before00", False), ("after000", True)):
            await web.runs.arm(room, choice(), spike)
            await until(room, armed(web.runs), spike)
            if fire:
                await web.runs.fire(room, spike)
                await until(room, running(web.runs), spike)
            await web.runs.stop(room, spike)
            ended = (await until(room, over, spike)).ended
            assert ended.verdict == "stopped"
            assert ended.headline == ("Heard fire stop." if fire else "Heard stop.")


async def test_one_that_is_fired_before_it_is_loaded_begins_when_it_is(tmp_path: Path) -> None:
    async with process(tmp_path, "quick") as web:
        room = await web.room()
        await web.runs.arm(room, choice(), RUN)
        await web.runs.fire(room, RUN)
        assert (await until(room, over)).ended.headline == "Heard fire."


async def test_what_the_runner_refuses_is_said_in_its_own_words(tmp_path: Path) -> None:
    async with process(tmp_path, "refuses") as web:
        room = await web.room()
        await web.runs.arm(room, choice(), RUN)
        ended = (await until(room, over)).ended
        assert (ended.verdict, ended.headline) == ("failed", "http://own.test refuses connections.")
        assert (ended.served, ended.kept) == (0, False)


async def test_a_folder_that_cannot_be_made_is_said_and_blocks_nothing(tmp_path: Path) -> None:
    (tmp_path / "spikes").write_text("in the way")
    async with process(tmp_path) as web:
        room = await web.room()
        await web.runs.arm(room, choice(), RUN)
        ended = (await until(room, over)).ended
        assert ended.verdict == "failed"
        assert "can't be used" in ended.headline


async def test_one_run_at_a_time_in_a_room_and_at_a_target(tmp_path: Path) -> None:
    async with process(tmp_path) as web:
        room, other = await web.room(), await web.room()
        first = await web.runs.arm(room, choice(), RUN)
        assert web.runs.progress(RUN).state == "arming", "before its process is there, too"
        assert await web.runs.arm(room, choice(), RUN) == first, "a double tap is one run"
        with pytest.raises(CommandRefused, match="stands ready"):
            await web.runs.arm(room, choice("http://elsewhere.test"), "another0")
        with pytest.raises(CommandRefused, match="this target"):
            await web.runs.arm(other, choice(), "another0")
        await web.runs.stop(room, RUN)
        await until(room, over)
        await seen(lambda: web.runs.progress(RUN) is None)
        assert (await web.runs.arm(other, choice(), "another0")).phase == "armed"


async def test_whichever_web_process_is_asked_the_one_with_the_child_carries_it_out(tmp_path: Path) -> None:
    async with process(tmp_path) as web, process(tmp_path) as other:
        here = await web.room()
        there = await other.room(here.info.code)
        await web.runs.arm(here, choice(), RUN)
        await until(here, armed(web.runs))
        await until(there, lambda spike: spike.phase == "armed")
        assert other.runs.progress(RUN) is None
        with pytest.raises(CommandRefused, match="stands ready"):
            await other.runs.arm(there, choice(), "another0")
        await other.runs.fire(there, RUN)
        await until(here, running(web.runs))
        await other.runs.settle(there)
        assert there.state.spikes[RUN].ended is None, "whose process lives is not settled by another"
        await other.runs.stop(there, RUN)
        assert (await until(there, over)).ended.headline == "Heard fire stop."


async def test_an_orderly_end_of_the_web_process_stops_the_run_and_records_it(tmp_path: Path) -> None:
    async with process(tmp_path) as web:
        room = await web.room()
        await web.runs.arm(room, choice(), RUN)
        await until(room, armed(web.runs))
        await web.runs.fire(room, RUN)
        await until(room, running(web.runs))
        pid = web.runs.pid(RUN)
    assert not process_runs(pid)
    async with process(tmp_path) as later:
        ended = (await later.room(room.info.code)).state.spikes[RUN].ended
        assert (ended.verdict, ended.kept) == ("stopped", True)


async def test_an_archived_room_ends_its_run(tmp_path: Path) -> None:
    async with process(tmp_path) as web:
        room = await web.room()
        await web.runs.arm(room, choice(), RUN)
        await until(room, armed(web.runs))
        await room.command(Action("archive-1", "archive"))
        assert (await until(room, over)).ended.verdict == "stopped"


async def test_one_that_is_past_its_time_is_stopped_and_then_killed(tmp_path: Path) -> None:
    late_ms = 0
    async with process(tmp_path, "deaf", lambda: now_ms() + late_ms) as web:
        room = await web.room()
        await web.runs.arm(room, choice(), RUN)
        await until(room, armed(web.runs))
        pid = web.runs.pid(RUN)
        late_ms = 3_600_000
        await seen(lambda: room.used_ms > now_ms() + 3_000_000)  # the manager has looked, and said stop
        late_ms = 7_200_000
        ended = (await until(room, over)).ended
        assert (ended.verdict, ended.kept) == ("failed", False)
        assert not process_runs(pid)


CHILD = """
import asyncio, sys
sys.path[:0] = {paths!r}
from pathlib import Path
from test_spike_runs import RUN, Process, armed, choice, running, until

async def main():
    web = Process(Path({folder!r}), "waits")
    room = await web.room()
    await web.runs.arm(room, choice(), RUN)
    await until(room, armed(web.runs))
    if {fire!r}:
        await web.runs.fire(room, RUN)
        await until(room, running(web.runs))
    print(room.info.code, web.runs.pid(RUN), flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def killed_web_process(folder: Path, fire: bool, and_its_run: bool = False) -> tuple[str, int]:
    """A web process has a run, then it gets a kill -9: the room's code, and the run's pid."""
    script = CHILD.format(paths=[str(RUNNER.parent), str(RUNNER.parents[2])], folder=str(folder), fire=fire)
    killed = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=subprocess.PIPE)
    try:
        code, pid = (await killed.stdout.readline()).decode().split()
        if and_its_run:
            killed.send_signal(signal.SIGSTOP)  # or it would record what it sees
            os.kill(int(pid), signal.SIGKILL)
    finally:
        killed.kill()
        await killed.wait()
    return code, int(pid)


@pytest.mark.parametrize("fire", [False, True])
async def test_after_kill_9_of_the_web_process_the_run_is_stopped_and_the_next_one_records_it(
    tmp_path: Path, fire: bool
) -> None:
    code, pid = await killed_web_process(tmp_path, fire)
    await seen(lambda: not process_runs(pid))
    async with process(tmp_path) as web:
        await web.runs.start()
        await seen(lambda: web.rooms.peek(code))  # nobody asks for the room: the manager finds it by its folder
        ended = (await until(await web.room(code), over)).ended
        assert (ended.verdict, ended.served, ended.kept) == ("stopped", 120, True)


async def test_a_run_that_was_killed_with_its_web_process_is_lost_and_says_so(tmp_path: Path) -> None:
    code, _ = await killed_web_process(tmp_path, True, and_its_run=True)
    async with process(tmp_path) as web:
        room = await web.room(code)
        await web.runs.start()
        ended = (await until(room, over)).ended
        assert (ended.verdict, ended.kept) == ("lost", False)
        assert "web process" in ended.headline


async def test_what_ran_on_another_machine_is_lost_only_when_its_time_is_over(tmp_path: Path) -> None:
    late_ms = 0
    async with process(tmp_path) as web, process(tmp_path, clock=lambda: now_ms() + late_ms) as elsewhere:
        room = await web.room()
        elsewhere.runs.folder = tmp_path / "another-machine"
        there = await elsewhere.room(room.info.code)
        await web.runs.arm(room, choice(), RUN)
        spike = await until(there, lambda spike: spike.phase == "armed")
        await elsewhere.runs.settle(there)
        assert there.state.spikes[RUN].ended is None
        late_ms = spike.until_ms - now_ms() + 61_000
        await elsewhere.runs.settle(there)
        assert there.state.spikes[RUN].ended.verdict == "lost"


async def test_the_child_gets_what_its_own_target_needs_and_no_other_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CROWDSPIKE_SECRET", "AWS_SECRET_ACCESS_KEY", "OPENAI_API_KEY", "INFERENCE_API_KEY"):
        monkeypatch.setenv(name, "hidden-value")
    cases = (
        (OWN, "spike", True, False),
        (OWN, "amplify", True, True),
        ("http://elsewhere.test", "spike", False, False),
    )
    async with process(tmp_path) as web:
        room = await web.room()
        for n, (target, scenario, keyed, presents) in enumerate(cases):
            spike = f"run{n}0000"
            await web.runs.arm(room, choice(target, scenario), spike)
            await until(room, armed(web.runs), spike)
            found = json.loads((web.runs.folder_of(room.info.code, spike) / "environment.json").read_text())
            assert "hidden-value" not in found.values()
            assert ("CROWDSPIKE_SPIKE_API_KEY" in found, "CROWDSPIKE_PRESENTER_TOKEN" in found) == (keyed, presents)
            assert ("--room" in found["arguments"]) == (target == OWN)
            secrets = {found.get("CROWDSPIKE_SPIKE_API_KEY"), found.get("CROWDSPIKE_PRESENTER_TOKEN")}
            assert not secrets & set(found["arguments"])
            await web.runs.stop(room, spike)
            await until(room, over, spike)
            await seen(lambda spike=spike: web.runs.progress(spike) is None)


async def test_every_web_process_takes_a_runs_key_until_its_time_is_over(tmp_path: Path) -> None:
    at_ms = 1000
    ring = Keyring(LocalStore(tmp_path), passes=keys.passes(Signer("s" * 32), lambda: at_ms))
    key = keys.make(SIGNER, RUN, 5000)
    assert ring.find(f"Bearer {key}").name == f"spike-{RUN}"
    for wrong in (key[:-1], key.replace("5000", "9000"), SIGNER.sign("presenter", f"spike-{RUN}.5000"), "x"):
        with pytest.raises(NoKey):
            ring.find(f"Bearer {wrong}")
    at_ms = 5000
    with pytest.raises(NoKey):
        ring.find(f"Bearer {key}")


def test_runs_write_beside_the_store_unless_told_otherwise(tmp_path: Path) -> None:
    assert folder_for("", str(tmp_path / "data")) == tmp_path / "data-spikes"
    assert folder_for(str(tmp_path / "there"), "s3://bucket/talks") == tmp_path / "there"
    assert "crowdspike-spikes" in folder_for("", "s3://bucket/talks").name
