"""The API key of one load run: signed, not stored, so that every web process takes it until it expires."""

from __future__ import annotations

from collections.abc import Callable

from webapp.gateway.keys import Key
from webapp.identity import Signer

PURPOSE = "spike-key"


def make(signer: Signer, spike: str, until_ms: int) -> str:
    return signer.sign(PURPOSE, f"spike-{spike}.{until_ms}")


def passes(signer: Signer, clock: Callable[[], int]) -> Callable[[str], Key | None]:
    """For the keyring: the key, named `spike-…`, that a run's pass stands for; None for what is not one, or no longer.
    `clock` gives milliseconds since the epoch."""

    def find(secret: str) -> Key | None:
        text = signer.verify(PURPOSE, secret)
        if text is None:
            return None
        name, _, until_ms = text.rpartition(".")
        return Key(name, hash="", created_ms=0) if clock() < int(until_ms) else None

    return find
