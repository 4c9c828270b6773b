"""A request's body, checked as vLLM checks it. Pure: bytes in, a job or an error in vLLM's words out."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from inference.engine import tokens
from inference.engine.answers import last_user_text
from inference.engine.fields import NOT_AN_OBJECT, Fields, finding, refusal
from inference.engine.output import Limits
from inference.engine.wire import ApiError, Refused

COMPLETION_MAX_TOKENS = 16  # OpenAI's and vLLM's default for plain completions
MAX_STOPS = 4
# What these ask for would be missing from the answer: no probabilities, no grammar, no tools, one answer a request.
NOT_SIMULATED = (
    *("allowed_token_ids", "bad_words", "logit_bias", "logprobs", "prompt_embeds", "prompt_logprobs", "suffix"),
    *("return_token_ids", "stop_token_ids", "structured_outputs", "tools", "top_logprobs", "truncate_prompt_tokens"),
    *("use_beam_search", "logprob_token_ids", "return_prompt_text"),
)


@dataclass(frozen=True)
class Sampling:
    """Parameters that are checked and change nothing here: the words are not drawn at random."""

    presence_penalty: float | None
    frequency_penalty: float | None
    repetition_penalty: float | None
    temperature: float | None
    top_p: float | None
    top_k: float | None
    min_p: float | None


@dataclass(frozen=True, slots=True)
class Job:
    """What to answer: `prompt` is the text that picks the words, `limits` where they end."""

    prompt: str
    prompt_tokens: int
    limits: Limits
    seed: int = 0
    echo: str = ""
    stream: bool = False
    include_usage: bool = False
    continuous_usage: bool = False


def parse(body: bytes, chat: bool, model: str, max_model_len: int) -> Job:
    """The job that a body asks for. Raises ApiError."""
    data = load(body)
    _check_together(data, chat)
    fields = Fields(data)
    if chat:
        messages = read_messages(fields, data)
    asked_model = fields.text("model")
    sampling = Sampling(**{name: fields.number(name) for name in Sampling.__annotations__})
    max_tokens, max_tokens_name = fields.integer("max_tokens"), "max_tokens"
    if chat and (better := fields.integer("max_completion_tokens")) is not None:
        max_tokens, max_tokens_name = better, "max_completion_tokens"
    n = fields.integer("n", None if chat else 1)
    seed = fields.integer("seed")
    stop = fields.texts("stop", MAX_STOPS)
    stream = fields.boolean("stream", nullable=True)
    options = Fields(fields.object("stream_options"), "body.stream_options")
    include_usage = options.boolean("include_usage", nullable=True)
    continuous = options.boolean("continuous_usage_stats", nullable=True)
    include_stop = fields.boolean("include_stop_str_in_output")
    ignore_eos = fields.boolean("ignore_eos")
    min_tokens = fields.integer("min_tokens", 0)
    echo = fields.boolean("echo", nullable=True)
    fields.check()
    options.check()
    check_model(asked_model, model)
    _check_simulated(data, 1 if n is None else n)
    if chat:
        _check_texts(messages, model)
        prompt, count = last_user_text(messages), len(tokens.of_chat(messages))
    else:
        prompt, count = _prompt(data["prompt"])
    if max_tokens is None and not chat:
        max_tokens = COMPLETION_MAX_TOKENS
    if max_tokens is not None and max_tokens > max_model_len:
        message = (
            f"{max_tokens_name}={max_tokens} cannot be greater than max_model_len={max_model_len}. "
            "Please request fewer output tokens."
        )
        raise _value(max_tokens_name, message, max_tokens)
    if count > max_model_len:
        # vLLM's tokenizer stops there, whatever the length.
        raise _value(
            "input_tokens",
            f"This model's maximum context length is {max_model_len} tokens. However, your prompt contains at least "
            f"{max_model_len + 1} input tokens, which exceeds this limit even without any output tokens. "
            "Please reduce the length of the input prompt.",
            max_model_len + 1,
        )
    room = max_model_len - count
    most = room if max_tokens is None else min(max_tokens, room)
    _check_ranges(sampling, most, min_tokens or 0, stop)
    return Job(
        prompt=prompt,
        prompt_tokens=count,
        limits=Limits(most, min_tokens or 0, ignore_eos, stop, include_stop),
        seed=seed or 0,
        echo=prompt if echo and not chat else "",
        stream=stream,
        include_usage=include_usage,
        continuous_usage=continuous,
    )


def load(body: bytes) -> dict[str, Any]:
    """The JSON object of a body. Raises ApiError or Refused."""
    try:
        data = json.loads(body) if body else None
    except json.JSONDecodeError as error:
        cause = {"error": error.msg}
        raise refusal([finding("json_invalid", f"body.{error.pos}", "JSON decode error", {}, cause)]) from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise Refused(400, "There was an error parsing the body") from error
    if data is None:
        raise refusal([finding("missing", "body", "Field required", None)])
    if not isinstance(data, dict):
        raise refusal([finding("model_attributes_type", "body", NOT_AN_OBJECT, data)])
    return data


def read_messages(fields: Fields, data: dict[str, Any]) -> list[dict[str, Any]]:
    if "messages" not in data:
        fields.missing("messages")
        return []
    messages = fields.list("messages")
    for i, message in enumerate(messages):
        # vLLM finds this eight times over, once for each kind of message; the first is enough.
        where = f"body.messages.{i}.ChatCompletionDeveloperMessageParam"
        if not isinstance(message, dict):
            raise refusal([finding("dict_type", where, "Input should be a valid dictionary", message)])
        if not isinstance(message.get("role"), str):
            raise refusal([finding("missing", f"{where}.role", "Field required", message)])
        content = message.get("content")
        if not (content is None or isinstance(content, str | list)):
            raise refusal([finding("string_type", f"{where}.content", "Input should be a valid string", content)])
    return messages


def check_model(asked: str | None, model: str) -> None:
    if asked and asked != model:
        message = f"The model `{asked}` does not exist. Valid aliases: {model}."
        raise ApiError(404, message, "NotFoundError", "model")


def _check_together(data: dict[str, Any], chat: bool) -> None:
    """What vLLM checks before it looks at each field."""
    if data.get("stream_options") and not data.get("stream"):
        message = "Stream options can only be defined when `stream=True`."
        raise _bad(f"{message} (parameter=stream_options)", "stream_options")
    if not chat and data.get("prompt") in (None, "") and not data.get("prompt_embeds"):
        raise _bad("Either prompt or prompt_embeds must be provided and non-empty. (parameter=prompt)", "prompt")


def _check_simulated(data: dict[str, Any], n: int) -> None:
    if n < 1:
        raise _bad(f"n must be at least 1, got {n}.")
    asked = [name for name in NOT_SIMULATED if _asks(name, data.get(name))]
    if n > 1:
        asked.append("n")
    if (data.get("response_format") or {}) not in ({}, {"type": "text"}):
        asked.append("response_format")
    if asked == ["tools"] and data.get("tool_choice") == "none":
        return
    if asked and asked[0] == "tools" and data.get("tool_choice", "auto") == "auto":
        raise _bad('"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set')
    if asked:
        raise _bad(f"`{asked[0]}` is not simulated by this replica.", asked[0])


def _asks(name: str, value: object) -> bool:
    if value is None or value is False or (name == "top_logprobs" and value == 0):
        return False
    return value not in ("", [], {})


def _prompt(prompt: Any) -> tuple[str, int]:
    """The text of a prompt and how many tokens it has: a text, token ids, or a list with one of either."""
    if prompt == []:
        raise _bad("You must pass at least one prompt")
    if isinstance(prompt, list) and isinstance(prompt[0], str | list):
        if len(prompt) > 1:
            raise _bad("Several prompts in one request are not simulated by this replica.", "prompt")
        prompt = prompt[0]
    if isinstance(prompt, str):
        return prompt, len(tokens.of_text(prompt))
    if not isinstance(prompt, list) or not all(isinstance(i, int) and not isinstance(i, bool) for i in prompt):
        raise refusal([finding("string_type", "body.prompt", "Input should be a valid string", prompt)])
    for token in prompt:
        if not 0 <= token < tokens.VOCABULARY:
            raise _bad(f"Token id {token} is out of vocabulary")
    return "", len(prompt)


def _check_texts(messages: list[dict[str, Any]], model: str) -> None:
    if not messages:
        raise _bad("Cannot apply chat template to an empty conversation. Provide at least one message.")
    for message in messages:
        content = message.get("content")
        parts = content if isinstance(content, list) else ()
        if any(isinstance(part, dict) and part.get("type", "text") != "text" for part in parts):
            raise _bad(f"{model} is not a multimodal model")


def _check_ranges(sampling: Sampling, max_tokens: int, min_tokens: int, stop: tuple[str, ...]) -> None:
    """In the order of vllm/sampling_params.py."""
    for name in ("presence_penalty", "frequency_penalty"):
        if (value := getattr(sampling, name)) is not None and not -2 <= value <= 2:
            raise _bad(f"{name} must be in [-2, 2], got {value}.")
    if (value := sampling.repetition_penalty) is not None and not value > 0:
        raise _bad(f"repetition_penalty must be greater than zero, got {value}.")
    if (value := sampling.temperature) is not None:
        if not math.isfinite(value):
            raise _value("temperature", f"temperature must be a finite number, got {value}.", value)
        if value < 0:
            raise _value("temperature", f"temperature must be non-negative, got {value}.", value)
        if value > 2:
            raise _value("temperature", f"temperature must be in [0, 2], got {value}.", value)
    if (value := sampling.top_p) is not None and not 0 < value <= 1:
        raise _value("top_p", f"top_p must be in (0, 1], got {value}.", value)
    if (value := sampling.top_k) is not None and value < -1:
        raise _bad(f"top_k must be 0 (disable), or at least 1, got {value:g}.")
    if (value := sampling.min_p) is not None and not 0 <= value <= 1:
        raise _bad(f"min_p must be in [0, 1], got {value}.")
    if max_tokens < 1:
        raise _value("max_tokens", f"max_tokens must be at least 1, got {max_tokens}.", max_tokens)
    if min_tokens < 0:
        raise _bad(f"min_tokens must be greater than or equal to 0, got {min_tokens}.")
    if min_tokens > max_tokens:
        raise _bad(f"min_tokens must be less than or equal to max_tokens={max_tokens}, got {min_tokens}.")
    if "" in stop:
        raise _bad("stop cannot contain an empty string.")


def _bad(message: str, param: str | None = None) -> ApiError:
    return ApiError(400, message, "BadRequestError", param)


def _value(param: str, message: str, value: object) -> ApiError:
    return _bad(f"{message} (parameter={param}, value={value})", param)
