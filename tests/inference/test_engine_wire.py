"""Our answers beside those recorded from vLLM 0.32 (`recorded/`): the same keys in their order, types and errors."""

import json
from pathlib import Path

import httpx
import pytest

from tests.inference.servers import STORY, engine, serving

RECORDED = Path(__file__).parent / "recorded"
CHAT = {"model": "mistral", "messages": STORY}
COMPLETION = {"model": "mistral", "prompt": "story"}
JSON = {"content-type": "application/json"}
STREAM_USAGE = {"stream": True, "stream_options": {"include_usage": True}}


def recording(name: str) -> tuple[int, dict[str, str], str]:
    head, _, body = (RECORDED / name).read_bytes().decode().replace("\r\n", "\n").partition("\n\n")
    status, *fields = head.splitlines()
    return int(status.split()[1]), dict(field.split(": ", 1) for field in fields), body


def shape(value):
    """Keys in their order and the types of values; strings that name a kind of thing stay."""
    if isinstance(value, dict):
        return [(k, v if k in ("object", "role", "finish_reason") else shape(v)) for k, v in value.items()]
    if isinstance(value, list):
        return [shape(item) for item in value]
    return type(value).__name__


def chunks(body: str) -> list:
    events = [event.removeprefix("data: ") for event in body.split("\n\n") if event]
    return [event if event == "[DONE]" else shape(json.loads(event)) for event in events]


@pytest.fixture
async def client():
    async with serving(engine(max_model_len=1024)) as url, httpx.AsyncClient(base_url=url, trust_env=False) as client:
        yield client


@pytest.mark.parametrize(
    ("name", "path", "body"),
    [
        ("chat.http", "/v1/chat/completions", {**CHAT, "max_tokens": 8}),
        ("comp.http", "/v1/completions", {**COMPLETION, "max_tokens": 4}),
    ],
)
async def test_whole_answers_have_the_recorded_shape(client, name, path, body):
    status, headers, recorded = recording(name)
    ours = await client.post(path, json=body)
    assert ours.status_code == status
    assert ours.headers["content-type"] == headers["content-type"]
    assert shape(ours.json()) == shape(json.loads(recorded))
    assert ours.json()["usage"]["completion_tokens"] == json.loads(recorded)["usage"]["completion_tokens"]
    assert ours.json()["system_fingerprint"].startswith("crowdspike-sim")


@pytest.mark.parametrize(
    ("name", "path", "body"),
    [
        ("chat_stream.http", "/v1/chat/completions", {**CHAT, **STREAM_USAGE, "max_tokens": 4}),
        ("comp_stream.http", "/v1/completions", {**COMPLETION, "stream": True, "max_tokens": 3}),
    ],
)
async def test_streams_have_the_recorded_chunks(client, name, path, body):
    status, headers, recorded = recording(name)
    ours = await client.post(path, json=body)
    assert ours.status_code == status
    assert ours.headers["content-type"] == headers["content-type"]
    assert chunks(ours.text) == chunks(recorded)


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("err404.http", json.dumps({**CHAT, "model": "nope"})),
        ("err_ctx.http", json.dumps({**CHAT, "max_tokens": 5000})),
        ("err_json.http", "{broken"),
        ("err_missing.http", json.dumps({"model": "mistral"})),
        ("err_neg.http", json.dumps({**CHAT, "max_tokens": -1})),
        ("err_temp.http", json.dumps({**CHAT, "temperature": -1})),
    ],
)
async def test_errors_are_the_recorded_ones(client, name, body):
    status, headers, recorded = recording(name)
    ours = await client.post("/v1/chat/completions", content=body, headers=JSON)
    assert (ours.status_code, ours.json()) == (status, json.loads(recorded))
    assert ours.headers["content-type"] == headers["content-type"]


@pytest.mark.parametrize(
    ("name", "path"), [("version.http", "/version"), ("load.http", "/load"), ("ping.http", "/ping")]
)
async def test_small_endpoints_answer_as_recorded(client, name, path):
    status, headers, recorded = recording(name)
    ours = await client.get(path)
    assert (ours.status_code, ours.text) == (status, recorded)
    assert ours.headers.get("content-type") == headers.get("content-type")


@pytest.mark.parametrize("body", ["[]", '{"messages": 3}', '{"messages": ["x"]}', '{"messages": [{}]}', '"x"', ""])
async def test_odd_bodies_are_refused_and_not_answered_with_a_crash(client, body):
    ours = await client.post("/v1/chat/completions", content=body, headers=JSON)
    assert (ours.status_code, ours.json()["error"]["code"]) == (400, 400)


@pytest.mark.parametrize("body", [b"\xff\xfe\xfa", b"[" * 100_000])
async def test_bodies_that_are_no_text_or_too_deep_are_refused_too(client, body):
    ours = await client.post("/v1/chat/completions", content=body, headers=JSON)
    assert (ours.status_code, ours.json()) == (400, {"detail": "There was an error parsing the body"})


async def test_prompt_over_the_context_length_is_refused(client):
    ours = await client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "word " * 1100}]})
    assert ours.status_code == 400
    assert "maximum context length is 1024 tokens" in ours.json()["error"]["message"]


async def test_unknown_path_and_wrong_method_are_answered_as_by_the_framework_under_vllm(client):
    unknown, wrong = await client.get("/v1/nothing"), await client.get("/v1/completions")
    assert (unknown.status_code, unknown.json()) == (404, {"detail": "Not Found"})
    assert (wrong.status_code, wrong.json(), wrong.headers["allow"]) == (405, {"detail": "Method Not Allowed"}, "POST")
    assert (await client.get("/v1/models/")).headers["location"] == f"{client.base_url}/v1/models"
