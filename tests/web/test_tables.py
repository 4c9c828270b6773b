"""That tables which must be complete are: errors to HTTP, settings to their documentation."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest
from pydantic import SecretStr, ValidationError

from webapp import errors
from webapp.errors import HTTP, RETRY_AFTER_S, AppError
from webapp.gateway.caps import Caps
from webapp.gateway.line import Limits
from webapp.room.commands import CommandRefused
from webapp.settings import Settings

SETTINGS_PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


def below(cls: type) -> set[type]:
    return {cls, *(found for sub in cls.__subclasses__() for found in below(sub))}


def test_every_error_has_a_status_and_a_title() -> None:
    assert set(HTTP) == (below(AppError) - {AppError}) | {CommandRefused}
    for status, title in HTTP.values():
        assert 400 <= status < 600
        assert title


def test_what_may_work_later_says_when() -> None:
    assert {error for error, (status, _) in HTTP.items() if status in (429, 503)} == set(RETRY_AFTER_S)


def test_every_error_is_in_the_tree_that_is_drawn() -> None:
    drawn = set(re.findall(r"\b[A-Z]\w+", errors.__doc__.split("AppError", 1)[1]))
    assert {error.__name__ for error in HTTP} == drawn & {error.__name__ for error in HTTP}


def documented() -> dict[str, tuple[str, str]]:
    """Variable to default and option, as the page has them."""
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \|(.*?)\|", SETTINGS_PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return {name: (default.strip("`"), option.strip(" `")) for name, default, option in rows}


def test_every_setting_is_documented_with_its_default() -> None:
    defaults = {f"CROWDSPIKE_{name}".upper(): field.default for name, field in Settings.model_fields.items()}
    shown = {name: str(default).lower() if default not in (None, "") else "none" for name, default in defaults.items()}
    assert {name: default for name, (default, _) in documented().items()} == shown


def test_every_documented_variable_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"bool": "true", "int": "7", "float": "2.5"}
    for name in list(documented()):
        field = Settings.model_fields[name.removeprefix("CROWDSPIKE_").lower()]
        kind = getattr(field.annotation, "__name__", "str")
        chosen = get_args(field.annotation)[-1] if kind == "Literal" else values.get(kind, f"http://test/{'x' * 40}")
        monkeypatch.setenv(name, chosen)
    for name in ("INFERENCE_URL", "INFERENCE_API_KEY", "PROMETHEUS_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in Settings().model_dump().items():
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        assert text in (True, 7, 2.5, "off", "kubernetes", f"http://test/{'x' * 40}"), name


def test_every_option_that_sets_a_setting_is_documented() -> None:
    for name, (_, option) in documented().items():
        assert option in ("", f"--{name.removeprefix('CROWDSPIKE_').lower().replace('_', '-')}")


def test_several_inference_servers_may_be_given() -> None:
    given = "http://a:8000/, http://b:8000/v1\n dns+http://c:8000"
    assert Settings(inference_url=given).inference_urls == ["http://a:8000", "http://b:8000", "dns+http://c:8000"]


def test_defaults_are_those_of_the_parts_that_they_are_for() -> None:
    settings = Settings()
    caps, limits = Caps(), Limits()
    assert settings.gateway_max_body_bytes == caps.body_bytes
    assert settings.gateway_max_prompt_chars == caps.prompt_chars
    assert settings.gateway_max_tokens == caps.max_tokens
    for name in ("max_waiting", "max_wait_s", "max_in_flight_per_replica", "first_token_timeout_s"):
        assert getattr(settings, f"gateway_{name}") == getattr(limits, name)


@pytest.mark.parametrize(
    "wrong",
    [
        {"inference_url": "b:8000"},
        {"inference_url": "dns+https://b:8000"},
        {"secret": "short"},
        {"max_participants": 0},
        {"api_keys": "on"},
        {"gateway_max_tokens": 0},
    ],
)
def test_a_setting_that_cannot_work_is_refused_at_the_start(wrong: dict) -> None:
    with pytest.raises(ValidationError):
        Settings(**wrong)
