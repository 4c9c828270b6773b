"""The `crowdspike` command as a person runs it: what it prints, where, and how it exits."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from callers import web_on

from webapp.cli import main

PATIENCE_S = 30


def environment(**settings: str) -> dict[str, str]:
    """Ours, without what would change the program's settings."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("CROWDSPIKE_") and k != "INFERENCE_URL"}
    return {**kept, "PYTHONUNBUFFERED": "1", **settings}


async def crowdspike(*arguments: str, **settings: str) -> tuple[int, str, str]:
    """Exit status, standard output, standard error."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "webapp.cli", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(**settings),
    )
    async with asyncio.timeout(PATIENCE_S):
        out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


@asynccontextmanager
async def serving(*arguments: str, **settings: str) -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    """What `crowdspike serve` printed first, while it runs."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "webapp.cli", "serve", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=environment(**settings),
    )
    try:
        async with asyncio.timeout(PATIENCE_S):
            yield (await process.stdout.readline()).decode(), process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


GOOD = "title: A talk\nactivities:\n  - quiz: One?\n    options: [1, correct: 2]\n"


async def test_talk_check_says_what_a_file_holds_or_what_is_wrong_with_it(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(GOOD, encoding="utf-8")
    bad.write_text(GOOD.replace("One?", "One?\n    time_limit: 9000"), encoding="utf-8")
    status, out, err = await crowdspike("talk", "check", str(good))
    assert (status, err) == (0, "")
    assert f"{good}: A talk (1 quiz" in out
    status, out, _ = await crowdspike("talk", "check", str(good), str(bad), str(tmp_path / "missing.yaml"))
    assert status == 1
    assert f"{bad}:4:" in out
    assert "missing.yaml" in out


async def test_export_prints_the_room_and_nothing_else(tmp_path: Path) -> None:
    async with web_on(tmp_path / "store") as web:
        code = await web.room()
        phone = await web.join(code)
        await web.start(code, "q1")
        await phone.send("q1", choice="b")
        csv, jsonl = await web.export(code, "csv"), await web.export(code, "jsonl")
    for format, expected in (("csv", csv), ("jsonl", jsonl)):
        arguments = ("export", code.lower(), "--format", format, "--store", str(tmp_path / "store"))
        status, out, err = await crowdspike(*arguments)
        assert (status, err) == (0, "")
        assert out.splitlines() == expected.splitlines()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("export", "KWXM"), "no room KWXM"),
        (("export", "hello"), "not a room code"),
        (("serve", "--port", "0", "--talk", "no-such-talk.yaml"), "no-such-talk.yaml"),
    ],
)
async def test_what_a_person_must_put_right_is_one_line_and_no_traceback(tmp_path: Path, arguments, said: str) -> None:
    status, out, err = await crowdspike(*arguments, "--store", str(tmp_path / "store"))
    assert (status, out) == (2, "")
    assert said in err
    assert "Traceback" not in err


async def test_serve_with_a_store_that_cannot_be_used_says_why(tmp_path: Path) -> None:
    taken = tmp_path / "a-file"
    taken.touch()
    status, out, err = await crowdspike("serve", "--port", "0", "--store", str(taken))
    assert (status, out, "Traceback" in err) == (2, "", False)
    assert str(taken) in err


@pytest.mark.parametrize("store", ["gs://bucket", "s3://", "s3://UPPER/x", "s3://bucket/../x", " "])
def test_serve_with_what_is_no_store_says_what_to_write(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--port", "0", "--store", store]) == 2
    err = capsys.readouterr().err
    assert repr(store) in err
    assert "s3://bucket" in err


async def test_serve_with_a_setting_that_cannot_be_used_says_which_and_not_the_secret() -> None:
    status, _, err = await crowdspike(
        "serve", "--port", "0", CROWDSPIKE_SECRET="hunter2", CROWDSPIKE_MAX_BODY_BYTES="x"
    )
    assert status == 2
    assert "secret" in err
    assert "max_body_bytes" in err
    assert "hunter2" not in err
    assert "Traceback" not in err


async def test_serve_on_a_busy_port_names_it_and_a_free_choice(tmp_path: Path) -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        status, out, err = await crowdspike("serve", "--port", str(port), "--store", str(tmp_path))
    assert (status, out) == (2, "")
    assert f"Port {port} " in err
    assert f"--port {port + 1}" in err
    assert "Traceback" not in err


async def test_serve_prints_a_link_that_signs_in_and_ends_in_order(tmp_path: Path) -> None:
    async with serving("--port", "0", "--store", str(tmp_path)) as (line, process):
        link = re.search(r"http://\S+/present\?token=\S+", line)[0]
        async with httpx.AsyncClient(follow_redirects=True) as http:
            response = await http.get(link, headers={"accept": "text/html"})
            assert response.status_code == 200
            assert "token=" not in str(response.url)
        process.terminate()
        assert await process.wait() == 0


@pytest.mark.parametrize("command", ["demo", "serve", "engine", "talk check", "export"])
def test_help_has_examples_for_every_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main([*command.split(), "--help"])
    assert left.value.code == 0
    assert f"examples:\n  crowdspike {command}" in capsys.readouterr().out
