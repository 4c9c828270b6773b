"""How a body becomes a job, and what vLLM 0.32 says to one that can't (texts as seen from the real server)."""

import json

import pytest

from inference.engine import tokenize, tokens
from inference.engine.job import NOT_SIMULATED, parse
from inference.engine.output import Limits
from inference.engine.wire import ApiError, Refused

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is a pod?"}]
LENGTH = 1024
INT_PARSING = "Input should be a valid integer, unable to parse string as an integer"
BOOL_PARSING = "Input should be a valid boolean, unable to interpret input"


def chat(**fields):
    return parse(json.dumps({"messages": MESSAGES, **fields}).encode(), True, "mistral", LENGTH)


def completion(prompt="one two", **fields):
    return parse(json.dumps({"prompt": prompt, **fields}).encode(), False, "mistral", LENGTH)


def refused(ask, *args, **fields) -> dict:
    with pytest.raises(ApiError) as found:
        ask(*args, **fields)
    return found.value.body["error"]


def found(*findings: str) -> str:
    label = "error" if len(findings) == 1 else "errors"
    return "\n  ".join([f"{len(findings)} validation {label}:", *findings])


def finding(kind: str, where: str, text: str, value: str, context: str = "") -> str:
    tail = f", 'ctx': {context}" if context else ""
    return f"{{'type': '{kind}', 'loc': 'body.{where}', 'msg': '{text}', 'input': '{value}'{tail}}}"


def test_chat_is_answered_by_its_last_user_message_up_to_the_context():
    job = chat()
    assert job.prompt == "What is a pod?"
    assert job.prompt_tokens == len(tokens.of_chat(MESSAGES))
    assert job.limits == Limits(max_tokens=LENGTH - job.prompt_tokens)
    assert not (job.stream or job.include_usage or job.continuous_usage)


def test_completion_has_sixteen_tokens_unless_it_asks_for_more():
    assert completion().limits.max_tokens == 16
    assert completion(max_tokens=None).limits.max_tokens == 16
    assert completion(max_tokens=100).limits.max_tokens == 100


@pytest.mark.parametrize(
    ("prompt", "text"), [("one two", "one two"), (["one two"], "one two"), ([5, 6, 7], ""), ([[5, 6, 7]], "")]
)
def test_prompt_is_a_text_or_token_ids_or_a_list_of_one(prompt, text):
    job = completion(prompt)
    assert (job.prompt, job.prompt_tokens) == (text, 3)


def test_newer_name_of_max_tokens_counts():
    assert chat(max_tokens=5, max_completion_tokens=7).limits.max_tokens == 7
    assert refused(chat, max_completion_tokens=5000)["param"] == "max_completion_tokens"


def test_max_tokens_beyond_the_room_are_cut_to_it():
    job = chat(max_tokens=LENGTH)
    assert job.prompt_tokens + job.limits.max_tokens == LENGTH


def test_options_of_a_stream_are_read():
    job = chat(stream=True, stream_options={"include_usage": True, "continuous_usage_stats": True})
    assert (job.stream, job.include_usage, job.continuous_usage) == (True, True, True)


def test_sampling_parameters_that_shape_the_text_are_read():
    job = completion(stop=["a", "b"], include_stop_str_in_output=True, ignore_eos=True, min_tokens=3, seed=-5)
    assert job.limits == Limits(16, 3, True, ("a", "b"), True)
    assert job.seed == -5
    assert completion(stop="a").limits.stop == ("a",)


def test_values_are_read_as_laxly_as_pydantic_reads_them():
    assert completion(max_tokens="5", stream="yes").limits.max_tokens == 5
    assert completion(max_tokens=True).limits.max_tokens == 1
    assert completion(max_tokens=5.0, ignore_eos=1, unknown_field=3).limits.ignore_eos


def test_echo_repeats_the_prompt():
    assert completion(echo=True).echo == "one two"
    assert chat(echo=True).echo == ""


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"max_tokens": "many"}, found(finding("int_parsing", "max_tokens", INT_PARSING, "many"))),
        (
            {"max_tokens": 1.5},
            found(
                finding(
                    "int_from_float",
                    "max_tokens",
                    "Input should be a valid integer, got a number with a fractional part",
                    "1.5",
                )
            ),
        ),
        (
            {"max_tokens": []},
            found(finding("int_type", "max_tokens", "Input should be a valid integer", "<list of 0 items>")),
        ),
        ({"model": 5}, found(finding("string_type", "model", "Input should be a valid string", "5"))),
        ({"seed": "x"}, found(finding("int_parsing", "seed", INT_PARSING, "x"))),
        ({"stream": "maybe"}, found(finding("bool_parsing", "stream", BOOL_PARSING, "maybe"))),
        (
            {"temperature": "hot"},
            found(
                finding(
                    "float_parsing",
                    "temperature",
                    "Input should be a valid number, unable to parse string as a number",
                    "hot",
                )
            ),
        ),
        (
            {"stop": 5},
            found(
                finding("string_type", "stop", "Input should be a valid string", "5"),
                finding("list_type", "stop", "Input should be a valid list", "5"),
            ),
        ),
        (
            {"stop": ["a", "b", "c", "d", "e"]},
            found(
                finding("string_type", "stop", "Input should be a valid string", "<list of 5 items>"),
                finding(
                    "too_long",
                    "stop",
                    "List should have at most 4 items after validation, not 5",
                    "<list of 5 items>",
                    "{'field_type': 'List', 'max_length': 4, 'actual_length': 5}",
                ),
            ),
        ),
        (
            {"stream": True, "stream_options": 5},
            found(
                finding(
                    "model_attributes_type",
                    "stream_options",
                    "Input should be a valid dictionary or object to extract fields from",
                    "5",
                )
            ),
        ),
    ],
)
def test_wrong_types_are_found_in_pydantics_words(fields, text):
    error = refused(chat, **fields)
    assert error == {"message": text, "type": "Bad Request", "param": f"body.{list(fields)[-1]}", "code": 400}


def test_every_wrong_field_is_told():
    error = refused(completion, max_tokens="a", n="b", seed="c")
    assert error["message"].startswith("3 validation errors:\n")
    assert error["param"] == "body.max_tokens"


@pytest.mark.parametrize(
    ("ask", "fields", "text", "param"),
    [
        (
            chat,
            {"max_tokens": 0},
            "max_tokens must be at least 1, got 0. (parameter=max_tokens, value=0)",
            "max_tokens",
        ),
        (
            chat,
            {"max_completion_tokens": -1},
            "max_tokens must be at least 1, got -1. (parameter=max_tokens, value=-1)",
            "max_tokens",
        ),
        (
            chat,
            {"temperature": 3},
            "temperature must be in [0, 2], got 3.0. (parameter=temperature, value=3.0)",
            "temperature",
        ),
        (chat, {"top_p": 0}, "top_p must be in (0, 1], got 0.0. (parameter=top_p, value=0.0)", "top_p"),
        (chat, {"n": 0}, "n must be at least 1, got 0.", None),
        (
            chat,
            {"min_tokens": 5, "max_tokens": 2},
            "min_tokens must be less than or equal to max_tokens=2, got 5.",
            None,
        ),
        (chat, {"min_tokens": -1}, "min_tokens must be greater than or equal to 0, got -1.", None),
        (chat, {"presence_penalty": 9}, "presence_penalty must be in [-2, 2], got 9.0.", None),
        (chat, {"frequency_penalty": -9}, "frequency_penalty must be in [-2, 2], got -9.0.", None),
        (chat, {"repetition_penalty": 0}, "repetition_penalty must be greater than zero, got 0.0.", None),
        (chat, {"top_k": -5}, "top_k must be 0 (disable), or at least 1, got -5.", None),
        (chat, {"stop": ""}, "stop cannot contain an empty string.", None),
        (
            chat,
            {"stream_options": {"include_usage": True}},
            "Stream options can only be defined when `stream=True`. (parameter=stream_options)",
            "stream_options",
        ),
        (
            chat,
            {"messages": []},
            "Cannot apply chat template to an empty conversation. Provide at least one message.",
            None,
        ),
        (
            chat,
            {"tools": [{"type": "function"}]},
            '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set',
            None,
        ),
        (
            completion,
            {"prompt": ""},
            "Either prompt or prompt_embeds must be provided and non-empty. (parameter=prompt)",
            "prompt",
        ),
        (completion, {"prompt": []}, "You must pass at least one prompt", None),
        (completion, {"prompt": [99999]}, "Token id 99999 is out of vocabulary", None),
    ],
)
def test_values_out_of_range_are_refused_in_vllms_words(ask, fields, text, param):
    assert refused(ask, **fields) == {"message": text, "type": "BadRequestError", "param": param, "code": 400}


def test_picture_is_refused_by_a_model_of_text():
    parts = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": "data:,"}}]
    error = refused(chat, messages=[{"role": "user", "content": parts}])
    assert error["message"] == "mistral is not a multimodal model"


@pytest.mark.parametrize(
    ("length", "text"), [(LENGTH, "max_tokens must be at least 1, got 0."), (LENGTH + 5, "at least 1025 input tokens")]
)
def test_prompt_that_leaves_no_room_is_refused(length, text):
    assert text in refused(completion, [5] * length)["message"]


def test_prompt_that_leaves_room_for_one_token_is_served():
    assert completion([5] * (LENGTH - 1)).limits.max_tokens == 1


@pytest.mark.parametrize("name", NOT_SIMULATED)
def test_what_would_be_missing_from_the_answer_is_refused(name):
    value = "required" if name == "tools" else [5]
    error = refused(completion, **{name: value, "tool_choice": "required"})
    assert error["message"] == f"`{name}` is not simulated by this replica."
    assert (error["type"], error["param"], error["code"]) == ("BadRequestError", name, 400)


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 2},
        {"response_format": {"type": "json_object"}},
        {"logprobs": 0},
        {"prompt": ["a", "b"]},
        {"prompt": [[5], [6]]},
    ],
)
def test_other_things_that_are_not_simulated_are_refused_too(fields):
    assert "not simulated by this replica" in refused(completion, **fields)["message"]


@pytest.mark.parametrize(
    "fields",
    [
        {"logprobs": False, "top_logprobs": 0, "logit_bias": {}, "stop_token_ids": [], "bad_words": [], "tools": None},
        {"response_format": {"type": "text"}, "n": 1, "user": "x", "parallel_tool_calls": True},
        {"tools": [{"type": "function"}], "tool_choice": "none"},
    ],
)
def test_asking_for_nothing_special_is_fine(fields):
    assert chat(**fields).prompt == "What is a pod?"


@pytest.mark.parametrize(
    ("body", "error"), [(b"\xff", Refused), (b"null", ApiError), (b"", ApiError), (b"[]", ApiError), (b"{", ApiError)]
)
def test_what_is_no_object_is_refused(body, error):
    with pytest.raises(error) as found:
        parse(body, True, "mistral", LENGTH)
    assert found.value.status == 400


def test_tokenize_counts_what_a_prompt_costs():
    for body, cost in (({"messages": MESSAGES}, chat().prompt_tokens), ({"prompt": "one two"}, 3)):
        answer = tokenize.answer(json.dumps({**body, "return_token_strs": True}).encode(), "mistral", LENGTH)
        assert list(answer) == ["count", "max_model_len", "tokens", "token_strs"]
        assert answer["count"] == len(answer["tokens"]) == len(answer["token_strs"]) == cost
        assert all(0 <= token < tokens.VOCABULARY for token in answer["tokens"])


def test_the_same_text_has_the_same_ids():
    def ids(text: str) -> list[int]:
        body = {"prompt": text, "add_special_tokens": False}
        return tokenize.answer(json.dumps(body).encode(), "mistral", LENGTH)["tokens"]

    assert ids("one two") == ids("one two")
    assert ids("one two three")[:2] == ids("one two")
    assert ids("one")[0] != ids("two")[0]


def test_tokenize_without_a_text_tells_both_ways_to_give_one():
    with pytest.raises(ApiError) as found:
        tokenize.answer(b"{}", "mistral", LENGTH)
    assert found.value.body["error"]["message"].startswith("2 validation errors:")
