"""Who is asking: signed cookies for phones, a token for the presenter. Nothing here is stored."""

from __future__ import annotations

import hashlib
import hmac
import secrets

PARTICIPANT_COOKIE = "crowdspike_phone"
PRESENTER_COOKIE = "crowdspike_presenter"


class Signer:
    """Signs with HMAC-SHA-256. All web processes of a deployment share the secret, at least 32 characters."""

    def __init__(self, secret: str) -> None:
        assert len(secret) >= 32
        self._key = secret.encode()

    def _mac(self, purpose: str, text: str) -> str:
        return hmac.new(self._key, f"{purpose}:{text}".encode(), hashlib.sha256).hexdigest()[:32]

    def sign(self, purpose: str, text: str) -> str:
        return f"{text}.{self._mac(purpose, text)}"

    def verify(self, purpose: str, signed: str) -> str | None:
        """The text if the signature is ours for this purpose, else None."""
        text, _, mac = signed.rpartition(".")
        return text if text and hmac.compare_digest(mac.encode(), self._mac(purpose, text).encode()) else None

    def presenter_token(self) -> str:
        """The default presenter token: a function of the secret, so that it need not be stored."""
        return self._mac("presenter-token", "1")[:24]


def new_participant() -> str:
    """16 hex digits, made here and never by a phone."""
    return secrets.token_hex(8)


def same(a: str, b: str) -> bool:
    """Equality in constant time."""
    return hmac.compare_digest(a.encode(), b.encode())
