"""How a replica's process starts, refuses and ends: the command line, start-up phases, admission and signals."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from inference.engine.profile import load
from inference.engine.server import tokens_per_s
from inference.pool import RUNNING, gauge
from inference.upstream import ConnectFailed, Exchange, Upstream
from loadgen.processes import free_port
from tests.inference.servers import EngineProcess, engine_process, get, profile_file
from webapp.cli import main

COMPLETIONS = "/v1/completions"
PATIENCE_S = 20


def body(max_tokens: int, stream: bool = True) -> bytes:
    return json.dumps({"prompt": "x", "max_tokens": max_tokens, "ignore_eos": True, "stream": stream}).encode()


def events(text: bytes) -> list:
    found = [event.removeprefix("data: ") for event in text.decode().split("\n\n") if event]
    return [event if event == "[DONE]" else json.loads(event) for event in found]


async def refusal(url: str) -> dict:
    """What a new request is told, once it is refused: the signal takes a moment to be heard."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            exchange = await Upstream(url).post(COMPLETIONS, body(1, stream=False))
            answer = json.loads(await exchange.read())
            if exchange.status == 500:
                return answer


async def until_running(url: str, count: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while gauge((await get(url, "/metrics"))[1], RUNNING) != count:
            pass


@asynccontextmanager
async def replica(tmp_path, *options: str, step_ms: float = 20) -> AsyncIterator[EngineProcess]:
    pace = profile_file(tmp_path, step_base_ms=step_ms)
    async with engine_process("--profile", pace, *options) as process:
        yield process


async def begun(url: str, max_tokens: int) -> tuple[Exchange, bytes]:
    """A stream whose first tokens are here."""
    exchange = await Upstream(url).post(COMPLETIONS, body(max_tokens))
    return exchange, await exchange.chunk()


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
async def test_signal_ends_streams_at_once_as_aborted(sig, tmp_path):
    async with replica(tmp_path) as process:
        streams = [await begun(process.url, 3000) for _ in range(3)]
        whole = asyncio.create_task(Upstream(process.url).post(COMPLETIONS, body(3000, stream=False)))
        await until_running(process.url, 4)
        process.send(sig)
        for exchange, first in streams:
            *tokens, last, done = events(first + await exchange.read())
            assert len(tokens) < 2999
            assert (last["choices"][0]["finish_reason"], done) == ("abort", "[DONE]")
        answer = json.loads(await (await whole).read())
        assert answer["choices"][0]["finish_reason"] == "abort"
        assert 0 < answer["usage"]["completion_tokens"] < 3000
        assert await asyncio.wait_for(process.process.wait(), PATIENCE_S) == 0
        with pytest.raises(ConnectFailed):
            await Upstream(process.url).get("/health")


async def test_shutdown_timeout_lets_streams_end_and_takes_no_new_request(tmp_path):
    async with replica(tmp_path, "--shutdown-timeout", "60") as process:
        exchange, first = await begun(process.url, 100)
        process.send(signal.SIGTERM)
        refused = await refusal(process.url)
        assert refused["error"]["message"] == "cannot schedule new futures after shutdown"
        assert (await get(process.url, "/health"))[0] == 200
        *_, last, done = events(first + await exchange.read())
        assert (last["choices"][0]["finish_reason"], done) == ("length", "[DONE]")
        assert await asyncio.wait_for(process.process.wait(), PATIENCE_S) == 0


async def test_streams_that_outlive_the_shutdown_timeout_end_with_an_error(tmp_path):
    async with replica(tmp_path, "--shutdown-timeout", "0.3") as process:
        exchange, first = await begun(process.url, 3000)
        whole = asyncio.create_task(Upstream(process.url).post(COMPLETIONS, body(3000, stream=False)))
        await until_running(process.url, 2)
        process.send(signal.SIGTERM)
        *_, last, done = events(first + await exchange.read())
        assert (last["error"]["code"], done) == (500, "[DONE]")
        assert (await whole).status == 500
        assert await asyncio.wait_for(process.process.wait(), PATIENCE_S) == 0


async def test_requests_above_the_limit_get_503_and_are_counted(tmp_path):
    async with replica(tmp_path, "--max-num-queued-reqs", "2") as process:
        streams = [await begun(process.url, 3000) for _ in range(2)]
        refused = await Upstream(process.url).post(COMPLETIONS, body(5))
        assert refused.status == 503
        assert json.loads(await refused.read())["error"] == {
            "message": "The engine is currently busy and cannot accept new requests. "
            "Please try again later or on a different instance.",
            "type": "Service Unavailable",
            "param": None,
            "code": 503,
        }
        page = (await get(process.url, "/metrics"))[1]
        assert b'admission_rejections_total{model_name="mistral",reason="max_num_queued_reqs"} 1.0' in page
        streams[0][0].close()
        await until_running(process.url, 1)
        accepted = await Upstream(process.url).post(COMPLETIONS, body(5))
        assert (accepted.status, events(await accepted.read())[-1]) == (200, "[DONE]")


async def test_requests_that_come_at_once_are_refused_when_they_are_queued(tmp_path):
    """Their headers are out by then, as they are with vLLM."""
    pace = profile_file(tmp_path, step_base_ms=20, request_overhead_ms=1000)
    async with engine_process("--profile", pace, "--max-num-queued-reqs", "2") as process:
        upstream = Upstream(process.url)
        streams = await asyncio.gather(*(upstream.post(COMPLETIONS, body(5)) for _ in range(4)))
        answers = [events(await stream.read()) for stream in streams]
        page = (await get(process.url, "/metrics"))[1]
    assert {stream.status for stream in streams} == {200}
    assert sorted(len(answer) for answer in answers) == [2, 2, 6, 6]
    assert {answer[0]["error"]["code"] for answer in answers if len(answer) == 2} == {503}
    assert b'admission_rejections_total{model_name="mistral",reason="max_num_queued_reqs"} 2.0' in page


async def test_nothing_listens_while_it_starts_and_a_signal_ends_it(tmp_path):
    port = free_port()
    pace = profile_file(tmp_path, startup_imports_s=1000, startup_weights_s=1)
    command = (sys.executable, "-m", "inference.engine", "--port", str(port), "--profile", pace)
    process = await asyncio.create_subprocess_exec(*command, "--startup-scale", "2", stderr=asyncio.subprocess.PIPE)
    try:
        assert await process.stderr.readline() == b"start: imports, 2000.0 s (1000 s in the profile)\n"
        with pytest.raises(ConnectFailed):
            await Upstream(f"http://127.0.0.1:{port}").get("/health")
        process.terminate()
        assert await asyncio.wait_for(process.wait(), PATIENCE_S) == 0
        assert await process.stderr.read() == b""
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_start_up_phases_are_told_and_then_it_serves(tmp_path, capfd):
    pace = profile_file(tmp_path, startup_imports_s=30, startup_weights_s=20, startup_compile_s=10)
    async with engine_process("--profile", pace, "--startup-scale", "0.01") as process:
        assert (await get(process.url, "/health"))[0] == 200
    said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("start:")]
    assert said == [
        "start: imports, 0.3 s (30 s in the profile)",
        "start: weights, 0.2 s (20 s in the profile)",
        "start: compile, 0.1 s (10 s in the profile)",
    ]


def test_profiles_are_listed_with_their_speed(capsys):
    assert main(["engine", "profiles"]) == 0
    said = capsys.readouterr().out
    assert "a10g-mistral-7b-awq\n  Mistral-7B-Instruct AWQ" in said
    speed = tokens_per_s(load("a10g-mistral-7b-awq"))
    assert f"About {speed:,.0f} tokens/s at 32 streams of 150 tokens." in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--profile", "h100"), "no profile 'h100'"),
        (("--num-kv-blocks", "100"), "100 KV blocks hold 1584 tokens, less than one request of 4096"),
        (("--max-model-len", "200000"), "8200 KV blocks hold 131184 tokens, less than one request of 200000"),
    ],
)
def test_what_cannot_be_simulated_ends_with_status_2_and_a_reason(options, said, capsys):
    assert main(["engine", "--port", "0", *options]) == 2
    assert said in capsys.readouterr().err


async def test_broken_question_file_is_named_and_ends_with_status_2(tmp_path, capfd):
    qa = tmp_path / "broken.json"
    qa.write_text('{"question": 1}')
    async with engine_process("--qa", str(qa)) as replica:
        assert await replica.process.wait() == 2
    assert "broken.json: expected a list" in capfd.readouterr().err
