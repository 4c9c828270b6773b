import json

from hypothesis import given
from hypothesis import strategies as st

from webapp.gateway.sse import cut, ends_stream, has_token, payloads, text_of


@given(st.lists(st.integers(1, 9)), st.sampled_from([b"\n\n", b"\r\n\r\n"]), st.integers(1, 11))
def test_cutting_loses_nothing_and_gives_whole_events(numbers, gap, size):
    stream = b"".join(b"data: " + b"x" * n + gap for n in numbers)
    whole, rest = b"", b""
    for i in range(0, len(stream), size):
        events, rest = cut(rest + stream[i : i + size])
        assert events == b"" or events.endswith(gap)
        whole += events
    assert (whole, rest) == (stream, b"")


def test_role_alone_is_no_token_but_text_tools_reasoning_and_the_end_are():
    def chat(finish_reason=None, **delta):
        return {"choices": [{"delta": delta, "finish_reason": finish_reason}]}

    assert not has_token(chat(role="assistant", content=""))
    assert not has_token({"choices": [], "usage": {}})
    assert not has_token({"choices": [{"text": ""}]})
    for payload in (
        chat(content="a"),
        chat(tool_calls=[{}]),
        chat(reasoning="a"),
        chat("stop"),
        {"choices": [{"text": "a"}]},
    ):
        assert has_token(payload)


def test_payloads_are_the_json_objects_only():
    events = b': ping\n\ndata: {"a":1}\n\ndata: broken\n\ndata: [1]\n\nevent: x\r\ndata:{"b":2}\r\n\r\ndata: [DONE]\n\n'
    assert list(payloads(events)) == [{"a": 1}, {"b": 2}]


def test_text_is_of_chat_and_of_plain_completions():
    assert text_of({"choices": [{"delta": {"content": "a"}}]}) == "a"
    assert text_of({"choices": [{"text": "b"}]}) == "b"
    assert text_of({"choices": [{"delta": {"content": None}}]}) == text_of({"choices": []}) == ""


def test_done_counts_only_at_the_end():
    said = json.dumps({"choices": [{"delta": {"content": "[DONE]"}}], "padding": "x" * 40}).encode()
    assert not ends_stream(b"data: " + said + b"\n\n")
    assert ends_stream(b"data: " + said + b"\n\ndata: [DONE]\n\n")
    assert not ends_stream(b"")
