"""What must hold when things break: an answer that was acknowledged is in the log and counts once, and phones and
replies go on by themselves. Real processes, killed, starved and filled up under a scripted crowd."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from loadgen.audit import audit, read_log
from loadgen.http import Client, Lost
from loadgen.machine import allow_connections
from loadgen.phone import Habits
from loadgen.phones import Phones, phones_in, sent_of
from loadgen.presenter import Presenter
from loadgen.processes import TOKEN, Process
from tests.processes import demo, descendants, replica, runs, s3, web_app

PHONES = 200
PATIENCE_S = 50
OUTAGE_S = 10.0


async def until(holds: Callable[[], bool], what: str, within_s: float = PATIENCE_S) -> None:
    try:
        async with asyncio.timeout(within_s):
            while not holds():  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    except TimeoutError:
        pytest.fail(f"not within {within_s:.0f} s: {what}")


@asynccontextmanager
async def room_with(
    servers: Sequence[Process], count: int, answer_within_s: float
) -> AsyncIterator[tuple[Presenter, str, Phones]]:
    """Phones, spread over the servers, that have seen the question `cost`; it is not open yet."""
    allow_connections(4 * count)
    for server in servers:
        await asyncio.to_thread(server.wait_ready)
    presenter = Presenter([server.url for server in servers], TOKEN)
    code = await presenter.make_room()
    await presenter.control(code, "goto", activity="cost")
    async with phones_in([s.url for s in servers], code, count, Habits(answer_within_s=answer_within_s)) as phones:
        yield presenter, code, phones
    presenter.close()


def acked(phones: Phones) -> int:
    return sum(sent.acked for sent in phones.of("cost"))


async def test_kill_9_of_the_web_app_loses_no_acknowledged_answer(tmp_path: Path) -> None:
    store = tmp_path / "store"
    with replica(tmp_path) as engine, web_app(tmp_path, str(store), inference_url=engine.url) as web:
        async with room_with([web], PHONES, answer_within_s=6) as (presenter, code, phones):
            await presenter.control(code, "open")
            await until(lambda: acked(phones) >= PHONES // 4, "a quarter of the answers is acknowledged")
            web.kill()
            before = {sent.id for sent in phones.of("cost") if sent.acked}
            assert len(before) < PHONES, "killed too late to matter"
            with web_app(tmp_path, str(store), port=web.port, inference_url=engine.url) as again:
                await asyncio.to_thread(again.wait_ready)
                await phones.all_acked("cost", PATIENCE_S)
                await phones.all_replied("cost", PATIENCE_S)
                export = await presenter.export(code)
    logged = read_log(store, code)
    found = audit(phones.sent, export, logged)
    assert found.clean and found.acknowledged == PHONES, found
    assert {logged[sent.id] for sent in phones.sent} == {1}
    assert sum(bool(record.get("counts")) for record in export) == PHONES
    assert phones.faults["lost"] > 0, "no phone noticed"
    assert not any(sent.reply_failed for sent in phones.sent)


async def test_ten_seconds_of_503_from_s3_lose_and_double_nothing(tmp_path: Path) -> None:
    with s3() as place, web_app(tmp_path, place.store, s3=place) as web:
        async with room_with([web], PHONES, answer_within_s=OUTAGE_S / 2) as (presenter, code, phones):
            await presenter.control(code, "open")
            await phones.all(lambda phone: len(phone.record.shown) > 1, "seeing the open question", PATIENCE_S)
            place.server.faults[:] = [(503, "SlowDown")] * 100_000
            during = acked(phones)
            await asyncio.sleep(OUTAGE_S)
            assert acked(phones) <= during + 5, "acknowledged without a store"  # what was under way at the start
            told = sum(sent.waits_told > 0 for sent in phones.of("cost"))
            assert len(phones.of("cost")) == PHONES and told > PHONES // 2
            place.server.faults.clear()
            await phones.all_acked("cost", PATIENCE_S)
            export = await presenter.export(code)
            logged = place.read_log(code)
        assert "Traceback" not in web.log()
    found = audit(phones.sent, export, logged)
    assert found.clean and found.acknowledged == PHONES, found
    assert {logged[sent.id] for sent in phones.sent} == {1}
    assert set(phones.faults) == {"503"}, "polls and screens go on without a store"


async def test_phones_of_a_killed_web_app_go_on_at_the_other(tmp_path: Path) -> None:
    with s3() as place, replica(tmp_path) as engine:
        options = {"inference_url": engine.url, "s3": place}
        with web_app(tmp_path, place.store, **options) as one, web_app(tmp_path, place.store, **options) as two:
            async with room_with([one, two], PHONES, answer_within_s=6) as (presenter, code, phones):
                at_two = Presenter([two.url], TOKEN)
                await presenter.control(code, "open")
                await until(lambda: acked(phones) >= PHONES // 3, "a third of the answers is acknowledged")
                by_now = {sent.id for sent in phones.of("cost") if sent.acked}
                there = {record["id"] for record in await at_two.export(code) if record.get("counts")}
                assert by_now <= there, "a vote that one process took is not seen by the other"
                one.kill()
                assert acked(phones) < PHONES, "killed too late to matter"
                await phones.all_acked("cost", PATIENCE_S)
                await phones.all_replied("cost", PATIENCE_S)
                with web_app(tmp_path, place.store, port=one.port, **options) as again:
                    await asyncio.to_thread(again.wait_ready)
                    at_one = Presenter([again.url], TOKEN)
                    version = await at_two.control(code, "reveal")
                    export = await at_one.export(code)
                    assert export == await at_two.export(code)
                    states = [await at.state(code) for at in (at_one, at_two)]
                    assert states[0] == states[1] and states[0]["version"] == version
                    at_one.close()
                at_two.close()
        logged = place.read_log(code)
    found = audit(phones.sent, export, logged)
    assert found.clean and found.acknowledged == PHONES, found
    assert sum(bool(record.get("counts")) for record in export) == PHONES
    assert phones.faults["lost"] > 0, "no phone had to move"


async def test_a_full_disk_gives_503_and_loses_nothing(small_disk: Path, tmp_path: Path) -> None:
    store, filler = small_disk / "store", small_disk / "filler"
    with web_app(tmp_path, str(store)) as web:
        async with room_with([web], 40, answer_within_s=1) as (presenter, code, phones):
            phones.habits.answers = False
            await presenter.control(code, "open")
            early, late = phones.each[:20], phones.each[20:]
            await asyncio.gather(*(phone.respond("cost", {"choice": "a"}) for phone in early))
            with pytest.raises(OSError, match="No space left"), filler.open("wb", buffering=0) as file:
                while True:
                    file.write(b"x" * 512)
            sending = [asyncio.create_task(phone.respond("cost", {"choice": "b"})) for phone in late]
            await until(lambda: all(sent_of(phone, "cost").waits_told for phone in late), "all are told to wait")
            assert acked(phones) == len(early)
            filler.unlink()
            await asyncio.wait_for(asyncio.gather(*sending), PATIENCE_S)
            export = await presenter.export(code)
            found = audit(phones.sent, export, read_log(store, code))
    assert found.clean and found.acknowledged == 40, found


@asynccontextmanager
async def one_phone(web: Process, code: str) -> AsyncIterator[Callable]:
    """Sends responses of one phone, over as many connections as it takes."""
    client = Client([web.url])
    headers = {"content-type": "application/json", "accept": "application/json"}
    joined = await client.request("POST", f"/r/{code}/join", headers, b"{}")
    headers["cookie"] = (joined.header("set-cookie") or "").partition(";")[0]

    async def respond(response_id: str, choice: str) -> int:
        body = f'{{"response_id": "{response_id}", "activity_id": "cost", "choice": "{choice}"}}'
        return (await client.request("POST", f"/r/{code}/responses", headers, body.encode())).status

    yield respond
    client.close()


async def test_of_five_answers_at_once_one_counts(tmp_path: Path) -> None:
    with web_app(tmp_path, str(tmp_path / "store")) as web:
        await asyncio.to_thread(web.wait_ready)
        presenter = Presenter([web.url], TOKEN)
        code = await presenter.make_room()
        await presenter.control(code, "goto", activity="cost")
        await presenter.control(code, "open")
        async with one_phone(web, code) as same, one_phone(web, code) as various:
            assert await asyncio.gather(*(same("the-same-id", "a") for _ in range(5))) == [200] * 5
            statuses = await asyncio.gather(*(various(f"other-id-{n}", "abcda"[n]) for n in range(5)))
        export = [record for record in await presenter.export(code) if record["type"] == "answered"]
        presenter.close()
    assert sorted(statuses) == [200, 409, 409, 409, 409]
    winner = f"other-id-{statuses.index(200)}"
    assert sorted(record["id"] for record in export if record["counts"]) == sorted(["the-same-id", winner])
    assert len({record["participant"] for record in export}) == 2


@pytest.mark.parametrize(
    ("sig", "to_all", "status"),
    [
        pytest.param(signal.SIGINT, True, 0, id="Ctrl-C in the terminal"),
        pytest.param(signal.SIGINT, False, 0, id="SIGINT to it alone"),
        pytest.param(signal.SIGTERM, False, 0, id="SIGTERM to it alone"),
        pytest.param(signal.SIGKILL, False, -signal.SIGKILL, id="kill -9"),
    ],
)
async def test_the_demo_ends_every_process_that_it_started(
    tmp_path: Path, sig: signal.Signals, to_all: bool, status: int
) -> None:
    with demo(tmp_path) as process:
        started = descendants(process.pid)
        assert started, "the demo has a replica"
        if to_all:
            os.killpg(process.pid, sig)
        else:
            process.send(sig)
        assert await asyncio.to_thread(process.wait, 20) == status
        await until(lambda: not any(runs(pid) for pid in started), "its processes are gone", 5)
        assert "Traceback" not in process.log()


@pytest.mark.parametrize("command", ["demo", "serve"])
def test_a_busy_port_is_named_with_a_way_out(tmp_path: Path, command: str) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        words = [command, "--host", "127.0.0.1", "--port", str(port), "--store", str(tmp_path / "store")]
        tried = subprocess.run(
            [sys.executable, "-m", "webapp.cli", *words], capture_output=True, text=True, timeout=60, check=False
        )
    assert tried.returncode == 2
    assert f"Port {port}" in tried.stderr and "--port" in tried.stderr and "Traceback" not in tried.stderr


async def test_sigterm_ends_the_web_app_while_streams_are_open(tmp_path: Path) -> None:
    ended: list[str] = []

    async def follow(name: str, client: Client, path: str, begun: asyncio.Event) -> None:
        try:
            async for _ in client.events(path, {"accept": "text/event-stream"}):
                begun.set()
        except Lost:
            pass
        ended.append(name)

    with web_app(tmp_path, str(tmp_path / "store")) as web:  # no replica: replies wait
        async with room_with([web], 5, answer_within_s=0.1) as (presenter, code, phones):
            await presenter.control(code, "open")
            await phones.all_acked("cost", PATIENCE_S)
            begun = [asyncio.Event() for _ in range(3)]
            clients = [Client([web.url]) for _ in begun]
            stages = [
                asyncio.create_task(follow(f"stage {i}", clients[i], f"/stage/{code}/events", begun[i]))
                for i in range(3)
            ]
            await asyncio.wait_for(asyncio.gather(*(event.wait() for event in begun)), PATIENCE_S)
            web.send(signal.SIGTERM)
            assert await asyncio.to_thread(web.wait, 20) == 0
            await asyncio.wait_for(asyncio.gather(*stages), 5)
        assert sorted(ended) == ["stage 0", "stage 1", "stage 2"]
        assert "Traceback" not in web.log()
