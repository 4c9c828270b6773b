"""The `crowdspike` command as a person runs it: what it prints, where, and how it exits."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from callers import web_on

from loadgen.spike.scenarios import SCENARIOS
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
async def serving(
    *arguments: str, command: str = "serve", **settings: str
) -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    """The line with the console's link that `crowdspike serve` prints, while it runs."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "webapp.cli", command, *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=environment(**settings),
    )
    try:
        async with asyncio.timeout(PATIENCE_S):
            while "Console" not in (line := (await process.stdout.readline()).decode()):
                assert line, "it ended"
            yield line, process
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


def keys(capsys: pytest.CaptureFixture[str], store: Path, *arguments: str) -> tuple[int, str, str]:
    """`crowdspike keys …` in this process: exit status, standard output, standard error."""
    try:
        status = main(["keys", *arguments, "--store", str(store)])
    except SystemExit as left:
        status = left.code
    return status, *capsys.readouterr()


def test_keys_are_made_listed_and_revoked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, secret, said = keys(capsys, tmp_path, "add", "k6", "--requests-per-minute", "60")
    assert status == 0
    assert re.fullmatch(r"csk_[\w-]{43}\n", secret)
    assert "cannot be shown again" in said
    keys(capsys, tmp_path, "add", "analyst")
    keys(capsys, tmp_path, "revoke", "k6")
    status, out, err = keys(capsys, tmp_path, "list")
    assert (status, err) == (0, "")
    analyst, k6 = out.splitlines()
    assert re.match(r"analyst +made \d{4}-\d\d-\d\d  good .* any requests, any tokens", analyst)
    assert re.match(r"k6 +made \S+  revoked \d{4}-\d\d-\d\d  60 requests, any tokens", k6)
    stored = [path.read_text() for path in tmp_path.rglob("*.json")]
    assert len(stored) == 2
    assert not [text for text in (out, *stored) if secret.strip() in text]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("add", "a/b"), "'a/b' is no name for a key"),
        (("add", "taken"), "Choose a name"),
        (("revoke", "nobody"), "There is no key 'nobody'"),
        (("add", "x", "--requests-per-minute", "0"), "above 0"),
        (("add", "x", "--tokens-per-minute", "many"), "above 0"),
    ],
)
def test_what_is_wrong_with_a_key_is_said(tmp_path: Path, capsys, arguments, said: str) -> None:
    keys(capsys, tmp_path, "add", "taken")
    status, out, err = keys(capsys, tmp_path, *arguments)
    assert (status, out) == (2, "")
    assert said in err


async def test_serve_takes_keys_that_were_made_and_logs_requests_as_json(tmp_path: Path) -> None:
    store = ("--store", str(tmp_path / "store"))
    _, secret, _ = await crowdspike("keys", "add", "k6", *store)
    async with serving("--port", "0", *store) as (line, process), httpx.AsyncClient() as http:
        url = re.search(r"http://[^/]+", line)[0]
        assert (await http.get(f"{url}/v1/models")).status_code == 401
        assert (await http.get(f"{url}/v1")).json()["error"]["type"] == "invalid_request_error"
        known = {"authorization": f"Bearer {secret.strip()}", "x-request-id": "r-7"}
        assert (await http.get(f"{url}/v1/models", headers=known)).status_code == 200
        assert (await http.post(f"{url}/v1/completions", content=b"{", headers=known)).status_code == 400
        process.terminate()
        lines = (await process.stdout.read()).decode().splitlines()
    logged = [json.loads(line) for line in lines if line.startswith("{")]
    assert [(entry["status"], entry["key"]) for entry in logged] == [(401, None), (404, None), (400, "k6")]
    assert logged[-1]["request_id"] == "r-7"
    assert secret.strip() not in "".join(lines)


@pytest.mark.parametrize(
    ("settings", "status"),
    [({}, 200), ({"CROWDSPIKE_API_KEYS": "required"}, 401), ({"INFERENCE_URL": "http://127.0.0.1:9"}, 401)],
    ids=["simulated", "set", "real"],
)
async def test_demo_wants_no_key_for_a_simulated_replica_alone(tmp_path: Path, settings, status: int) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ("--host", "127.0.0.1", "--port", str(port), "--store", str(tmp_path))
    async with serving(*options, command="demo", **settings) as (_, process), httpx.AsyncClient() as http:
        assert (await http.get(f"http://127.0.0.1:{port}/v1/models")).status_code == status
        process.terminate()
        rest = (await process.stdout.read()).decode().splitlines()
    assert not [line for line in rest if line.startswith("{")]  # requests are not logged


@pytest.mark.parametrize(
    "command",
    [
        *("demo", "serve", "engine", "talk check", "export", "replay", "report", "keys add", "keys list"),
        *("keys revoke", "spike", "spike list", "spike compare", "spike report"),
        *(f"spike {name}" for name in SCENARIOS),
    ],
)
def test_help_has_examples_for_every_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main([*command.split(), "--help"])
    assert left.value.code == 0
    assert f"examples:\n  crowdspike {command}" in capsys.readouterr().out


def test_a_reader_that_has_seen_enough_ends_it_quietly() -> None:
    nobody_reads, output = os.pipe()
    os.close(nobody_reads)
    command = [sys.executable, "-m", "webapp.cli", "spike", "spike", "--plan-only"]
    with open(output, "wb") as stdout:
        ended = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, timeout=60)
    assert (ended.returncode, ended.stderr) == (141, b"")
