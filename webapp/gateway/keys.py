"""API keys: how the store keeps them, and the ring of those that this process takes.

A key is shown once, when it is made; `server/keys/{name}.json` has its hash. A revoked one stays there, so that its
name in logs never means another.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import re
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace

from webapp.gateway.errors import NoKey
from webapp.log.store import AlreadyExists, NotFound, Store, StoreError

log = logging.getLogger("crowdspike.keys")

PREFIX = "csk_"  # lets secret scanners and people see what it is
FOLDER = "server/keys/"
REREAD_EVERY_S = 10.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class BadName(Exception):
    """No key can have this name, or one has it already."""


class NoSuchKey(Exception):
    """No key of this name was ever made."""


@dataclass(frozen=True, slots=True)
class Key:
    """What is known of an API key; without figures for a minute it has no limit."""

    name: str
    hash: str
    created_ms: int
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    revoked_ms: int | None = None

    def to_json(self) -> bytes:
        return json.dumps({k: v for k, v in asdict(self).items() if v is not None}).encode()

    @classmethod
    def from_json(cls, raw: bytes) -> Key:
        """Raises ValueError for what `to_json` did not write."""
        try:
            key = cls(**json.loads(raw))
        except TypeError as error:
            raise ValueError(f"not an API key: {error}") from None
        numbers = (key.requests_per_minute, key.tokens_per_minute, key.revoked_ms)
        if not isinstance(key.hash, str) or not all(n is None or type(n) is int for n in numbers):
            raise ValueError("not an API key: a field has the wrong type")
        return key


def digest(secret: str) -> str:
    """What the store keeps of a key. A slow hash protects what can be guessed; nobody guesses 256 random bits."""
    return hashlib.sha256(secret.encode()).hexdigest()


async def add(
    store: Store,
    name: str,
    now_ms: int,
    requests_per_minute: int | None = None,
    tokens_per_minute: int | None = None,
) -> str:
    """A new key, which cannot be had again. Raises BadName, StoreError."""
    secret = PREFIX + secrets.token_urlsafe(32)
    key = Key(name, digest(secret), now_ms, requests_per_minute, tokens_per_minute)
    try:
        await store.create(_place(name), key.to_json())
    except AlreadyExists:
        raise BadName(f"There is or was a key {name!r}. Choose a name that no log knows yet.") from None
    return secret


async def revoke(store: Store, name: str, now_ms: int) -> None:
    """Every process stops taking it within REREAD_EVERY_S. Raises BadName, NoSuchKey, StoreError."""
    try:
        key = Key.from_json(await store.get(_place(name)))
    except NotFound:
        raise NoSuchKey(f"There is no key {name!r}.") from None
    except ValueError:  # it opens nothing as it is, and should stay so
        key = Key(name, "", now_ms)
    if key.revoked_ms is None:
        await store.put(_place(name), replace(key, revoked_ms=now_ms).to_json())


async def read(store: Store) -> list[Key]:
    """All keys, revoked ones too, in the order of their names. One that can't be understood is left out."""
    places = [place for place in await store.list(FOLDER) if place.endswith(".json")]
    found: list[Key] = []
    for place, raw in zip(places, await asyncio.gather(*map(store.get, places), return_exceptions=True), strict=True):
        if isinstance(raw, NotFound):
            continue
        if isinstance(raw, BaseException):
            raise raw
        try:
            found.append(Key.from_json(raw))
        except ValueError as error:
            log.warning("%s: %s", place, error)
    return found


class Keyring:
    """The keys that are good now, read again every `reread_every_s`. While the store fails, the last ones known.
    `passes` gives the key that a signed pass stands for, which no store knows, or None."""

    def __init__(
        self,
        store: Store,
        reread_every_s: float = REREAD_EVERY_S,
        passes: Callable[[str], Key | None] = lambda secret: None,
    ) -> None:
        self._store = store
        self._reread_every_s = reread_every_s
        self._passes = passes
        self._by_hash: dict[str, Key] = {}
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read the keys, then go on in the background. Raises StoreError."""
        assert self._task is None, "started twice"
        await self._read()
        self._task = asyncio.create_task(self._watch())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    def find(self, authorization: str) -> Key:
        """The key in an `Authorization` header. Raises NoKey.

        Found by its hash: how long that takes tells of the hash, from which no key can be made.
        """
        scheme, _, secret = authorization.partition(" ")
        secret = secret.strip()
        if scheme.lower() != "bearer" or not secret:
            raise NoKey(f"an API key is needed, as `Authorization: Bearer {PREFIX}…`")
        key = self._by_hash.get(digest(secret)) or self._passes(secret)
        if key is None:
            raise NoKey("this API key is not known here, or was revoked")
        return key

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._reread_every_s)
            try:
                await self._read()
            except StoreError as error:
                log.warning("API keys stay as they are: %s", error)

    async def _read(self) -> None:
        self._by_hash = {key.hash: key for key in await read(self._store) if key.revoked_ms is None}


def _place(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise BadName(f"{name!r} is no name for a key: up to 64 letters, digits, '_', '-' and '.', no '.' first.")
    return f"{FOLDER}{name}.json"
