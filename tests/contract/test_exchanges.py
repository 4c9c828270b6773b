"""Every answer, refusals included, is the one that vLLM 0.32 gave."""

from __future__ import annotations

import pytest

from tests.contract.exchange import Answer, comparable, recorded, send
from tests.contract.requests import ANSWERS, REFUSALS, Request

RECORDED = recorded()


def named(requests: tuple[Request, ...]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("request_", requests, ids=lambda request: request.name)


@named(ANSWERS)
def test_answers_have_the_recorded_form(client, request_):
    answer = send(client, request_)
    assert answer.status == 200, answer.body
    _assert_as_recorded(request_, answer)


@named(REFUSALS)
def test_refusals_have_the_recorded_words(client, request_):
    _assert_as_recorded(request_, send(client, request_))


def test_each_request_is_recorded_once():
    names = [request.name for request in (*ANSWERS, *REFUSALS)]
    assert names == list(RECORDED)


def _assert_as_recorded(request: Request, answer: Answer) -> None:
    expected = RECORDED[request.name]
    assert comparable(answer, request.match) == comparable(expected, request.match)
