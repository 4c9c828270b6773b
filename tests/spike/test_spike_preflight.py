"""What is said of a target before anything is sent to it, by real servers that are what they should not be."""

from __future__ import annotations

import asyncio
import json
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from loadgen.processes import TOKEN, free_port
from loadgen.spike.drive import make_room
from loadgen.spike.preflight import BadTarget, address, look, strangers
from tests.processes import replica, web_app

MODELS = {"data": [{"id": "mistral"}, {"id": "other"}]}


class Server:
    """Answers a path with a status and a document, and keeps what it was asked."""

    def __init__(self, answers: dict[str, tuple[int, object]], fields: str = "") -> None:
        self._answers = answers
        self._fields = fields
        self.heads: list[str] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.heads.append(head)
        status, document = self._answers.get(head.split()[1], (404, {"detail": "Not Found"}))
        body = json.dumps(document).encode() if not isinstance(document, bytes) else document
        writer.write(
            f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\nconnection: close\r\n{self._fields}\r\n".encode()
        )
        writer.write(body)
        await writer.drain()
        writer.close()


@asynccontextmanager
async def listening(handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    server = await asyncio.start_server(handler, "127.0.0.1", 0, ssl=tls)
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def refusal(url: str, **more) -> str:
    with pytest.raises(BadTarget) as refused:
        await look(url, **more)
    return str(refused.value)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed one for 127.0.0.1, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", str(key), "-out", str(cert), "-days", "1", "-subj", "/CN=127.0.0.1"]
    subprocess.run([*command, "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
    return cert, key


@pytest.fixture
def tls(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with replica(tmp_path_factory.mktemp("engine")) as process:
        yield process.url


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000"),
        ("https://api.example/v1", "https://api.example"),
        ("https://api.example/v1/", "https://api.example"),
        (" localhost:8000 ", "http://localhost:8000"),
        ("http://[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_an_address_is_taken_as_people_write_it(written: str, meant: str) -> None:
    assert address(written) == meant


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("http://host/v1/chat/completions", "has a path"),
        ("http://host?x=1", "has a path"),
        ("ftp://host", "no address of a server"),
        ("", "no address of a server"),
        ("http://", "no address of a server"),
        ("http://host:99999", "Port out of range"),
        ("http://[::1", "no address"),
        ("http://me:secret@host", "CROWDSPIKE_SPIKE_API_KEY"),
    ],
)
def test_what_is_no_address_is_refused(written: str, said: str) -> None:
    with pytest.raises(BadTarget) as refused:
        address(written)
    assert said in str(refused.value)
    assert "secret" not in str(refused.value)


async def test_addresses_beyond_private_networks_are_named() -> None:
    assert await strangers("http://127.0.0.1:1") == []
    assert await strangers("http://10.1.2.3") == []
    assert await strangers("http://[::1]:1") == []
    assert await strangers("http://localhost:1") == []
    assert await strangers("https://8.8.8.8") == ["8.8.8.8"]


async def test_a_name_that_nobody_knows_is_said_to_be_unknown() -> None:
    assert "no-such-host.invalid does not resolve" in await refusal("http://no-such-host.invalid")


async def test_a_closed_port_is_said_to_be_closed() -> None:
    assert "refused the connection" in await refusal(f"http://127.0.0.1:{free_port()}")


async def test_a_port_that_talks_something_else_is_no_http() -> None:
    async def mail(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")
        await reader.read(1)
        writer.close()

    async with listening(mail) as url:
        assert "does not answer in HTTP" in await refusal(url)
        assert "does not speak TLS" in await refusal(url.replace("http:", "https:"))


async def test_a_server_that_says_nothing_is_not_waited_for_for_ever() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with listening(silent) as url:
        assert "did not answer within 0.2 s" in await refusal(url, timeout_s=0.2)


async def test_a_server_that_drips_is_not_waited_for_for_ever() -> None:
    async def drips(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nx-drip: ")
        try:
            while True:
                writer.write(b".")
                await writer.drain()
                await asyncio.sleep(0.02)
        except OSError:
            writer.close()

    async with listening(drips) as url:
        assert "did not answer within 0.3 s" in await refusal(url, timeout_s=0.3)


async def test_an_untrusted_certificate_is_named_with_what_to_do(tls, certificate, monkeypatch) -> None:
    models = Server({"/v1/models": (200, MODELS), "/v1/chat/completions": (200, {})})
    async with listening(models, tls) as url:
        said = await refusal(url)
        assert "self-signed certificate" in said
        assert "SSL_CERT_FILE" in said
        assert "--insecure" in said
        assert not models.heads
        assert (await look(url, insecure=True)).model == "mistral"
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
        assert (await look(url)).model == "mistral"


async def test_a_certificate_for_another_name_is_said_to_be_that(tls, certificate, monkeypatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    async with listening(Server({}), tls) as url:
        assert "Hostname mismatch" in await refusal(url.replace("127.0.0.1", "localhost"))


async def test_tls_spoken_to_without_tls_is_told(tls) -> None:
    async with listening(Server({"/v1/models": (200, MODELS)}), tls) as url:
        assert "Is it https:// there?" in await refusal(url.replace("https:", "http:"))


async def test_a_key_that_is_missing_or_wrong_is_told_apart_and_never_shown() -> None:
    denied = Server({"/v1/models": (401, {"error": {"message": "no such key"}})})
    async with listening(denied) as url:
        said = await refusal(url)
        assert "wants an API key (401 no such key)" in said
        assert "CROWDSPIKE_SPIKE_API_KEY" in said
        said = await refusal(url, api_key="csk_hush")
        assert "does not take the API key" in said
        assert "csk_hush" not in said
    assert "authorization: Bearer csk_hush" in denied.heads[1]


@pytest.mark.parametrize(
    "answer", [(404, {"detail": "Not Found"}), (200, b"<html>Welcome to nginx!</html>"), (200, {"data": "?"})]
)
async def test_a_server_that_is_not_openais_is_told(answer) -> None:
    async with listening(Server({"/v1/models": answer})) as url:
        assert f"no OpenAI-compatible server: GET /v1/models says {answer[0]}" in await refusal(url)


async def test_an_unknown_model_is_told_with_those_that_there_are() -> None:
    async with listening(Server({"/v1/models": (200, MODELS)})) as url:
        assert "has no model 'gpt'; it has mistral, other" in await refusal(url, model="gpt")


async def test_what_would_fail_every_request_fails_here_in_the_servers_words() -> None:
    refused = (400, {"error": {"message": "no chat\n  template"}})
    async with listening(Server({"/v1/models": (200, MODELS), "/v1/chat/completions": refused})) as url:
        assert "does not take a chat completion: 400 no chat template" in await refusal(url)


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_server_that_is_merely_busy_is_a_target(status: int) -> None:
    busy = {"/v1/models": (200, MODELS), "/v1/chat/completions": (status, {})}
    async with listening(Server(busy)) as url:
        assert (await look(url, model="other")).model == "other"


async def test_a_simulated_replica_is_known_as_one(engine: str) -> None:
    target = await look(f"{engine}/v1/")
    assert (target.url, target.simulated, target.holds_headers) == (engine, True, False)
    assert target.models == (target.model,)
    assert target.what == "an OpenAI-compatible server"


async def test_our_gateway_is_known_and_so_are_its_rooms(engine: str, tmp_path: Path) -> None:
    with web_app(tmp_path, str(tmp_path / "store"), inference_url=engine) as web:
        web.wait_ready()
        target = await look(web.url)
        assert (target.holds_headers, target.simulated, target.what) == (True, True, "a crowdspike")
        assert (await look(web.url, phones=True)).url == web.url
        assert "has no room ZZZZ" in await refusal(web.url, phones=True, room="ZZZZ")
        assert "has no room ZZZZ" in await refusal(web.url, room="ZZZZ")
        code = await make_room(web.url, TOKEN)
        assert (await look(web.url, room=code, presenter_token=TOKEN)).holds_headers
        said = await refusal(web.url, room=code, presenter_token="hush")
        assert "does not take the presenter token (401" in said
        assert "hush" not in said
    assert "no crowdspike web app" in await refusal(engine, phones=True)


async def test_phones_need_no_key_where_requests_do() -> None:
    keyed = Server({"/healthz": (200, {"status": "ok"}), "/v1/models": (401, {})})
    async with listening(keyed) as url:
        target = await look(url, phones=True)
        assert (target.model, target.models, target.holds_headers) == ("", (), True)
        assert "wants an API key" in await refusal(url)


async def test_a_gateway_that_is_scaled_to_zero_is_not_woken_before_the_run() -> None:
    asleep = Server(
        {"/v1/models": (200, {"data": []}), "/readyz": (200, {"replicas_ready": 0})},
        "x-headers-held: until-first-token\r\n",
    )
    async with listening(asleep) as url:
        target = await look(url)
    assert (target.model, target.holds_headers, target.simulated) == ("", True, False)
    assert [head.split()[1] for head in asleep.heads] == ["/v1/models", "/readyz"]
