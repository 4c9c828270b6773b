"""`python -m tests.contract.record URL`: records a real server's answers to the contract's requests."""

from __future__ import annotations

import sys

import httpx

from tests.contract.exchange import EXCHANGES, save, send
from tests.contract.requests import ANSWERS, REFUSALS


def main(url: str) -> None:
    with httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
        answers = {request.name: send(client, request) for request in (*ANSWERS, *REFUSALS)}
    save(answers)
    print(f"{EXCHANGES}: {len(answers)} answers")


if __name__ == "__main__":
    main(sys.argv[1])
