"""What an answer says, whatever the model: its length, where it ends, and that asking again gives it again."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.contract.exchange import Answer, payloads
from tests.contract.requests import CHAT_PATH, MESSAGES, PROMPT, RUNNING_USAGE, TEXT_PATH, WITH_USAGE

QUESTION = {CHAT_PATH: {"messages": MESSAGES}, TEXT_PATH: {"prompt": PROMPT}}
GREEDY = {"temperature": 0, "ignore_eos": True, "max_tokens": 30}
on_both_paths = pytest.mark.parametrize("path", [CHAT_PATH, TEXT_PATH])


@pytest.fixture
def ask(client):
    """Ask on a path; the JSON documents of the answer."""

    def ask(path: str, **fields: Any) -> list[dict[str, Any]]:
        response = client.post(path, json={"model": "mistral", **QUESTION[path], **fields})
        assert response.status_code == 200, response.text
        return payloads(Answer(200, dict(response.headers), response.text))

    return ask


def text_of(answer: list[dict[str, Any]]) -> str:
    """The text of a whole answer, or of all its chunks."""
    choices = [choice for payload in answer for choice in payload["choices"]]
    return "".join(c["text"] if "text" in c else (c.get("message") or c["delta"]).get("content", "") for c in choices)


def end_of(answer: list[dict[str, Any]]) -> tuple[str, Any]:
    """Why the answer ended: finish_reason and stop_reason."""
    choice = [choice for payload in answer for choice in payload["choices"]][-1]
    return choice["finish_reason"], choice["stop_reason"]


@on_both_paths
def test_the_same_seed_gives_the_same_answer(ask, path):
    first, second = (text_of(ask(path, seed=7, temperature=0.9, max_tokens=24)) for _ in range(2))
    assert first == second


@on_both_paths
def test_an_answer_without_eos_has_exactly_max_tokens(ask, path):
    (answer,) = ask(path, max_tokens=200, ignore_eos=True)
    assert answer["usage"]["completion_tokens"] == 200
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] + 200
    assert end_of([answer]) == ("length", None)


def test_an_answer_has_at_least_min_tokens(ask):
    (answer,) = ask(CHAT_PATH, min_tokens=150, max_tokens=150)
    assert answer["usage"]["completion_tokens"] == 150


def test_max_completion_tokens_counts_before_max_tokens(ask):
    (answer,) = ask(CHAT_PATH, max_completion_tokens=3, max_tokens=9, ignore_eos=True)
    assert answer["usage"]["completion_tokens"] == 3


def test_a_completion_has_16_tokens_unless_told(ask):
    (answer,) = ask(TEXT_PATH, ignore_eos=True)
    assert answer["usage"]["completion_tokens"] == 16


def test_an_answer_ends_where_the_context_does(ask):
    (answer,) = ask(TEXT_PATH, prompt=[5] * 1000, max_tokens=1024, ignore_eos=True)
    assert answer["usage"] | {"completion_tokens": 24, "total_tokens": 1024} == answer["usage"]
    assert end_of([answer]) == ("length", None)


@on_both_paths
def test_a_stream_says_what_the_whole_answer_says(ask, path):
    whole, streamed = ask(path, **GREEDY), ask(path, **GREEDY, **WITH_USAGE)
    assert text_of(streamed) == text_of(whole)
    assert end_of(streamed) == end_of(whole)
    counts = streamed[-1]["usage"]
    assert counts == {name: whole[0]["usage"][name] for name in counts}


@on_both_paths
def test_running_usage_grows_to_the_final_one(ask, path):
    *chunks, last = ask(path, **GREEDY, **RUNNING_USAGE)
    grown = [chunk["usage"]["completion_tokens"] for chunk in chunks]
    assert grown == sorted(grown)
    assert grown[-1] == last["usage"]["completion_tokens"] == 30
    assert all(
        c["usage"]["total_tokens"] == c["usage"]["prompt_tokens"] + n for c, n in zip(chunks, grown, strict=True)
    )


@on_both_paths
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("as_list", [False, True], ids=["string", "list"])
def test_an_answer_stops_before_the_stop_string(ask, path, streamed, as_list):
    full = text_of(ask(path, **GREEDY))
    stop = full[len(full) // 2 :][:4]
    answer = ask(path, **GREEDY, stream=streamed, stop=["\n\n\n", stop] if as_list else stop)
    assert text_of(answer) == full[: full.index(stop)]
    assert end_of(answer) == ("stop", stop)


def test_the_stop_string_stays_when_asked_for(ask):
    full = text_of(ask(CHAT_PATH, **GREEDY))
    stop = full[len(full) // 2 :][:4]
    answer = ask(CHAT_PATH, **GREEDY, stop=stop, include_stop_str_in_output=True)
    assert text_of(answer) == full[: full.index(stop)] + stop


def test_the_tokens_of_a_stopped_answer_count_up_to_the_stop(ask):
    full = text_of(ask(TEXT_PATH, **GREEDY))
    (answer,) = ask(TEXT_PATH, **GREEDY, stop=full[len(full) // 2 :][:4])
    assert 0 < answer["usage"]["completion_tokens"] < 30


def test_a_prompt_of_token_ids_counts_each(ask):
    (answer,) = ask(TEXT_PATH, prompt=list(range(5, 45)), max_tokens=1)
    assert answer["usage"]["prompt_tokens"] == 40


def test_an_echo_comes_before_the_answer(ask):
    assert text_of(ask(TEXT_PATH, **GREEDY, echo=True)) == PROMPT + text_of(ask(TEXT_PATH, **GREEDY))


@on_both_paths
def test_tokenize_counts_as_a_request_does(ask, client, path):
    tokens = client.post("/tokenize", json={"model": "mistral", **QUESTION[path]}).json()
    assert tokens["count"] == len(tokens["tokens"]) == ask(path, max_tokens=1)[0]["usage"]["prompt_tokens"]


def test_tokenize_shows_the_tokens_when_asked(client):
    asked = {"model": "mistral", "prompt": PROMPT, "return_token_strs": True}
    tokens = client.post("/tokenize", json=asked).json()
    assert len(tokens["token_strs"]) == tokens["count"]


@pytest.mark.parametrize(("path", "prefix"), [(CHAT_PATH, "chatcmpl-"), (TEXT_PATH, "cmpl-")])
def test_an_answer_carries_the_request_id(client, path, prefix):
    asked = {**QUESTION[path], "max_tokens": 1, "stream": True}
    response = client.post(path, json=asked, headers={"x-request-id": "abc-123"})
    events = response.text.split("\n\n")
    assert json.loads(events[0].removeprefix("data: "))["id"] == f"{prefix}abc-123"
