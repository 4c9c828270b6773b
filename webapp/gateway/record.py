"""What is known of a request once it has ended. Metrics, the log line and what a key is charged all come from it."""

from __future__ import annotations

from typing import NamedTuple


class Record(NamedTuple):
    """One request that has ended, for whatever reason. Times in seconds from its arrival; never any text of it."""

    request_id: str
    path: str
    source: str
    status: int  # what the client was told; 499 when it left first
    e2e_s: float
    model: str = ""  # as the client named it, or else the replica; empty when neither did
    key: str | None = None  # the API key's name, not the key
    replica: str | None = None  # the URL of the last one tried
    retries: int = 0
    waited_s: float = 0.0  # for a replica with room
    ttft_s: float | None = None  # None when no token came
    prompt_tokens: int = 0
    completion_tokens: int = 0
    error: str | None = None  # the type of what went wrong
