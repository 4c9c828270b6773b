"""Walks a room through its talk, so that an audience of scripted phones needs no presenter.

After a lobby each activity has an equal part of the time: most of it open, the rest closed and revealed. Where the time
is short for all, only some are opened, each for long enough that every phone can answer, and read what the LLM says.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import httpx

LEAST_S = 15.0
OPEN_SHARE = 0.75
TIMEOUT_S = 15.0
TRIES = 3
REFUSED = 409

Act = Literal["goto", "open", "close", "reveal", "draw"]


class DriveFailed(Exception):
    """The room could not be made, or not be moved on; the text has what the server said."""


@dataclass(frozen=True, slots=True)
class Step:
    """At `at_s`, in seconds from the start, this is done to an activity."""

    at_s: float
    act: Act
    activity: str


def steps(activities: Sequence[tuple[str, str]], duration_s: float, least_s: float = LEAST_S) -> list[Step]:
    """What a presenter would do, in order, for (id, kind) of each activity; the first part is the lobby's. No part is
    shorter than `least_s`, unless there is no time for two."""
    chosen = _chosen(activities, max(1, int(duration_s / least_s) - 1))
    slot_s = duration_s / (len(chosen) + 1)
    found = []
    for place, (name, kind) in enumerate(chosen, 1):
        open_s, close_s = place * slot_s, (place + OPEN_SHARE) * slot_s
        found += [Step(open_s, "goto", name), Step(open_s, "open", name), Step(close_s, "close", name)]
        if kind in ("quiz", "survey"):
            found.append(Step(close_s, "reveal", name))
        elif kind == "raffle":
            found.append(Step(close_s, "draw", name))
    return found


def _chosen(activities: Sequence[tuple[str, str]], most: int) -> list[tuple[str, str]]:
    """Of each kind one before a second of any, but a raffle last: it asks nothing of the LLM. In the talk's order."""
    kinds = [kind for _, kind in activities]
    places = sorted(range(len(kinds)), key=lambda i: (kinds[i] == "raffle", kinds.index(kinds[i]) != i, i))
    return [activities[i] for i in sorted(places[:most])]


async def make_room(target: str, token: str, *, insecure: bool = False) -> str:
    """The code of a new room of the first talk that is offered. Raises DriveFailed."""
    async with _calls(target, token, insecure) as http:
        return (await _call(http, "POST", "/present/rooms", {"talk": "0"}))["code"]


async def drive(
    target: str,
    token: str,
    code: str,
    duration_s: float,
    said: Callable[[str], None],
    *,
    insecure: bool = False,
    least_s: float = LEAST_S,
) -> None:
    """Leads the room `code` through its activities within `duration_s`, see `steps`, and tells `said` what it does. An
    act that the room refuses is told and passed over: a question may have closed by itself. Raises DriveFailed."""
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    async with _calls(target, token, insecure) as http:
        found = (await _call(http, "GET", f"/api/rooms/{code}"))["activities"]
        for step in steps([(a["id"], a["kind"]) for a in found], duration_s, least_s):
            await asyncio.sleep(began_s + step.at_s - loop.time())
            said(await _do(http, code, step))


async def _do(http: httpx.AsyncClient, code: str, step: Step) -> str:
    """What was done, in words."""
    if step.act == "close" and (await _call(http, "GET", f"/r/{code}/state"))["phase"] != "open":
        return f"{step.activity}: closed by itself"
    answer = await _ask(http, "POST", f"/present/{code}/control", {"action": step.act, "activity": step.activity})
    if answer.status_code == REFUSED:
        return f"{step.activity}: {step.act} refused: {_words(answer)}"
    _good(answer)
    return f"{step.activity}: {step.act}"


def _calls(target: str, token: str, insecure: bool) -> httpx.AsyncClient:
    headers = {"authorization": f"Bearer {token}", "accept": "application/json"}
    return httpx.AsyncClient(base_url=target, headers=headers, verify=not insecure, timeout=TIMEOUT_S, trust_env=False)


async def _call(http: httpx.AsyncClient, method: str, path: str, body: dict[str, str] | None = None) -> dict[str, Any]:
    return _good(await _ask(http, method, path, body)).json()


async def _ask(http: httpx.AsyncClient, method: str, path: str, body: dict[str, str] | None) -> httpx.Response:
    """Asks again where no answer comes or the store was slow, as a presenter would tap again."""
    why = ""
    for _ in range(TRIES):
        try:
            answer = await http.request(method, path, json=body)
        except httpx.HTTPError as error:
            why = f"{type(error).__name__} {error}".strip()
        else:
            if answer.status_code != 503:
                return answer
            why = _words(answer)
        await asyncio.sleep(1.0)
    raise DriveFailed(f"{http.base_url}: {method} {path}: {why}")


def _good(answer: httpx.Response) -> httpx.Response:
    """Raises DriveFailed."""
    if answer.status_code == 401:
        raise DriveFailed(f"{answer.url.host} does not take the presenter token. Set CROWDSPIKE_PRESENTER_TOKEN.")
    if answer.status_code >= 300:
        raise DriveFailed(f"{answer.request.method} {answer.url.path}: {_words(answer)}")
    return answer


def _words(answer: httpx.Response) -> str:
    """An answer's own words, short."""
    try:
        told = answer.json()
        return f"{answer.status_code} {told.get('detail') or told.get('title') or ''}".strip()[:200]
    except (json.JSONDecodeError, AttributeError):
        return f"{answer.status_code} {answer.text[:200]}".strip()
