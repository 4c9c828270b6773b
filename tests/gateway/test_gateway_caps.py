"""The caps on a request, without HTTP."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webapp.gateway.caps import TOKEN_CHARS, Caps, capped
from webapp.gateway.errors import BadField
from webapp.gateway.ticket import CHAT, COMPLETIONS

CAPS = Caps(prompt_chars=100, max_tokens=50)
HI = {"messages": [{"role": "user", "content": "Hi"}]}


def refused(body: dict, path: str = CHAT) -> tuple[str, str]:
    with pytest.raises(BadField) as caught:
        capped(body, path, CAPS)
    error = json.loads(caught.value.body())["error"]
    assert (error["code"], error["type"]) == (400, "invalid_request_error")
    return error["param"], error["message"]


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_limit_of_an_answer_is_kept_as_it_is_up_to_the_cap(name):
    for value in (-1, 0, 1, 50):  # what is too small is for the replica to refuse
        body = {**HI, name: value}
        assert capped(body, CHAT, CAPS) is body


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_limit_over_the_cap_is_refused_with_the_cap_whatever_the_other_says(name):
    other = {"max_tokens", "max_completion_tokens"} - {name}
    assert refused({**HI, other.pop(): 1, name: 51}) == (name, f"{name} must be at most 50, got 51")


@pytest.mark.parametrize("value", ["51", "5", 5.0, 1e9, True, [5], {}])
def test_limit_that_a_lenient_server_would_take_for_a_number_is_refused(value):
    assert refused({**HI, "max_tokens": value}) == ("max_tokens", "max_tokens must be an integer of at most 50")


@pytest.mark.parametrize("nothing", [{}, {"max_tokens": None}, {"max_tokens": None, "max_completion_tokens": None}])
def test_answer_without_a_limit_gets_one(nothing):
    assert capped({**HI, **nothing}, CHAT, CAPS)["max_tokens"] == 50
    assert capped({"prompt": "Hi", **nothing}, COMPLETIONS, CAPS)["max_tokens"] == 16
    assert capped({"prompt": "Hi", **nothing}, COMPLETIONS, Caps(max_tokens=9))["max_tokens"] == 9


def test_completions_know_no_max_completion_tokens():
    assert capped({"prompt": "Hi", "max_completion_tokens": 999}, COMPLETIONS, CAPS)["max_tokens"] == 16


@pytest.mark.parametrize("name", ["n", "best_of"])
def test_several_answers_to_one_request_are_refused(name):
    for value in (2, 0, "2", 1.5, [1]):
        assert refused({**HI, name: value})[0] == name
    for value in (1, None):
        assert capped({**HI, name: value, "max_tokens": 5}, CHAT, CAPS)[name] == value


@pytest.mark.parametrize("prompt", [["a", "b"], [[1], [2]], ["a", 1]])
def test_several_prompts_in_one_request_are_refused(prompt):
    assert refused({"prompt": prompt}, COMPLETIONS)[0] == "prompt"


@pytest.mark.parametrize(
    "prompt", ["x" * 100, ["x" * 100], [7] * (100 // TOKEN_CHARS), [[7] * (100 // TOKEN_CHARS)], [], None]
)
def test_one_prompt_of_just_the_cap_passes_in_any_form(prompt):
    assert capped({"prompt": prompt}, COMPLETIONS, CAPS)["prompt"] == prompt


@pytest.mark.parametrize("prompt", ["x" * 101, ["x" * 101], [7] * 26, [[7] * 26]])
def test_prompt_over_the_cap_is_refused_in_any_form(prompt):
    param, message = refused({"prompt": prompt}, COMPLETIONS)
    assert param == "prompt"
    assert "at most 100" in message


TEXT = "x" * 101


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"role": "user", "content": "x" * 50}] * 2},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": TEXT}]}]},
        {"messages": [{"role": "user", "content": {"odd": [[TEXT]]}}]},
        {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": TEXT}}]}]},
        {"messages": TEXT},
        {"messages": {"0": TEXT}},
        {**HI, "tools": [{"function": {"parameters": {"properties": {TEXT: {}}}}}]},
        {**HI, "documents": [{"text": TEXT}]},
        {**HI, "chat_template_kwargs": {"system": TEXT}},
    ],
)
def test_long_prompt_is_found_wherever_it_hides(body):
    assert refused(body)[0] == "messages"


nested = st.recursive(
    st.text(max_size=60) | st.none() | st.booleans(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
)


@given(nested)
def test_every_character_counts_at_any_depth(content):
    def count(value) -> int:
        if isinstance(value, str):
            return len(value)
        if isinstance(value, dict):
            return sum(len(k) + count(v) for k, v in value.items())
        if isinstance(value, list):
            return sum(map(count, value))
        return 0 if value is None else TOKEN_CHARS

    body, chars = {"messages": content, "max_tokens": 1}, count(content)
    assert capped(body, CHAT, Caps(prompt_chars=max(chars, 1))) is body
    if chars > 1:
        with pytest.raises(BadField, match=f"{chars} characters"):
            capped(body, CHAT, Caps(prompt_chars=chars - 1))


def test_what_needs_no_cap_is_left_to_the_replica():
    for body in ({}, {"messages": 7}, {"messages": None}, {"temperature": "hot"}, {"stop": [TEXT]}, {"stream": "yes"}):
        assert capped({**body, "max_tokens": 5}, CHAT, CAPS) == {**body, "max_tokens": 5}
