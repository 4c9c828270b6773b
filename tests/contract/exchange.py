"""Sends the contract's requests and compares answers with those recorded from vLLM 0.32."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import httpx

from tests.contract.requests import Match, Request

RECORDED = Path(__file__).parent.parent / "inference" / "recorded"
EXCHANGES = RECORDED / "exchanges.json"
HEADERS = ("content-type", "allow", "retry-after")  # those that a client may act on
# Values of these are the same on every server; of the others the type is.
FIXED = frozenset({"object", "role", "finish_reason", "index", "model", "max_model_len"})


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: str


def send(client: httpx.Client, request: Request) -> Answer:
    response = client.request(request.method, request.path, content=request.body, headers=request.headers)
    return Answer(response.status_code, {k: v for k, v in response.headers.items() if k in HEADERS}, response.text)


def recorded() -> dict[str, Answer]:
    return {name: Answer(**answer) for name, answer in json.loads(EXCHANGES.read_text(encoding="utf-8")).items()}


def save(answers: dict[str, Answer]) -> None:
    text = json.dumps({name: asdict(answer) for name, answer in answers.items()}, indent=1, ensure_ascii=False)
    EXCHANGES.write_text(text + "\n", encoding="utf-8")


def comparable(answer: Answer, match: Match) -> Any:
    """What of an answer has to be equal on every server."""
    head = (answer.status, answer.headers)
    match match:
        case Match.EXACT:
            return *head, answer.body
        case Match.SHAPE:
            # A server that is behind puts several tokens into one event.
            return *head, [form for form, _ in groupby(shape(payload) for payload in payloads(answer))]
        case Match.KIND:
            error = json.loads(answer.body)["error"]
            return *head, list(error), error["type"], error["code"], _base(error["param"])


def payloads(answer: Answer) -> list[Any]:
    """The JSON documents of an answer: one, or one for each event of a stream, which ends in `[DONE]`."""
    if not answer.headers.get("content-type", "").startswith("text/event-stream"):
        return [json.loads(answer.body)]
    events = answer.body.split("\n\n")
    assert events.pop() == "", "a stream ends after an event"
    data = [event.removeprefix("data: ") for event in events]
    assert data.pop() == "[DONE]"
    return [json.loads(text) for text in data]


def shape(value: Any, key: str = "") -> Any:
    """Keys in their order, and types of values. Token lists differ in length from tokenizer to tokenizer."""
    if isinstance(value, dict):
        return [(name, shape(item, name)) for name, item in value.items()]
    if isinstance(value, list):
        shapes = [shape(item, key) for item in value]
        return sorted(set(shapes)) if all(isinstance(s, str) for s in shapes) else shapes
    return value if key in FIXED else type(value).__name__


def _base(param: str) -> str:
    return ".".join(param.split(".")[:3])
