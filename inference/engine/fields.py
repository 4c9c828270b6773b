"""The fields of a request's body, read as vLLM's request models read them: pydantic's lax rules and its words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inference.engine.wire import ApiError

Json = dict[str, Any]
MAX_REPORTED = 10
INPUT_CHARS = 200
NOT_AN_OBJECT = "Input should be a valid dictionary or object to extract fields from"
_TRUE = frozenset(("1", "on", "t", "true", "y", "yes"))
_FALSE = frozenset(("0", "off", "f", "false", "n", "no"))
_NONE = object()


class Fields:
    """One body's fields. What is wrong gathers until `check` raises all of it as one ApiError."""

    def __init__(self, data: Json, where: str = "body") -> None:
        self._data = data
        self._where = where
        self._findings: list[tuple[str, str]] = []

    def check(self) -> None:
        if self._findings:
            raise refusal(self._findings)

    def missing(self, name: str) -> None:
        self._find("missing", name, "Field required", self._data)

    def text(self, name: str) -> str | None:
        value = self._data.get(name)
        if value is None or isinstance(value, str):
            return value
        self._find("string_type", name, "Input should be a valid string", value)
        return None

    def boolean(self, name: str, nullable: bool = False) -> bool:
        value = self._data.get(name, False)
        if isinstance(value, bool) or (value is None and nullable):
            return bool(value)
        word = str(value).lower() if isinstance(value, str | int) else ""
        if isinstance(value, float) and value in (0, 1):
            word = str(int(value))
        if word in _TRUE or word in _FALSE:
            return word in _TRUE
        if isinstance(value, str | int):
            self._find("bool_parsing", name, "Input should be a valid boolean, unable to interpret input", value)
        else:
            self._find("bool_type", name, "Input should be a valid boolean", value)
        return False

    def integer(self, name: str, default: int | None = None, at_least: int | None = None) -> int | None:
        """`default` where the field is absent or null; a field that may not be null has a default that is no null."""
        value = self._data.get(name, _NONE)
        if value is _NONE or (value is None and default is None):
            return default
        found: int | None = None
        if isinstance(value, int):
            found = int(value)
        elif isinstance(value, float):
            if value.is_integer():
                found = int(value)
            else:
                text = "Input should be a valid integer, got a number with a fractional part"
                self._find("int_from_float", name, text, value)
        elif isinstance(value, str):
            try:
                found = int(value)
            except ValueError:
                text = "Input should be a valid integer, unable to parse string as an integer"
                self._find("int_parsing", name, text, value)
        else:
            self._find("int_type", name, "Input should be a valid integer", value)
        if found is not None and at_least is not None and found < at_least:
            text = f"Input should be greater than or equal to {at_least}"
            self._find("greater_than_equal", name, text, value, {"ge": at_least})
        return default if found is None else found

    def number(self, name: str) -> float | None:
        value = self._data.get(name)
        if value is None or isinstance(value, int | float):
            return None if value is None else float(value)
        if isinstance(value, str):
            try:
                return float(value)
            except ValueError:
                text = "Input should be a valid number, unable to parse string as a number"
                self._find("float_parsing", name, text, value)
        else:
            self._find("float_type", name, "Input should be a valid number", value)
        return None

    def texts(self, name: str, at_most: int) -> tuple[str, ...]:
        """A text, a list of at most so many, or nothing."""
        value = self._data.get(name)
        if value is None or isinstance(value, str):
            return () if value is None else (value,)
        self._find("string_type", name, "Input should be a valid string", value)
        if not isinstance(value, list):
            self._find("list_type", name, "Input should be a valid list", value)
        elif wrong := [(i, v) for i, v in enumerate(value) if not isinstance(v, str)]:
            for i, entry in wrong:
                self._find("string_type", f"{name}.{i}", "Input should be a valid string", entry)
        elif len(value) > at_most:
            text = f"List should have at most {at_most} items after validation, not {len(value)}"
            limits = {"field_type": "List", "max_length": at_most, "actual_length": len(value)}
            self._find("too_long", name, text, value, limits)
        else:
            self._findings.pop()  # a list of texts is as right as a text
            return tuple(value)
        return ()

    def object(self, name: str) -> Json:
        value = self._data.get(name)
        if value is None or isinstance(value, dict):
            return value or {}
        self._find("model_attributes_type", name, NOT_AN_OBJECT, value)
        return {}

    def list(self, name: str) -> list[Any]:
        value = self._data.get(name)
        if isinstance(value, list):
            return value
        self._find("list_type", name, "Input should be a valid list", value)
        return []

    def _find(
        self, kind: str, name: str, text: str, value: object, context: Mapping[str, object] | None = None
    ) -> None:
        self._findings.append(finding(kind, f"{self._where}.{name}", text, value, context))


def finding(
    kind: str, where: str, text: str, value: object, context: Mapping[str, object] | None = None
) -> tuple[str, str]:
    """Where, and what is wrong there, as pydantic and vLLM put it."""
    entry: Json = {"type": kind, "loc": where, "msg": text, "input": _shown(value)}
    if context is not None:
        entry["ctx"] = dict(context)
    return where, str(entry)


def refusal(findings: list[tuple[str, str]]) -> ApiError:
    count = len(findings)
    label = "error" if count == 1 else "errors"
    lines = [f"  {text}" for _, text in findings[:MAX_REPORTED]]
    if count > MAX_REPORTED:
        lines.append(f"  ...and {count - MAX_REPORTED} more {label}")
    return ApiError(400, "\n".join([f"{count} validation {label}:", *lines]), "Bad Request", findings[0][0])


def _shown(value: object) -> str:
    if isinstance(value, dict | list):
        return f"<{type(value).__name__} of {len(value)} items>"
    text = str(value)
    return text if len(text) <= INPUT_CHARS else text[:INPUT_CHARS] + "...[truncated]"
