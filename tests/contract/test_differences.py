"""A simulated replica says that it is one, and refuses what it cannot do rather than pretend."""

from __future__ import annotations

import pytest

from tests.contract.differences import FINGERPRINT, NOT_SIMULATED
from tests.contract.requests import CHAT_PATH, MESSAGES


def test_the_fingerprint_names_the_server(server, client):
    answer = client.post(CHAT_PATH, json={"messages": MESSAGES, "max_tokens": 1}).json()
    assert answer["system_fingerprint"].startswith(FINGERPRINT[server.simulated])


@pytest.mark.parametrize("fields", NOT_SIMULATED.values(), ids=NOT_SIMULATED)
def test_what_is_not_simulated_is_refused_by_name(server, client, fields):
    answer = client.post(CHAT_PATH, json={"messages": MESSAGES, "max_tokens": 1, **fields})
    if server.simulated:
        assert answer.status_code == 400
        error = answer.json()["error"]
        assert error["type"] == "BadRequestError"
        assert "not simulated" in error["message"]
        assert error["param"] in fields
    else:
        assert answer.status_code == 200, answer.text
