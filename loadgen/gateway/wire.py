"""The two works, byte by byte: what is asked, and what a replica answers. Shapes as vLLM 0.32 has them."""

from __future__ import annotations

import json

MODEL = "bench"
PATH = "/v1/chat/completions"
TOKENS = 74
"""In one stream, each an event of its own after the event with the role."""
EVERY_S = 0.01
ANSWER_BYTES = 700
TOKEN_MARK = b'" token'
"""What each token's text begins with. Tokens are counted rather than events, as some gateways pack those anew."""
DONE = b"data: [DONE]\n\n"

_ID = "chatcmpl-956bd76c747bc9b0"
_CREATED = 1795243040
_USAGE = {"prompt_tokens": 25, "total_tokens": 99, "completion_tokens": 74}


def question(stream: bool) -> bytes:
    """The body of a request, about 250 bytes."""
    messages = [
        {"role": "system", "content": "You comment on an answer in one short sentence."},
        {"role": "user", "content": "What does a crowd of phones cost a server? A little for each poll."},
    ]
    return _dumps({"model": MODEL, "messages": messages, "max_tokens": 80, "stream": stream})


def answer() -> bytes:
    """A whole answer of `ANSWER_BYTES`."""

    def body(text: str) -> bytes:
        message = {"role": "assistant", "content": text, "refusal": None, "reasoning": None, "tool_calls": []}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop", "stop_reason": None}
        rest = {"system_fingerprint": None, "usage": _USAGE, "prompt_logprobs": None, "kv_transfer_params": None}
        return _dumps({**_head("chat.completion"), "choices": [choice], **rest})

    return body("x" * (ANSWER_BYTES - len(body(""))))


def events() -> list[bytes]:
    """The events of a stream before `[DONE]`: the role, then tokens, the last with the reason for the end."""
    role = _event(
        [{"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}]
    )
    return [role, *(_token(i, None) for i in range(TOKENS - 1)), _token(TOKENS - 1, "stop")]


def usage_event() -> bytes:
    """What comes before `[DONE]` when `stream_options.include_usage` was asked for."""
    return _event([], usage=_USAGE)


def _token(i: int, finish_reason: str | None) -> bytes:
    delta = {"content": f" token{i:02d}"}
    return _event([{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason, "token_ids": None}])


def _event(choices: list[dict], **rest: object) -> bytes:
    return b"data: " + _dumps({**_head("chat.completion.chunk"), "choices": choices, **rest}) + b"\n\n"


def _head(kind: str) -> dict[str, object]:
    return {"id": _ID, "object": kind, "created": _CREATED, "model": MODEL}


def _dumps(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
