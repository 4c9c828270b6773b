"""The replay: where it is, what it shows, and `crowdspike replay` as a person runs it."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.recordings import T0_S, lines, store_in, talk
from tests.sample_room import T0_MS
from webapp.cli import main
from webapp.log.local import LocalStore
from webapp.log.memory import MemoryStore
from webapp.replay import Playback, Replay, ReplayApp
from webapp.tape import load

PATIENCE_S = 30


class Hands:
    """A clock by hand."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def playback(length_s: float = 100.0, speed: float = 10.0, loop: bool = False) -> tuple[Playback, Hands]:
    clock = Hands()
    return Playback(length_s, speed, loop, clock), clock


def test_it_goes_on_at_its_speed_and_stays_at_the_end() -> None:
    play, clock = playback()
    assert play.position_s == 0
    clock.now_s += 4
    assert play.position_s == 40
    clock.now_s += 100
    assert (play.position_s, play.jumps) == (100, 0)


def test_it_starts_again_when_it_is_to() -> None:
    play, clock = playback(loop=True)
    clock.now_s += 12
    assert (play.position_s, play.jumps) == (100, 0)  # the end can be read for 3 s
    clock.now_s += 1.5
    assert (play.position_s, play.jumps) == (0, 1)
    clock.now_s += 1
    assert play.position_s == 10


def test_a_pause_holds_and_lets_go() -> None:
    play, clock = playback()
    clock.now_s += 2
    play.act("pause")
    clock.now_s += 50
    assert (play.position_s, play.paused) == (20, True)
    play.act("forward")
    assert (play.position_s, play.jumps) == (50, 0)
    play.act("back")
    play.act("forward")
    assert (play.position_s, play.jumps) == (50, 1)
    play.act("pause")
    clock.now_s += 1
    assert (play.position_s, play.paused) == (60, False)


def test_another_speed_goes_on_from_there() -> None:
    play, clock = playback()
    clock.now_s += 2
    play.act("slower")
    assert (play.position_s, play.speed, play.jumps) == (20, 5, 0)
    clock.now_s += 2
    assert play.position_s == 30
    for _ in range(20):
        play.act("faster")
    assert (play.position_s, play.speed) == (30, 50)


@given(st.lists(st.sampled_from(["pause", "back", "forward", "start", "slower", "faster", 1.0, 7.5]), max_size=40))
def test_it_never_leaves_the_record(steps: list[str | float]) -> None:
    play, clock = playback()
    for step in steps:
        if isinstance(step, float):
            clock.now_s += step
        else:
            play.act(step)
        assert 0 <= play.position_s <= 100


# ---- over HTTP


@asynccontextmanager
async def replaying() -> AsyncIterator[tuple[httpx.AsyncClient, Replay, Hands]]:
    store = MemoryStore()
    await store_in(store, talk(), lines())
    clock = Hands()
    replay = Replay(await load(store, "KWXM"), 10.0, False, clock)
    transport = httpx.ASGITransport(ReplayApp(replay))
    async with httpx.AsyncClient(transport=transport, base_url="http://stage.test") as http:
        yield http, replay, clock


async def test_the_stage_is_as_it_was_and_says_that_it_is_a_replay() -> None:
    async with replaying() as (http, _, clock):
        lobby = (await http.get("/stage/KWXM")).text
        assert "<title>Replay, 10× · A sample · KWXM</title>" in lobby
        assert "3</strong> people are here" in (await http.get("/stage/KWXM/screen")).text
        clock.now_s += 1.6  # 16 s on: the first question is open
        page = (await http.get("/stage/KWXM")).text
        assert "Which letter is second?" in page
        assert "is-right" not in page
        assert re.search(r'data-replay="title">Replay, 10×<', page)
        assert re.search(r'data-replay="position">0:16 of 4:59<', page)
        assert "recorded <span" in page
        clock.now_s += 60
        assert "Thank you" in (await http.get("/stage/KWXM/screen")).text


async def test_the_snapshot_has_the_room_and_the_cluster_of_that_moment() -> None:
    async with replaying() as (_, replay, clock):
        clock.now_s += 13.55
        document = json.loads(json.dumps(replay.document()))
        assert document["now_ms"] == T0_MS + 135_500
        assert (document["room"], document["joined"]) == ("archived", 3)
        assert document["model"] == {"simulated": True, "replicas": 3, "ready": 3, "in_flight": 64}
        cluster = document["cluster"]
        assert [(pod["name"], pod["phase"]) for pod in cluster["pods"]] == [
            ("vllm-a", "ready"),
            ("vllm-b", "ready"),
            ("vllm-c", "ready"),
        ]
        assert cluster["scaling"]["metric"] == 712
        assert cluster["feed"][0]["text"] == "Pod vllm-c is ready, 59 s after it was made (and 1 more)"
        assert {step["step"]: step["t_s"] for step in cluster["chain"]}["ready"] == 70
        assert replay.history()["t"][-1] == T0_S + 135


async def test_the_stream_tells_of_every_change() -> None:
    async with replaying() as (http, replay, _):
        replay.stopping.set()
        assert (await http.get("/stage/KWXM/events")).text == ""  # an end that does not wait for its readers
        replay.stopping.clear()
        told = asyncio.create_task(_until(replay, "Which letter"))
        for _ in range(3):
            await asyncio.sleep(0)
        words = (await http.post("/stage/KWXM/replay/forward")).json()
        assert (words["position"], words["jumps"]) == ("0:30 of 4:59", 0)
        await told


async def _until(replay: Replay, words: str) -> None:
    """Waits, as a stage's stream does, until its screen has a title that begins so."""
    async with asyncio.timeout(PATIENCE_S), replay.changed:
        while True:
            activity = replay.screen("http://stage.test/").activity
            if activity is not None and activity.title.startswith(words):
                return
            await replay.changed.wait()


async def test_only_this_rooms_stage_is_served_and_only_our_own_pages_steer_it() -> None:
    async with replaying() as (http, replay, _):
        assert (await http.get("/")).headers["location"] == "/stage/KWXM"
        for path in ("/stage/KWXB", "/r/KWXM", "/present", "/v1/models", "/stage/KWXM/replay/pause"):
            assert (await http.get(path)).status_code in (404, 405), path
        assert (await http.post("/stage/KWXM/replay/explode")).status_code == 404
        strange = {"origin": "http://elsewhere.test"}
        assert (await http.post("/stage/KWXM/replay/pause", headers=strange)).status_code == 403
        assert not replay.playback.paused
        policy = (await http.get("/stage/kwxm")).headers["content-security-policy"]
        assert "unsafe" not in policy


async def test_a_room_without_a_cluster_is_replayed_without_one() -> None:
    store = MemoryStore()
    bare = [json.loads(line) for line in lines()]
    kept = ("type", "writer", "at_ms", "vitals")
    await store_in(store, talk(), [json.dumps({k: line[k] for k in kept}).encode() for line in bare])
    replay = Replay(await load(store, "KWXM"), 1.0, False, Hands())
    assert "cluster" not in replay.document()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(ReplayApp(replay)), base_url="http://x.test") as http:
        assert 'id="cluster"' not in (await http.get("/stage/KWXM")).text
        assert (await http.get("/stage/KWXM/history")).status_code == 404


# ---- as a command


async def crowdspike(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "webapp.cli", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def test_the_command_serves_the_stage_from_a_folder_and_ends_in_order(tmp_path: Path) -> None:
    await store_in(LocalStore(tmp_path), talk(), lines())
    process = await crowdspike("replay", "kwxm", "--store", str(tmp_path), "--port", "0", "--speed", "20")
    try:
        async with asyncio.timeout(PATIENCE_S):
            line = (await process.stdout.readline()).decode()
            url = re.search(r"http://\S+", line)[0]
            async with httpx.AsyncClient() as http, http.stream("GET", f"{url}/events") as stream:
                events = stream.aiter_lines()
                assert await anext(events) == "event: snapshot"
                assert json.loads((await anext(events)).removeprefix("data: "))["replay"]["title"] == "Replay, 20×"
                process.send_signal(signal.SIGINT)
                async for _ in events:
                    pass
            _, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert (process.returncode, err.decode()) == (0, "")


@pytest.mark.parametrize(
    ("recorded", "code", "options", "said"),
    [
        (True, "KWXB", (), "There is no room KWXB"),
        (True, "hello", (), "not a room code"),
        (False, "KWXM", (), "no timeline"),
        (True, "KWXM", ("--speed", "0"), "not a number above 0"),
    ],
)
async def test_what_cannot_be_replayed_is_said_in_a_line(tmp_path: Path, capsys, recorded, code, options, said) -> None:
    await store_in(LocalStore(tmp_path), talk(), lines() if recorded else [])
    arguments = ["replay", code, "--store", str(tmp_path), "--port", "0", *options]
    status, out, err = await asyncio.to_thread(command, capsys, arguments)
    assert (status, out) == (2, "")
    assert said in err


def command(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> tuple[int, str, str]:
    """In a thread, as a command has an event loop of its own."""
    try:
        status = main(arguments)
    except SystemExit as left:
        status = left.code
    return status, *capsys.readouterr()
