"""The server under contract: the one that CROWDSPIKE_TEST_VLLM_URL names, else a simulated replica of our own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest

from tests import processes
from tests.contract import SERVER

VLLM_URL = os.environ.get("CROWDSPIKE_TEST_VLLM_URL", "").rstrip("/").removesuffix("/v1")
PROFILE = "a10g-mistral-7b-awq"


@dataclass(frozen=True, slots=True)
class Server:
    url: str
    simulated: bool


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if VLLM_URL:
        yield Server(VLLM_URL, simulated=False)
    else:
        with processes.replica(tmp_path_factory.mktemp("replica"), "--profile", PROFILE, *SERVER) as process:
            yield Server(process.url, simulated=True)


@pytest.fixture(scope="session")
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, trust_env=False, timeout=60) as client:
        yield client
