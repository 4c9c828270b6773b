"""A request's body, checked as vLLM checks it. Pure: bytes in, a job or an error in vLLM's words out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from inference.engine.answers import content_text, last_user_text, pieces
from inference.engine.wire import ApiError

COMPLETION_MAX_TOKENS = 16  # OpenAI's and vLLM's default for plain completions


@dataclass(frozen=True, slots=True)
class Job:
    """What to answer: `prompt` is the text that picks the words, `max_tokens` the most of them."""

    prompt: str
    prompt_tokens: int
    max_tokens: int
    stream: bool
    include_usage: bool


def parse(body: bytes, chat: bool, model: str, max_model_len: int) -> Job:
    """The job that a body asks for. Raises ApiError."""
    data = _object(body)
    field = "messages" if chat else "prompt"
    if field not in data:
        raise _invalid("missing", f"body.{field}", "Field required", data)
    if data.get("model") not in (None, model):
        message = f"The model `{data['model']}` does not exist. Valid aliases: {model}."
        raise ApiError(404, message, "NotFoundError", "model")
    if chat:
        messages = _messages(data)
        prompt = last_user_text(messages)
        # A chat template adds a few tokens to each message.
        prompt_tokens = sum(len(pieces(content_text(m.get("content")))) + 3 for m in messages) + 1
    else:
        prompt = _prompt(data["prompt"])
        prompt_tokens = len(pieces(prompt)) + 1
    room = max_model_len - prompt_tokens
    if room < 1:
        raise _bad(
            f"This model's maximum context length is {max_model_len} tokens. However, your request has "
            f"{prompt_tokens} input tokens. Please reduce the length of the input messages.",
            "input_tokens",
        )
    temperature = data.get("temperature")
    if isinstance(temperature, int | float) and temperature < 0:
        raise _value("temperature", f"temperature must be non-negative, got {float(temperature)}.", float(temperature))
    limit = _max_tokens(data, chat, max_model_len)
    options = data.get("stream_options") or {}
    return Job(
        prompt=prompt,
        prompt_tokens=prompt_tokens,
        max_tokens=min(limit, room),
        stream=bool(data.get("stream")),
        include_usage=isinstance(options, dict) and bool(options.get("include_usage")),
    )


def _object(body: bytes) -> dict[str, Any]:
    try:
        data = json.loads(body)
    except json.JSONDecodeError as error:
        raise _invalid("json_invalid", f"body.{error.pos}", "JSON decode error", {}, error.msg) from error
    except UnicodeDecodeError as error:
        raise _invalid("json_invalid", f"body.{error.start}", "JSON decode error", {}, "not UTF-8") from error
    if not isinstance(data, dict):
        raise _invalid("model_attributes_type", "body", "Input should be a valid dictionary", {})
    return data


def _messages(data: dict[str, Any]) -> list[dict[str, Any]]:
    messages = data["messages"]
    if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
        raise _invalid("list_type", "body.messages", "Input should be a valid list", data)
    return messages


def _prompt(prompt: Any) -> str:
    return " ".join(str(part) for part in prompt) if isinstance(prompt, list) else str(prompt)


def _max_tokens(data: dict[str, Any], chat: bool, max_model_len: int) -> int:
    name = "max_completion_tokens" if chat and data.get("max_completion_tokens") is not None else "max_tokens"
    value = data.get(name)
    if value is None:
        return max_model_len if chat else COMPLETION_MAX_TOKENS
    if isinstance(value, bool) or not isinstance(value, int):
        raise _invalid("int_type", f"body.{name}", "Input should be a valid integer", data)
    if value < 1:
        raise _value("max_tokens", f"max_tokens must be at least 1, got {value}.", value)
    if value > max_model_len:
        message = (
            f"max_tokens={value} cannot be greater than max_model_len={max_model_len}. "
            "Please request fewer output tokens."
        )
        raise _value("max_tokens", message, value)
    return value


def _bad(message: str, param: str) -> ApiError:
    return ApiError(400, message, "BadRequestError", param)


def _value(param: str, message: str, value: object) -> ApiError:
    return _bad(f"{message} (parameter={param}, value={value})", param)


def _invalid(kind: str, where: str, message: str, data: dict[str, Any], cause: str | None = None) -> ApiError:
    """pydantic's finding, as vLLM writes it."""
    context = f", 'ctx': {{'error': '{cause}'}}" if cause else ""
    finding = (
        f"{{'type': '{kind}', 'loc': '{where}', 'msg': '{message}', 'input': '<dict of {len(data)} items>'{context}}}"
    )
    return ApiError(400, f"1 validation error:\n  {finding}", "Bad Request", where)
