"""A draw that anyone can check.

When a room is made it gets a secret seed; the SHA-256 of the seed, the *commitment*, is public from that moment,
before anybody has joined. Closing the raffle freezes and publishes the entrants' tickets. The draw publishes the
seed. The order of winners is then a function of both, so neither a presenter nor a server can choose it afterwards:

    order = sorted(tickets, key=lambda ticket: sha256(f"{seed}:{digest}:{ticket}".encode()).hexdigest())

where `digest` is the SHA-256 of the frozen tickets, one a line. What it does not prevent: one person joining from
several browsers, and an operator who reads the seed in the store before the entrants are frozen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def commitment(seed: str) -> str:
    """What is published before the draw, 64 hex digits."""
    return sha256(seed)


def ticket(code: str, participant: str) -> str:
    """A participant's public ticket, 12 hex digits: it does not reveal the participant's id."""
    return sha256(f"{code}:{participant}")[:12]


def order(seed: str, tickets: Iterable[str]) -> list[str]:
    """All tickets, the first winner first."""
    frozen = sorted(set(tickets))
    digest = sha256("\n".join(frozen))
    return sorted(frozen, key=lambda t: sha256(f"{seed}:{digest}:{t}"))


def next_winner(seed: str, tickets: Iterable[str], drawn: Collection[str]) -> str | None:
    """The first ticket in order that has not been drawn yet; None when all have."""
    return next((t for t in order(seed, tickets) if t not in drawn), None)
