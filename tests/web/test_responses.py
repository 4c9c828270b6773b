"""What phones send: stored before it is said to be saved, once, and only in time."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from callers import HTML, Phone, Web, web_on


async def test_an_answer_is_saved_and_counts(web: Web, code: str) -> None:
    phone = await web.join(code)
    await web.start(code, "q1")
    response = await phone.send("q1", id="my-answer-1", choice="b")
    assert response.status_code == 200
    receipt = response.json()
    assert receipt["saved"] is True
    assert receipt["response_id"] == "my-answer-1"
    assert receipt["reply"] == f"/r/{code}/replies/my-answer-1"
    await web.control(code, "reveal")
    records = [json.loads(line) for line in (await web.export(code, "jsonl")).splitlines()]
    answer = next(r for r in records if r["type"] == "answered")
    assert (answer["counts"], answer["correct"], answer["response"]) == (True, True, ["Beta"])


async def test_several_options_may_be_chosen_where_several_are_right(web: Web, code: str) -> None:
    phone = await web.join(code)
    await web.start(code, "q1")
    response = await phone.send("q1", choice=["a", "b"])
    assert (response.status_code, response.json()["fields"]) == (422, {"choice": "choose one answer only"})
    await web.start(code, "q2")
    assert (await phone.send("q2", choice=["c", "a", "c"])).status_code == 200
    assert web.front.parts.rooms.peek(code).state.answer("q2", phone.participant).choice == ("a", "c")


async def test_a_form_without_javascript_is_saved_too(web: Web, code: str) -> None:
    phone = await web.join(code)
    await web.start(code, "q2")
    body = {"response_id": "no-script-1", "activity_id": "q2", "choice": ["a", "c"]}
    response = await phone.http.post(f"/r/{code}/responses", data=body, headers=HTML)
    assert (response.status_code, response.headers["location"]) == (303, f"/r/{code}?notice=saved")
    assert "Saved" in (await phone.http.get(response.headers["location"], headers=HTML)).text
    body["response_id"] = "no-script-2"
    response = await phone.http.post(f"/r/{code}/responses", data=body, headers=HTML)
    assert (response.status_code, response.headers["location"]) == (303, f"/r/{code}?notice=answered")


async def test_the_same_response_again_gets_the_same_receipt(web: Web, code: str) -> None:
    phone = await web.join(code)
    await web.start(code, "q1")
    first = await phone.send("q1", id="same-answer", choice="b")
    again = await asyncio.gather(*(phone.send("q1", id="same-answer", choice="b") for _ in range(5)))
    await web.control(code, "close")
    late = await phone.send("q1", id="same-answer", choice="b")
    assert {r.text for r in (first, *again, late)} == {first.text}
    assert (await web.export(code, "jsonl")).count("same-answer") == 1


async def test_a_second_answer_is_refused_with_the_one_that_counts(web: Web, code: str) -> None:
    phone = await web.join(code)
    await web.start(code, "q1")
    await phone.send("q1", choice="b")
    response = await phone.send("q1", choice="a")
    assert (response.status_code, response.json()["kept"]) == (409, ["b"])


async def test_of_two_answers_at_the_same_moment_one_is_taken(web: Web, code: str) -> None:
    phone = await web.join(code)
    await web.start(code, "q1")
    responses = await asyncio.gather(*(phone.send("q1", choice=c) for c in "abc"))
    assert sorted(r.status_code for r in responses) == [200, 409, 409]


async def test_before_opening_and_after_closing_an_answer_is_refused(web: Web, code: str) -> None:
    phone = await web.join(code)
    for action in ("next", "goto"):
        await web.control(code, action, activity="q1")
    response = await phone.send("q1", choice="b")
    assert (response.status_code, response.json()["detail"]) == (409, "This is not open yet.")
    await web.control(code, "open")
    await web.control(code, "reveal")
    response = await phone.send("q1", choice="b")
    assert response.status_code == 409
    assert response.json()["detail"].startswith("Too late")


async def test_questions_end_where_the_talk_says(web: Web, code: str) -> None:
    phone, other = await web.join(code), await web.join(code)
    await web.start(code, "ask")
    statuses = [(await phone.send("ask", question=f"Why {n}?")).status_code for n in range(3)]
    assert statuses == [200, 200, 409]
    assert (await other.send("ask", question="Why?")).status_code == 200
    assert len(await web.questions(code)) == 3


async def test_questions_sent_all_at_once_end_where_the_talk_says_too(web: Web, code: str) -> None:
    phone = await web.join(code)
    await web.start(code, "ask")
    responses = await asyncio.gather(*(phone.send("ask", question=f"Why {n}?") for n in range(6)))
    assert sorted(r.status_code for r in responses) == [200, 200, 409, 409, 409, 409]
    assert len(await web.questions(code)) == 2


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({"response_id": "short", "activity_id": "q1", "choice": "b"}, {"response_id"}),
        ({"response_id": "x" * 65, "activity_id": "q1", "choice": "b"}, {"response_id"}),
        ({"response_id": "has a space", "activity_id": "q1", "choice": "b"}, {"response_id"}),
        ({"response_id": "reply-to-something", "activity_id": "q1", "choice": "b"}, {"response_id"}),
        ({"activity_id": "q1", "choice": "b"}, {"response_id"}),
        ({"response_id": ["one-response", "two-response"], "activity_id": "q1", "choice": "b"}, {"response_id"}),
        ({"response_id": "response-x", "activity_id": "q1"}, {"choice"}),
        ({"response_id": "response-x", "activity_id": "q1", "choice": "z"}, {"choice"}),
        ({"response_id": "response-x", "activity_id": "q1", "choice": {"a": 1}}, {"choice"}),
        ({"response_id": "response-x", "activity_id": "ask", "question": " \u200b "}, {"question"}),
        ({"response_id": "response-x", "activity_id": "ask", "question": "x" * 501}, {"question"}),
        ({"response_id": "response-x", "activity_id": "ask", "question": {"a": "b"}}, {"question"}),
    ],
)
async def test_what_is_wrong_with_a_response_is_said_by_field(web: Web, code: str, body: dict, fields: set) -> None:
    phone = await web.join(code)
    await web.start(code, "q1")
    response = await phone.post("responses", body)
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    assert set(response.json()["fields"]) == fields


async def test_a_survey_may_be_changed_until_it_closes(web: Web, code: str) -> None:
    phone = await web.join(code)
    await web.start(code, "survey")
    assert (await phone.send("survey", stars="3", pace="slow")).status_code == 200
    response = await phone.send("survey", stars=5, topics=["spot", "pods"], comment=" two \n\n lines\u202e ")
    assert (response.status_code, response.json()["reply"]) == (200, None)
    state = web.front.parts.rooms.peek(code).state
    kept = state.form("survey", phone.participant).values
    assert kept == {"stars": 5, "topics": ["pods", "spot"], "comment": "two\n\nlines"}


@pytest.mark.parametrize(
    ("values", "wrong"),
    [
        ({}, {"stars"}),
        ({"stars": 0}, {"stars"}),
        ({"stars": 6}, {"stars"}),
        ({"stars": "²"}, {"stars"}),
        ({"stars": 2.5}, {"stars"}),
        ({"stars": 3, "pace": "medium"}, {"pace"}),
        ({"stars": 3, "pace": ["slow", "fast"]}, set()),
        ({"stars": 3, "topics": ["pods", "clouds"]}, {"topics"}),
        ({"stars": 3, "comment": "x" * 41}, {"comment"}),
        ({"stars": 9, "pace": "x", "topics": "y", "comment": "z" * 99}, {"stars", "pace", "topics", "comment"}),
    ],
)
async def test_every_wrong_field_of_a_survey_is_named(web: Web, code: str, values: dict, wrong: set) -> None:
    phone = await web.join(code)
    await web.start(code, "survey")
    response = await phone.send("survey", **values)
    assert set(response.json().get("fields", {})) == wrong
    assert response.status_code == (422 if wrong else 200)


@pytest.mark.parametrize("activity", ["raffle", "nothing", "", "q1\0", "../q1", 5, None, ["q1", "q1"]])
async def test_what_takes_no_responses_is_not_found(web: Web, code: str, activity: object) -> None:
    phone = await web.join(code)
    await web.start(code, "raffle")
    assert (await phone.send(activity, choice="b")).status_code == 404


async def test_a_phone_cannot_send_without_end(web: Web, code: str) -> None:
    phone = await web.join(code)
    await web.start(code, "q1")
    statuses = [(await phone.send("q1", id="same-answer", choice="b")).status_code for _ in range(62)]
    assert statuses[0] == 200
    assert statuses[-1] == 429


async def test_who_has_not_joined_is_asked_to(web: Web, code: str) -> None:
    http = web.client()
    body = {"response_id": "response-x", "activity_id": "q1", "choice": "b"}
    response = await http.post(f"/r/{code}/responses", json=body)
    assert (response.status_code, response.json()["title"]) == (401, "You have not joined this room")
    response = await http.post(f"/r/{code}/responses", data=body, headers=HTML)
    assert (response.status_code, response.headers["location"]) == (303, f"/r/{code}")


async def test_two_processes_take_a_phones_answers_as_one(web: Web, code: str, tmp_path: Path) -> None:
    phone = await web.join(code)
    await web.start(code, "q1")
    await phone.send("q1", choice="b")
    async with web_on(tmp_path / "store") as other:
        there = Phone(other.client(), code)
        there.http.cookies = phone.http.cookies
        assert (await there.send("q1", choice="a")).json()["kept"] == ["b"]
        await other.start(code, "q2")
        assert (await phone.send("q2", choice=["a"])).status_code == 200  # that it is open, only the other has seen


async def test_an_answer_that_cannot_be_stored_is_not_said_to_be_saved(web: Web, code: str, tmp_path: Path) -> None:
    phone = await web.join(code)
    await web.start(code, "q1")
    (tmp_path / "store").rename(tmp_path / "away")
    (tmp_path / "store").touch()
    response = await phone.send("q1", id="keep-trying", choice="b")
    assert (response.status_code, response.headers["retry-after"]) == (503, "2")
    assert web.front.parts.rooms.peek(code).state.answer("q1", phone.participant) is None
    (tmp_path / "store").unlink()
    (tmp_path / "away").rename(tmp_path / "store")
    response = await phone.send("q1", id="keep-trying", choice="b")
    assert (response.status_code, response.json()["saved"]) == (200, True)
    assert (await web.export(code, "jsonl")).count("keep-trying") == 1
