"""A reply is read as it was sent, however the network cut it, and what went wrong with it is told in its own words."""

from __future__ import annotations

import json
from pathlib import Path

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.spike.plan import Prompt
from loadgen.spike.reply import COMPLETIONS, ERROR_CHARS, Reply, request

RECORDED = Path(__file__).parents[1] / "inference" / "recorded"
DONE = b"data: [DONE]\n\n"
STREAM = b"content-type: text/event-stream; charset=utf-8\r\n"
ROLE = {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}


def said(text: str, **rest: object) -> bytes:
    return event({"choices": [{"index": 0, "delta": {"content": text}}], **rest})


def event(data: dict[str, object]) -> bytes:
    return b"data: " + json.dumps(data, ensure_ascii=False).encode() + b"\n\n"


def usage(completion_tokens: int) -> dict[str, object]:
    return {"usage": {"prompt_tokens": 9, "completion_tokens": completion_tokens}}


def chunked(*parts: bytes, status: str = "200 OK", head: bytes = STREAM) -> bytes:
    chunks = b"".join(f"{len(part):X}\r\n".encode() + part + b"\r\n" for part in parts)
    return f"HTTP/1.1 {status}\r\n".encode() + head + b"transfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


def sized(body: bytes, status: str = "200 OK", head: bytes = STREAM) -> bytes:
    return f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n".encode() + head + b"\r\n" + body


def closed(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\n" + STREAM + b"connection: close\r\n\r\n" + body


def read(*pieces: bytes, eof: bool = False) -> Reply:
    """Each piece comes a second after the one before it, the first at second 1."""
    reply = Reply()
    for second, piece in enumerate(pieces, 1):
        reply.feed(piece, float(second))
    if eof:
        reply.eof(len(pieces) + 1.0)
    return reply


def seen(reply: Reply) -> dict[str, object]:
    return {name: value for name, value in vars(reply).items() if not name.startswith("_")}


WHOLE = [event(ROLE), said("naïve 🙂"), b": still here\n\n", said(" café"), event({"choices": [], **usage(7)}), DONE]
ANSWERS = {
    "chunked": chunked(*WHOLE),
    "in odd chunks": chunked(*(b"".join(WHOLE)[i : i + 7] for i in range(0, len(b"".join(WHOLE)), 7))),
    "with a length": sized(b"".join(WHOLE)),
    "until the connection closes": closed(b"".join(WHOLE)),
    "after an early hint": b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" + chunked(*WHOLE),
    "with carriage returns": chunked(b"".join(WHOLE).replace(b"\n", b"\r\n")),
    "refused": sized(
        b'{"error":{"message":"too many"}}', "429 Too Many Requests", b"content-type: application/json\r\n"
    ),
    "broken off": chunked(*WHOLE)[:-60],
    "not HTTP": b"SSH-2.0-OpenSSH_9.6\r\n",
}


@given(st.data())
@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS.keys())
def test_any_split_of_the_bytes_reads_the_same(answer: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(1, len(answer) - 1))))
    whole, split = Reply(), Reply()
    whole.feed(answer, 5.0)
    for start, end in zip([0, *cuts], [*cuts, len(answer)], strict=True):
        if not split.done:
            split.feed(answer[start:end], 5.0)
    whole.eof(6.0)
    split.eof(6.0)
    assert seen(split) == seen(whole)


@pytest.mark.parametrize("kind", ["chunked", "in odd chunks", "with a length", "after an early hint"])
def test_a_whole_stream_leaves_its_connection_for_the_next(kind: str) -> None:
    reply = read(ANSWERS[kind])
    assert (reply.status, reply.error, reply.done, reply.reusable) == (200, "", True, True)
    assert (reply.prompt_tokens, reply.completion_tokens, len(reply.gaps_ms)) == (9, 7, 1)


def test_a_stream_until_the_connection_closes_is_whole() -> None:
    reply = read(ANSWERS["until the connection closes"], eof=True)
    assert (reply.error, reply.done, reply.reusable, reply.ended_s) == ("", True, False, 1.0)


def test_headers_tokens_and_end_have_the_times_at_which_they_came() -> None:
    head, _, body = chunked(event(ROLE), said("a"), said("b"), said("c"), DONE).partition(b"\r\n\r\n")
    chunks = body.split(b"\n\n\r\n")
    reply = read(head + b"\r\n\r\n", *(chunk + b"\n\n\r\n" for chunk in chunks[:-1]), chunks[-1])
    assert (reply.headers_s, reply.first_s, reply.ended_s) == (1.0, 3.0, 6.0)
    assert reply.gaps_ms == [1000.0, 1000.0]
    assert reply.reusable


def test_it_is_over_with_done_though_the_last_chunk_comes_later() -> None:
    answer = chunked(said("a"), DONE)
    reply = read(answer[:-5])
    assert (reply.ended_s, reply.done) == (1.0, False)
    reply.fail("no answer in time", 9.0)
    assert (reply.ended_s, reply.error, reply.done, reply.reusable) == (1.0, "", True, False)


def test_the_role_alone_is_no_token() -> None:
    reply = read(chunked(event(ROLE), DONE))
    assert (reply.first_s, reply.error) == (None, "")


@pytest.mark.parametrize(
    "choice",
    [
        {"text": "a"},
        {"delta": {"content": "a"}},
        {"delta": {"reasoning": "a"}},
        {"delta": {"reasoning_content": "a"}},
        {"delta": {"tool_calls": [{"index": 0}]}},
    ],
)
def test_each_kind_of_text_is_a_token(choice: dict[str, object]) -> None:
    assert read(chunked(event({"choices": [{"index": 0, **choice}]}), DONE)).first_s == 1.0


def test_a_token_without_text_is_a_delivery_where_the_server_counts_in_each_event() -> None:
    counting = [said("a", **usage(1)), said("", **usage(2)), said("b", **usage(4)), event({"choices": [], **usage(4)})]
    reply = read(chunked(*counting, DONE))
    assert (len(reply.gaps_ms), reply.completion_tokens) == (2, 4)
    assert len(read(chunked(said("a"), said(""), said("b"), DONE)).gaps_ms) == 1


@pytest.mark.parametrize(("name", "usage", "gaps"), [("chat_stream.http", 4, 3), ("comp_stream.http", None, 2)])
def test_what_vllm_sent_is_read(name: str, usage: int | None, gaps: int) -> None:
    head, _, body = (RECORDED / name).read_bytes().partition(b"\r\n\r\n")  # curl had taken the chunks apart
    reply = read(head.replace(b"transfer-encoding: chunked", b"connection: close") + b"\r\n\r\n" + body, eof=True)
    assert (reply.status, reply.error, reply.first_s) == (200, "", 1.0)
    assert (reply.completion_tokens, len(reply.gaps_ms)) == (usage, gaps)


def test_what_vllm_refused_is_told_in_its_words() -> None:
    reply = read((RECORDED / "err404.http").read_bytes())
    assert reply.status == 404
    assert reply.error == "404 The model `nope` does not exist. Valid aliases: mistral."


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b'{"error":{"message":"too many\\n requests","code":429}}', "429 too many requests"),
        (b'{"error":"busy"}', "429 busy"),
        (b'{"detail":"Not Found"}', "429 Not Found"),
        (b'{"detail":[{"loc":["body"]}]}', '429 [{"loc": ["body"]}]'),
        (b'{"title":"Slow down","status":429}', "429 Slow down"),
        (b"<html>nginx</html>", "429"),
        (b"", "429"),
    ],
)
def test_a_refusal_says_its_status_and_why(body: bytes, error: str) -> None:
    reply = read(sized(body, "429 Too Many Requests", b""))
    assert (reply.status, reply.error, reply.first_s, reply.done) == (429, error, None, True)


def test_a_long_error_is_cut() -> None:
    reply = read(sized(json.dumps({"message": "x" * 5000}).encode(), "500 Oops"))
    assert len(reply.error) == ERROR_CHARS


def test_an_error_event_after_tokens_is_a_failure() -> None:
    reply = read(chunked(said("a"), event({"error": {"message": "lost the replica", "code": 502}}), DONE))
    assert (reply.status, reply.error, reply.first_s, reply.ended_s) == (200, "lost the replica", 1.0, 1.0)
    assert reply.point(0, "probe", due_s=None, sent_s=0.0).outcome == "failed"


def test_a_refusal_that_comes_as_the_first_event_is_a_refusal() -> None:
    reply = read(chunked(event({"error": {"message": "busy", "code": 503}}), DONE))
    assert (reply.status, reply.error) == (503, "busy")
    assert reply.point(0, "probe", due_s=None, sent_s=0.0).outcome == "refused"


@pytest.mark.parametrize(
    ("answer", "eof", "error"),
    [
        (b"", True, "connection closed before an answer"),
        (b"HTTP/1.1 200 OK\r\ncontent-ty", True, "connection closed before an answer"),
        (chunked(said("a")), False, "stream ended early"),
        (closed(said("a") + b'data: {"choices"'), True, "stream ended early"),
        (chunked(said("a"))[:-5], True, "connection closed within the answer"),
        (sized(said("a"))[:-5], True, "connection closed within the answer"),
        (chunked(b"data: tokens!\n\n"), False, "an event that is no completion's"),
        (chunked(b"data: [1]\n\n"), False, "an event that is no completion's"),
        (chunked(b'data: {"choices":[7]}\n\n'), False, "an event that is no completion's"),
        (chunked(b"data: \xff\xfe\n\n"), False, "an event that is no completion's"),
        (chunked(b"data: " + b"x" * (1 << 21)), False, "an event without an end"),
        (sized(b"<h1>Log in</h1>", head=b"content-type: text/html\r\n"), False, "no completion but text/html"),
        (sized(b'{"object":"list"}', head=b"content-type: application/json\r\n"), False, "no completion but appl"),
        (sized(b"", "302 Found", b"location: /login\r\n"), False, "302"),
        (b"\x15\x03\x01\x00\x02\x02\x16", False, "not HTTP"),
    ],
)
def test_what_is_no_whole_answer_is_an_error(answer: bytes, eof: bool, error: str) -> None:
    reply = read(answer, eof=eof)
    assert reply.error.startswith(error)
    assert reply.done
    assert reply.ended_s is not None


def test_an_answer_that_is_no_stream_is_served_without_a_first_token() -> None:
    body = json.dumps({"choices": [{"message": {"content": "all at once"}}], **usage(3)}).encode()
    reply = read(sized(body, head=b"content-type: application/json\r\n"))
    assert (reply.error, reply.first_s, reply.completion_tokens, reply.reusable) == ("", None, 3, True)


def test_done_without_a_line_end_is_done() -> None:
    assert read(closed(said("a") + b"data: [DONE]"), eof=True).error == ""
    assert read(closed(said("a") + b"data: [DONE]\n"), eof=True).error == ""


@pytest.mark.parametrize("after", [b"HTTP/1.1 408 Request Timeout\r\n\r\n", None])
def test_a_connection_that_says_more_or_closes_is_not_used_again(after: bytes | None) -> None:
    reply = read(ANSWERS["chunked"])
    assert reply.reusable
    if after is None:
        reply.eof(2.0)
    else:
        reply.feed(after, 2.0)
    assert not reply.reusable
    assert reply.error == ""


def test_only_a_server_that_keeps_the_connection_has_it_used_again() -> None:
    assert not read(chunked(*WHOLE, head=STREAM + b"connection: close\r\n")).reusable


def test_a_point_has_all_that_was_read() -> None:
    head, _, body = chunked(said("a"), said("b"), event({"choices": [], **usage(2)}), DONE).partition(b"\r\n\r\n")
    reply = read(head + b"\r\n\r\n", body)
    point = reply.point(4, "locust", due_s=0.25, sent_s=0.5, cell=2)
    assert (point.n, point.by, point.due_s, point.sent_s, point.cell) == (4, "locust", 0.25, 0.5, 2)
    assert (point.headers_s, point.first_s, point.first_by, point.ended_s) == (1.0, 2.0, "token", 2.0)
    assert (point.status, point.outcome, point.completion_tokens, point.gaps_ms) == (200, "served", 2, (0.0,))


class Asked:
    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.body = b""
        self.complete = False

    def on_url(self, url: bytes) -> None:
        self.path = url.decode()

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode()] = value.decode()

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.complete = True


def parsed(asked_for: bytes) -> tuple[Asked, dict[str, object]]:
    asked = Asked()
    parser = httptools.HttpRequestParser(asked)
    parser.feed_data(asked_for)
    assert asked.complete
    return asked, json.loads(asked.body)


def test_a_request_asks_for_a_stream_and_its_usage_and_says_who_sends() -> None:
    asked, body = parsed(request("h:8", "mistral", Prompt("Wie groß?", 20), source="locust", api_key="sk-1"))
    assert asked.path == "/v1/chat/completions"
    assert asked.headers["host"] == "h:8"
    assert asked.headers["x-load-source"] == "locust"
    assert asked.headers["authorization"] == "Bearer sk-1"
    assert "connection" not in asked.headers
    assert body == {
        "model": "mistral",
        "messages": [{"role": "user", "content": "Wie groß?"}],
        "max_tokens": 20,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_a_request_may_be_for_plain_completions_of_an_exact_length_and_the_connections_last() -> None:
    one = request("h", "m", Prompt("a", 5), source="k6", path=COMPLETIONS, ignore_eos=True, keep_alive=False)
    asked, body = parsed(one)
    assert (asked.path, asked.headers["connection"]) == ("/v1/completions", "close")
    assert "authorization" not in asked.headers
    assert (body["prompt"], body["ignore_eos"]) == ("a", True)
