"""What the scripts ask, and how they read answers of every kind: a real k6 against a server that does as it is told."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from loadgen.processes import free_port
from loadgen.spike.plan import Plan, Prompt, Stage
from loadgen.spike.point import Point
from loadgen.spike.tools.k6 import K6, SCRIPTS, find
from loadgen.spike.tools.tool import Job

WITHIN_S = 30.0
TOKEN = 'data: {"choices":[{"delta":{"content":"an \\"error\\": {\\"x\\" in words"}}],"usage":null}\n\n'
USAGE = 'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3}}\n\n'
DONE = "data: [DONE]\n\n"
OVERLOAD = 'data: {"error": {"message": "no room\\nleft", "code": 503}}\n\n'
HEAD = "HTTP/1.1 {}\r\ncontent-type: {}\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
STREAM = HEAD.format("200 OK", "text/event-stream")


def _chunks(text: str) -> str:
    return f"{len(text.encode()):x}\r\n{text}\r\n0\r\n\r\n"


def _refusal(status: str, body: str) -> str:
    return HEAD.format(status, "application/json") + _chunks(body)


ANSWERS = {
    "in full": STREAM + _chunks(TOKEN + USAGE + DONE),
    "no usage": STREAM + _chunks(TOKEN + DONE),
    "spaces": STREAM + _chunks(TOKEN + USAGE.replace(":", ": ") + "data:[DONE]\r\n\r\n"),
    "no done": STREAM + _chunks(TOKEN + USAGE),
    "empty": STREAM + "0\r\n\r\n",
    "cut": STREAM + "ffff\r\n" + TOKEN,
    "error first": STREAM + _chunks(OVERLOAD + DONE),
    "error late": STREAM + _chunks(TOKEN + OVERLOAD + DONE),
    "busy": _refusal("503 Service Unavailable", '{"error":{"message":"all replicas are full"}}'),
    "unknown": _refusal("404 Not Found", '{"detail":"Not Found"}'),
    "no json": _refusal("500 Internal Server Error", "<html>"),
    "no http": "hello\r\n\r\n",
    "nothing": "",
}
TELLS = {
    "in full": ("served", 200, "", 7, 3),
    "no usage": ("served", 200, "", None, None),
    "spaces": ("served", 200, "", 7, 3),
    "no done": ("failed", 200, "stream ended early", None, None),
    "empty": ("failed", 200, "stream ended early", None, None),
    "cut": ("failed", 0, "unexpected EOF", None, None),
    "error first": ("refused", 503, "no room left", None, None),
    "error late": ("failed", 200, "no room left", None, None),
    "busy": ("refused", 503, "503 all replicas are full", None, None),
    "unknown": ("failed", 404, "404 Not Found", None, None),
    "no json": ("failed", 500, "500", None, None),
    "no http": ("failed", 0, 'malformed HTTP response "hello"', None, None),
    "nothing": ("failed", 0, "EOF", None, None),
}


@dataclass
class Server:
    """Answers each prompt as ANSWERS has it, others in full; `asked` are the requests' headers and bodies."""

    port: int = 0
    asked: list[tuple[dict[str, str], dict]] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        if head.startswith("GET /v1/models "):
            answer = _refusal("200 OK", '{"data":[{"id":"first"},{"id":"second"}]}')
        else:
            assert head == "POST /v1/chat/completions HTTP/1.1"
            self.asked.append((headers, json.loads(body)))
            answer = ANSWERS.get(self.asked[-1][1]["messages"][0]["content"], ANSWERS["in full"])
        writer.write(answer.encode())
        writer.close()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made = Server()
    async with await asyncio.start_server(made.serve, "127.0.0.1", 0) as listening:
        made.port = listening.sockets[0].getsockname()[1]
        yield made


def a_plan(*texts: str) -> Plan:
    """One request of each, 50 a second."""
    work = tuple(Prompt(text, 5 + n) for n, text in enumerate(texts))
    return Plan("spike", "open", 50, (Stage(50, len(texts) / 50),), "k6", work=work, max_in_flight=20)


async def ran(folder: Path, plan: Plan, target: str, **more) -> list[Point]:
    """Its points in the plan's order."""
    (folder / "plan.json").write_text(plan.to_json())
    tool = K6(Job(plan, target, folder, **more))
    try:
        await tool.arm()
        await tool.fire()
        async with asyncio.timeout(WITHIN_S):
            points = [report async for report in tool.reports() if isinstance(report, Point)]
        assert await tool.ending() == ("done", "")
    finally:
        tool.kill()
    return sorted(points, key=lambda point: point.n)


async def test_each_kind_of_answer_is_told_as_what_it_is(server, tmp_path):
    points = await ran(tmp_path, a_plan(*ANSWERS), f"http://127.0.0.1:{server.port}")
    told = [(p.outcome, p.status, p.error, p.prompt_tokens, p.completion_tokens) for p in points]
    assert dict(zip(ANSWERS, told, strict=True)) == TELLS
    for point in points:
        assert point.ended_s >= point.sent_s
        assert (point.headers_s is None) == (point.status == 0)


async def test_it_asks_for_what_the_plan_says(server, tmp_path):
    await ran(tmp_path, a_plan("in full", "no usage"), f"http://127.0.0.1:{server.port}")
    (headers, body), (_, other) = sorted(server.asked, key=lambda one: one[1]["max_tokens"])
    assert headers["x-load-source"] == "k6"
    assert headers["content-type"] == "application/json"
    assert "authorization" not in headers
    assert body == {
        "model": "first",
        "messages": [{"role": "user", "content": "in full"}],
        "max_tokens": 5,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert (other["messages"][0]["content"], other["max_tokens"]) == ("no usage", 6)


async def test_it_asks_with_all_that_can_be_asked_for(server, tmp_path):
    plan = replace(a_plan("in full"), model="second", ignore_eos=True, source="amplified")
    await ran(tmp_path, plan, f"http://127.0.0.1:{server.port}", api_key="sesame")
    ((headers, body),) = server.asked
    assert headers["authorization"] == "Bearer sesame"
    assert headers["x-load-source"] == "amplified"
    assert (body["model"], body["ignore_eos"]) == ("second", True)


async def test_a_cache_is_busted_with_the_plan_s_own_prefix(server, tmp_path):
    plan = replace(a_plan("in full", "in full"), cache_busting=True, seed=3)
    await ran(tmp_path, plan, f"http://127.0.0.1:{server.port}")
    assert {body["messages"][0]["content"] for _, body in server.asked} == {plan.prompt(n).text for n in range(2)}


async def test_a_server_that_is_not_there_fails_every_request(tmp_path):
    points = await ran(tmp_path, replace(a_plan("in full", "empty"), model="any"), f"http://127.0.0.1:{free_port()}")
    assert [(p.outcome, p.error, p.headers_s) for p in points] == [("failed", "dial: connection refused", None)] * 2


async def test_an_answer_that_takes_too_long_is_an_error(tmp_path):
    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(never, "127.0.0.1", 0) as listening:
        target = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        (point,) = await ran(tmp_path, replace(a_plan("in full"), model="any", timeout_s=0.3), target)
    assert (point.outcome, point.error) == ("failed", "request timeout")


async def test_any_certificate_is_taken_only_when_that_is_asked_for(tmp_path):
    made = Server()
    async with await asyncio.start_server(made.serve, "127.0.0.1", 0, ssl=a_certificate(tmp_path)) as listening:
        target = f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        plan = replace(a_plan("in full"), model="any")
        (refused,) = await ran(tmp_path, plan, target)
        (taken,) = await ran(tmp_path, plan, target, insecure=True)
    assert refused.outcome == "failed" and "certificate" in refused.error
    assert taken.outcome == "served"


def a_certificate(folder: Path) -> ssl.SSLContext:
    """Signed by nobody whom others trust."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    signed = builder.not_valid_before(now).not_valid_after(now + timedelta(days=1)).sign(key, hashes.SHA256())
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    pem = signed.public_bytes(serialization.Encoding.PEM) + key.private_bytes(serialization.Encoding.PEM, *plain)
    (folder / "pem").write_bytes(pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "pem")
    return context


async def by_hand(script: str, **settings: str) -> tuple[int, str]:
    """Exit status and output of `k6 run -e NAME=value … SCRIPT`, as a person types it."""
    options = [part for name, value in settings.items() for part in ("-e", f"{name}={value}")]
    process = await asyncio.create_subprocess_exec(
        (await find()).path,
        *("run", "--no-usage-report", "--quiet", "--address", f"127.0.0.1:{free_port()}", *options, script),
        cwd=SCRIPTS,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(WITHIN_S):
            said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    return process.returncode, said.decode()


@pytest.mark.parametrize(
    ("script", "settings"),
    [
        ("arrivals.js", {"PEAK": "20", "DURATION": "1s"}),
        ("arrivals.js", {"PEAK": "2", "DURATION": "500ms", "LOOP": "closed"}),
        ("matrix.js", {"DURATION": "3s", "USERS": "1,2", "BATCH": "7"}),
    ],
)
async def test_by_hand_it_passes_when_all_is_served(server, script, settings):
    status, said = await by_hand(script, TARGET=f"http://127.0.0.1:{server.port}/", **settings)
    assert status == 0, said
    assert server.asked


async def test_by_hand_a_run_in_which_nothing_is_served_fails(tmp_path):
    settings = {"TARGET": f"http://127.0.0.1:{free_port()}", "MODEL": "any", "PEAK": "10", "DURATION": "1s"}
    status, said = await by_hand("arrivals.js", **settings)
    assert status == 99
    assert "thresholds on metrics 'crowdspike_served, http_req_failed' have been crossed" in said


async def test_by_hand_a_run_that_drops_fails_unless_it_may(server):
    plan = {"TARGET": f"http://127.0.0.1:{server.port}", "PEAK": "400", "DURATION": "500ms", "MAX_IN_FLIGHT": "1"}
    failed, _ = await by_hand("arrivals.js", **plan)
    allowed, said = await by_hand("arrivals.js", **plan, MAX_DROPPED="400", MIN_SERVED="0", MAX_FAILED="1")
    assert (failed, allowed) == (99, 0), said


async def test_by_hand_a_plan_is_looked_for_where_the_person_stands(server, tmp_path):
    (tmp_path / "plan.json").write_text(a_plan("in full").to_json())
    settings = {"TARGET": f"http://127.0.0.1:{server.port}", "PLAN": "plan.json", "PWD": str(tmp_path)}
    status, said = await by_hand("arrivals.js", **settings)
    assert status == 0, said
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "say which server"),
        ({"TARGET": "http://127.0.0.1:1", "DURATION": "soon"}, "a duration is like 90s or 5m, not soon"),
        ({"TARGET": "http://127.0.0.1:1", "PEAK": "much"}, "PEAK and BASE are numbers"),
    ],
)
async def test_by_hand_a_setting_that_is_wrong_is_named(settings, says):
    status, said = await by_hand("arrivals.js", **settings)
    assert status == 107
    assert says in said


async def test_by_hand_a_server_without_a_model_ends_it():
    status, said = await by_hand("arrivals.js", TARGET=f"http://127.0.0.1:{free_port()}", DURATION="1s")
    assert status == 108
    assert "/v1/models names no model: dial: connection refused" in said
