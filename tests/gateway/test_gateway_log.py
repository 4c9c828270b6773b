"""The line that each request leaves in the log."""

import asyncio
import contextlib
import io
import json
import re
from datetime import UTC, datetime

import pytest

from webapp.gateway import log
from webapp.gateway.record import Record

AT = datetime(2026, 11, 21, 12, 0, 0, 123456, UTC)
WHOLE = Record(
    request_id="r-1",
    path="/v1/chat/completions",
    source="k6",
    status=200,
    e2e_s=1.23456,
    model="mistral",
    key="analyst",
    replica="http://10.0.0.7:8000",
    retries=1,
    waited_s=0.02,
    ttft_s=0.04567,
    prompt_tokens=12,
    completion_tokens=34,
)


def test_line_has_who_when_where_how_long_and_how_much():
    assert json.loads(log.line(WHOLE, AT)) == {
        "ts": "2026-11-21T12:00:00.123+00:00",
        "request_id": "r-1",
        "path": "/v1/chat/completions",
        "source": "k6",
        "key": "analyst",
        "model": "mistral",
        "replica": "http://10.0.0.7:8000",
        "status": 200,
        "retries": 1,
        "waited_ms": 20.0,
        "ttft_ms": 45.7,
        "e2e_ms": 1234.6,
        "prompt_tokens": 12,
        "completion_tokens": 34,
        "error": None,
    }


def test_every_field_of_a_record_is_in_the_line():
    shown = json.loads(log.line(WHOLE, AT))
    assert {re.sub("_s$", "_ms", name) for name in Record._fields} | {"ts"} == set(shown)


def test_what_a_client_named_cannot_break_or_fill_the_line():
    nasty = Record("r", "/v1/\n{}", "api", 404, 0.0, model='a"\n\ud800\x1b[2J' + "x" * 10_000)
    line = log.line(nasty, AT)
    assert line.isascii()
    assert line.isprintable()
    assert len(line) < 1000
    assert json.loads(line)["path"] == "/v1/\n{}"


async def test_each_record_is_one_line_of_nothing_but_json():
    stream = io.StringIO()
    requests = log.RequestLog(stream)
    for _ in range(3):
        requests.write(WHOLE)
    requests.flush()
    lines = stream.getvalue().splitlines()
    assert [json.loads(line)["request_id"] for line in lines] == ["r-1"] * 3


class Watched(io.StringIO):
    """Tells when something has been written."""

    def __init__(self) -> None:
        super().__init__()
        self.flushed = asyncio.Event()

    def flush(self) -> None:
        self.flushed.set()


async def test_lines_are_written_without_being_asked_for():
    stream = Watched()
    log.RequestLog(stream).write(WHOLE)
    async with asyncio.timeout(10):
        await stream.flushed.wait()
    assert json.loads(stream.getvalue())["request_id"] == "r-1"


@pytest.fixture
def full_disk():
    with contextlib.suppress(OSError), open("/dev/full", "w") as full:  # to close it fails as well
        yield full


async def test_a_stream_that_takes_nothing_loses_lines_and_says_so(full_disk, caplog):
    requests = log.RequestLog(full_disk)
    requests.write(WHOLE)
    requests.flush()
    assert "1 lines of the request log are lost" in caplog.text
    requests.write(WHOLE)  # it goes on


def test_times_that_were_not_measured_are_null():
    refused = Record("r", "/v1/x", "api", 404, 0.0, error="invalid_request_error")
    shown = json.loads(log.line(refused, AT))
    assert (shown["ttft_ms"], shown["e2e_ms"], shown["key"]) == (None, 0.0, None)
