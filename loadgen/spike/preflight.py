"""Looks at a target before anything is sent to it: is it there, is it what the run needs, will it take our requests?

What would fail each of ten thousand requests in the same way fails here, once, in words.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

SIMULATED = "crowdspike-sim"
"""How the system fingerprint of a simulated replica begins."""
ASK_S = 5.0
"""How long the one token that is asked for is waited for."""
WORDS = 200
WEB_APP = "a crowdspike"


class BadTarget(Exception):
    """Nothing can be sent there; the text says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """`url` is `http(s)://host[:port]`; `model` the one that is asked, empty where none is listed yet. `holds_headers`:
    our gateway sends them with the first token. `what` says in words what answers there."""

    url: str
    model: str
    models: tuple[str, ...]
    holds_headers: bool
    simulated: bool
    what: str


def address(url: str) -> str:
    """`http(s)://host[:port]` of what a person wrote. Many write OpenAI's base URL: its `/v1` is taken off. Raises
    BadTarget."""
    text = url.strip()
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise BadTarget(f"{url!r} is no address: {error}. Write http://host:port.") from None
    if parts.scheme not in ("http", "https") or not host:
        raise BadTarget(f"{url!r} is no address of a server. Write http://host:port or https://host.")
    if parts.username is not None:
        raise BadTarget("The address holds a name or a password. The key goes into CROWDSPIKE_SPIKE_API_KEY.")
    if parts.path.rstrip("/") not in ("", "/v1") or parts.query or parts.fragment:
        raise BadTarget(f"{url!r} has a path. Write {parts.scheme}://{parts.netloc} alone; /v1/… is added.")
    name = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{name}" + (f":{port}" if port is not None else "")


async def strangers(url: str) -> list[str]:
    """Those of the target's addresses that are neither of this machine nor of a private network. Raises BadTarget where
    its name does not resolve."""
    parts = urlsplit(url)
    try:
        found = await asyncio.get_running_loop().getaddrinfo(parts.hostname, parts.port or 80, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise BadTarget(f"The name {parts.hostname} does not resolve. Is it spelled right, and known here?") from None
    numbers = {ipaddress.ip_address(entry[4][0].partition("%")[0]) for entry in found}
    return sorted(str(number) for number in numbers if not (number.is_private or number.is_loopback))


async def look(
    url: str,
    *,
    api_key: str = "",
    insecure: bool = False,
    model: str = "",
    timeout_s: float = 10,
    room: str = "",
    presenter_token: str = "",
    phones: bool = False,
) -> Target:
    """Asks for the list of models and for one token. With a `room`, the target must be the web app that has it and take
    the `presenter_token` where there is one; with `phones`, one that wants an API key will do without. Raises
    BadTarget."""
    base = address(url)
    await strangers(base)
    headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
    checked: ssl.SSLContext | bool = False if insecure else ssl.create_default_context()
    async with httpx.AsyncClient(
        base_url=base, headers=headers, verify=checked, timeout=timeout_s, trust_env=False
    ) as http:
        if phones or room:
            await _see_web_app(http, base, room, presenter_token)
        answer = await _get(http, base, "/v1/models")
        if phones and answer.status_code in (401, 403):
            return Target(url=base, model=model, models=(), holds_headers=True, simulated=False, what=WEB_APP)
        models = _models(answer, base, bool(api_key))
        if model and models and model not in models:
            raise BadTarget(f"{base} has no model {model!r}; it has {', '.join(models)}. Choose with --model.")
        model = model or next(iter(models), "")
        holds = answer.headers.get("x-headers-held") == "until-first-token"
        what = WEB_APP if holds else "an OpenAI-compatible server"
        fingerprint = "" if holds and await _scaled_to_zero(http) else await _ask(http, base, model)
    return Target(
        url=base,
        model=model,
        models=models,
        holds_headers=holds,
        simulated=fingerprint.startswith(SIMULATED),
        what=what,
    )


async def _see_web_app(http: httpx.AsyncClient, base: str, room: str, token: str) -> None:
    answer = await _get(http, base, "/healthz")
    if answer.status_code != 200 or _json(answer).get("status") != "ok":
        raise BadTarget(f"{base} is no crowdspike web app, which this scenario needs: /healthz says {_said(answer)}.")
    if room and (await _get(http, base, f"/r/{room}/state")).status_code != 200:
        raise BadTarget(f"{base} has no room {room}. Its code is on the stage and in the console.")
    if room and token:
        answer = await _get(http, base, f"/api/rooms/{room}/questions", {"authorization": f"Bearer {token}"})
        if answer.status_code != 200:
            raise BadTarget(f"{base} does not take the presenter token ({_said(answer)}).")


def _models(answer: httpx.Response, base: str, keyed: bool) -> tuple[str, ...]:
    if answer.status_code in (401, 403):
        raise BadTarget(
            f"{base} does not take the API key ({_said(answer)})."
            if keyed
            else f"{base} wants an API key ({_said(answer)}). Set CROWDSPIKE_SPIKE_API_KEY."
        )
    cards = _json(answer).get("data")
    if answer.status_code != 200 or not isinstance(cards, list):
        raise BadTarget(f"{base} is no OpenAI-compatible server: GET /v1/models says {_said(answer)}.")
    return tuple(str(card["id"]) for card in cards if isinstance(card, dict) and "id" in card)


async def _scaled_to_zero(http: httpx.AsyncClient) -> bool:
    """Whether our gateway has no replica ready: then a request would wait, and have one started before its time."""
    try:
        return _json(await http.get("/readyz")).get("replicas_ready") == 0
    except httpx.HTTPError:
        return False


async def _ask(http: httpx.AsyncClient, base: str, model: str) -> str:
    """The system fingerprint of an answer of one token; empty where none came in time. Raises BadTarget where the
    request itself was not taken."""
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
    try:
        answer = await http.post("/v1/chat/completions", json=body, timeout=ASK_S)
    except httpx.HTTPError:
        return ""
    if 400 <= answer.status_code < 500 and answer.status_code != 429:
        raise BadTarget(f"{base} does not take a chat completion: {_said(answer)}.")
    return str(_json(answer).get("system_fingerprint") or "")


async def _get(
    http: httpx.AsyncClient, base: str, path: str, headers: Mapping[str, str] | None = None
) -> httpx.Response:
    try:
        async with asyncio.timeout(http.timeout.read):  # httpx's own begins anew with every byte
            return await http.get(path, headers=headers)
    except (TimeoutError, httpx.TimeoutException):
        raise BadTarget(f"{base} did not answer within {http.timeout.read:g} s.") from None
    except httpx.TransportError as error:
        raise BadTarget(_why(error, base)) from None


def _why(error: httpx.TransportError, base: str) -> str:
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return (
                f"The certificate of {base} is not to be trusted: {cause.verify_message}. Give the file of its "
                "authority in SSL_CERT_FILE, or take any certificate with --insecure."
            )
        if isinstance(cause, ssl.SSLError):
            return f"{base} does not speak TLS as it should ({cause.reason or cause}). Is it http:// there?"
        if isinstance(cause, ConnectionRefusedError):
            return f"{base} refused the connection. Is the server running, and is that its port?"
    if isinstance(error, httpx.RemoteProtocolError | httpx.ReadError):
        return f"{base} does not answer in HTTP ({str(error).rstrip('.') or 'it hung up'}). Is it https:// there?"
    return f"{base} can't be reached: {_deepest(causes)}."


def _causes(error: BaseException | None):
    """An error, those that it came of, and each of a group: one for every address that was tried."""
    while error is not None:
        yield error
        if isinstance(error, BaseExceptionGroup):
            for one in error.exceptions:
                yield from _causes(one)
        error = error.__cause__ or error.__context__


def _deepest(causes: list[BaseException]) -> str:
    told = [cause.strerror for cause in causes if isinstance(cause, OSError) and cause.strerror]
    return told[-1] if told else str(causes[0])


def _json(answer: httpx.Response) -> dict[str, Any]:
    try:
        found = answer.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _said(answer: httpx.Response) -> str:
    """Its status, and its message where it has one: short, and on one line."""
    found = _json(answer)
    error = found.get("error")
    message = error.get("message") if isinstance(error, dict) else error or found.get("detail") or found.get("message")
    text = re.sub(r"\s+", " ", str(message or "").strip())
    return f"{answer.status_code} {text[:WORDS]}".strip().rstrip(".")
