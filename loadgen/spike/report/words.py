"""Figures as people read them."""

from __future__ import annotations

from loadgen.plot import number

UNKNOWN = "–"
BY = {
    "token": "first token, as the client read it",
    "held headers": "headers, which the gateway holds back until the first token",
    "probe": "first token, as a probe beside the tool read it",
    "": "not measured: the tool sees headers only",
}


def took(seconds: float | None) -> str:
    """`420 ms`, `1.92 s`; nothing finer than a hundredth of a millisecond."""
    if seconds is None:
        return UNKNOWN
    return f"{number(round(seconds * 1000, 2))} ms" if abs(seconds) < 0.9995 else f"{number(seconds)} s"


def percent(share: float | None) -> str:
    """`98.3 %`. Only all of it is 100 %, and only nothing is 0 %."""
    if share is None:
        return UNKNOWN
    text = f"{100 * share:.1f}".removesuffix(".0")
    if text == "100" and share < 1:
        return "> 99.9 %"
    if text == "0" and share > 0:
        return "< 0.1 %"
    return f"{text} %"


def count(value: float | None) -> str:
    return UNKNOWN if value is None else number(value)


def dollars(usd: float | None) -> str:
    """Cents, and digits that say something where there is less than a dollar."""
    if usd is None:
        return UNKNOWN
    return f"${usd:.2f}" if usd >= 1 or usd == 0 else f"${usd:.2g}"


def some(amount: float, one: str, several: str = "") -> str:
    """`1 request`, `3 requests`."""
    return f"{number(amount)} {one if amount == 1 else several or one + 's'}"
