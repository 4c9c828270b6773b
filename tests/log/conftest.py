"""The stores that the contract suite runs against."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from faulty_s3 import FaultyS3

from webapp.log.local import LocalStore
from webapp.log.memory import MemoryStore
from webapp.log.s3 import S3Store, connect
from webapp.log.store import Store

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[FaultyS3]:
    server = FaultyS3()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ACCESS_KEY_ID", "any")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "any")
        yield server
    server.stop()


@pytest.fixture
async def s3_store(s3_server: FaultyS3) -> AsyncIterator[S3Store]:
    """A store in a bucket of its own, under a prefix."""
    client = connect(s3_server.url)
    bucket = f"crowdspike-{next(_numbers)}"
    client.create_bucket(Bucket=bucket)
    client.put_object(Bucket=bucket, Key="other/rooms/NOTOURS/room.json", Body=b"another program's")
    store = S3Store(bucket, "talks/2026/", client)
    yield store
    s3_server.faults.clear()
    await store.close()


@pytest.fixture
async def local_store(tmp_path: Path) -> AsyncIterator[LocalStore]:
    store = LocalStore(tmp_path / "log")
    yield store
    await store.close()


@pytest.fixture(params=["memory", "local", "s3"])
def store(request: pytest.FixtureRequest) -> Store:
    return MemoryStore() if request.param == "memory" else request.getfixturevalue(f"{request.param}_store")
