"""The requests of the contract: what is sent, and how closely the answer has to be the recorded one."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from tests.contract import MAX_MODEL_LEN

CHAT_PATH = "/v1/chat/completions"
TEXT_PATH = "/v1/completions"
JSON_HEADERS = {"content-type": "application/json"}
MESSAGES = [{"role": "user", "content": "What is a queue?"}]
PROMPT = "What is a queue?"
LONG = "word " * 2 * MAX_MODEL_LEN
WITH_USAGE = {"stream": True, "stream_options": {"include_usage": True}}
RUNNING_USAGE = {"stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}}


class Match(StrEnum):
    """`exact`: the same bytes of JSON. `shape`: the same keys in their order, types, and words that are no text of the
    model. `kind`: the same status and type of error; its text lists pydantic's unions."""

    EXACT = "exact"
    SHAPE = "shape"
    KIND = "kind"


@dataclass(frozen=True, slots=True)
class Request:
    name: str
    path: str
    body: bytes = b""
    method: str = "POST"
    headers: dict[str, str] = field(default_factory=lambda: JSON_HEADERS)
    match: Match = Match.EXACT


def chat(name: str, match: Match = Match.EXACT, **fields: Any) -> Request:
    return _completion(f"chat: {name}", CHAT_PATH, {"messages": MESSAGES}, match, fields)


def text(name: str, match: Match = Match.EXACT, **fields: Any) -> Request:
    return _completion(f"text: {name}", TEXT_PATH, {"prompt": PROMPT}, match, fields)


def raw(name: str, body: bytes, match: Match = Match.EXACT) -> Request:
    return Request(f"chat: {name}", CHAT_PATH, body, match=match)


def as_type(content_type: str) -> Request:
    body = json.dumps({"messages": MESSAGES, "max_tokens": 1}).encode()
    name = f"chat: content type {content_type or 'missing'}"
    return Request(name, CHAT_PATH, body, headers={"content-type": content_type} if content_type else {})


def plain(method: str, path: str, match: Match = Match.EXACT) -> Request:
    return Request(f"{method} {path}", path, method=method, headers={}, match=match)


def tokenize(name: str, match: Match = Match.SHAPE, **fields: Any) -> Request:
    return Request(f"tokenize: {name}", "/tokenize", json.dumps(fields).encode(), match=match)


def _completion(name: str, path: str, prompt: dict[str, Any], match: Match, fields: dict[str, Any]) -> Request:
    asked = {"model": "mistral", **prompt, **fields}
    return Request(name, path, json.dumps({k: v for k, v in asked.items() if v is not ...}).encode(), match=match)


S = Match.SHAPE
K = Match.KIND
N = {"max_tokens": 4, "ignore_eos": True}
# Twenty tokens at least, so that no server puts all of them into one event; then some word with an e ends it.
STOP = {"min_tokens": 20, "max_tokens": 200, "ignore_eos": True, "stop": ["e"]}

ANSWERS = (
    chat("whole", S, **N),
    chat("streamed", S, **N, stream=True),
    chat("streamed with usage", S, **N, **WITH_USAGE),
    chat("streamed with running usage", S, **N, **RUNNING_USAGE),
    chat("max_completion_tokens before max_tokens", S, max_completion_tokens=2, max_tokens=5, ignore_eos=True),
    chat("max_tokens null", S, max_tokens=None, max_completion_tokens=2, ignore_eos=True),
    chat("lax numbers", S, max_tokens="4", temperature="0.5", ignore_eos="true"),
    chat("no model", S, model=..., **N),
    chat("model null", S, model=None, **N),
    chat("model empty", S, model="", **N),
    chat("content in parts", S, messages=[{"role": "user", "content": [{"type": "text", "text": PROMPT}]}], **N),
    chat("several messages", S, messages=[{"role": "system", "content": "Be brief."}, *MESSAGES], **N),
    chat("no content", S, messages=[{"role": "user"}], **N),
    chat("unknown role", S, messages=[{"role": "wizard", "content": PROMPT}], **N),
    chat("unknown field", S, colour="blue", **N),
    chat("negative seed", S, seed=-5, **N),
    chat("n of 1", S, n=1, **N),
    chat("stopped", S, **STOP),
    chat("stopped, streamed", S, **STOP, **WITH_USAGE),
    text("whole", S, **N),
    text("streamed", S, **N, stream=True),
    text("streamed with usage", S, **N, **WITH_USAGE),
    text("streamed with running usage", S, **N, **RUNNING_USAGE),
    text("stopped", S, **STOP),
    text("stopped, streamed", S, **STOP, **WITH_USAGE),
    text("16 tokens by default", S, ignore_eos=True),
    text("echo", S, **N, echo=True),
    text("token ids", S, prompt=[5, 6, 7, 8], **N),
    text("context filled by token ids", S, prompt=[5] * (MAX_MODEL_LEN - 1), **{**N, "max_tokens": 1}),
    text("max_tokens cut to what fits", S, prompt=[5] * (MAX_MODEL_LEN - 4), max_tokens=MAX_MODEL_LEN, ignore_eos=True),
    tokenize("chat", model="mistral", messages=MESSAGES),
    tokenize("prompt", model="mistral", prompt="queue"),
    tokenize("no model", prompt="queue"),
    plain("GET", "/v1/models", S),
    plain("GET", "/version"),
    plain("GET", "/health"),
    plain("GET", "/ping"),
    plain("POST", "/ping"),
    plain("GET", "/load", S),
)

REFUSALS = (
    chat("unknown model", model="nope"),
    chat("unknown model, streamed", model="nope", stream=True),
    text("unknown model", model="nope"),
    tokenize("unknown model", Match.EXACT, model="nope", prompt="a"),
    tokenize("nothing", Match.EXACT),
    chat("model no string", model=5),
    chat("prompt over the context", messages=[{"role": "user", "content": LONG}]),
    chat("prompt and max_tokens over the context", messages=[{"role": "user", "content": LONG}], max_tokens=5),
    text("prompt over the context", prompt=LONG, max_tokens=5),
    text("prompt fills the context", prompt=[5] * MAX_MODEL_LEN, max_tokens=1),
    chat("max_tokens over the context", max_tokens=5000),
    chat("max_completion_tokens over the context", max_completion_tokens=5000),
    text("max_tokens over the context", max_tokens=5000),
    chat("max_tokens 0", max_tokens=0),
    chat("max_tokens negative", max_tokens=-1),
    chat("max_completion_tokens negative", max_completion_tokens=-1),
    text("max_tokens negative", max_tokens=-1),
    chat("max_tokens a word", max_tokens="many"),
    chat("max_tokens a fraction", max_tokens=1.5),
    chat("max_tokens a list", max_tokens=[1]),
    chat("temperature negative", temperature=-1),
    chat("temperature over 2", temperature=3),
    chat("temperature a word", temperature="hot"),
    chat("top_p 0", top_p=0),
    chat("top_p over 1", top_p=2),
    chat("top_k negative", top_k=-5),
    chat("presence_penalty over 2", presence_penalty=9),
    chat("frequency_penalty under -2", frequency_penalty=-9),
    chat("repetition_penalty 0", repetition_penalty=0),
    chat("n of 0", n=0),
    chat("n a word", n="x"),
    chat("seed a word", seed="x"),
    chat("min_tokens over max_tokens", min_tokens=5, max_tokens=2),
    chat("min_tokens negative", min_tokens=-1),
    chat("ignore_eos a word", ignore_eos="maybe"),
    chat("stream a word", stream="maybe"),
    chat("stream_options without stream", stream_options={"include_usage": True}),
    chat("stream_options a number", stream=True, stream_options=5),
    chat("stop a number", stop=5),
    chat("stop empty", stop=""),
    chat("five stops", stop=["a", "b", "c", "d", "e"]),
    chat("messages missing", messages=...),
    chat("messages a string", messages="hi"),
    chat("messages empty", messages=[]),
    chat("message a string", K, messages=["hi"]),
    chat("message without role", K, messages=[{"content": "x"}]),
    chat("content a number", K, messages=[{"role": "user", "content": 5}]),
    text("prompt missing", prompt=...),
    text("prompt null", prompt=None),
    text("prompt empty", prompt=""),
    text("no prompts", prompt=[]),
    raw("no body", b""),
    raw("body null", b"null"),
    raw("body a list", b"[]"),
    raw("body a string", b'"x"'),
    raw("broken JSON", b"{"),
    raw("JSON without end", b'{"a":1'),
    raw("JSON without value", b'{"a":}'),
    raw("no JSON", b"nope"),
    raw("not UTF-8", b'{"messages":"\xff"}'),
    as_type("text/plain"),
    as_type("application/x-www-form-urlencoded"),
    as_type("application/problem+json"),
    as_type(""),
    plain("GET", "/nope"),
    plain("GET", "/v1/nope"),
    plain("GET", "/v1/models/mistral"),
    plain("GET", CHAT_PATH),
    plain("PUT", "/v1/models"),
    plain("POST", "/health"),
    plain("DELETE", TEXT_PATH),
    plain("HEAD", "/v1/models"),
    plain("OPTIONS", CHAT_PATH),
)
