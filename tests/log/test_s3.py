"""What only the S3 adapter can get wrong: the service's errors and the network's."""

from __future__ import annotations

import asyncio

import pytest
from faulty_s3 import DROP, DROP_AFTER, FaultyS3

from webapp.log.s3 import CONFLICT_TRIES, S3Store, connect
from webapp.log.store import AlreadyExists, Store, StoreMisconfigured, StoreUnavailable

PASSING = [(503, "SlowDown"), (500, "InternalError"), (400, "RequestTimeout"), (409, "OperationAborted"), DROP]
LASTING = [(403, "AccessDenied"), (403, "SignatureDoesNotMatch"), (400, "ExpiredToken"), (404, "NoSuchBucket")]


def calls(store: Store) -> list:
    return [
        lambda: store.get("a/b"),
        lambda: store.put("a/b", b"two"),
        lambda: store.create("a/new", b"x"),
        lambda: store.list("a/"),
        lambda: store.folders(""),
        lambda: store.ping(),
    ]


@pytest.mark.parametrize("fault", PASSING, ids=str)
async def test_a_passing_fault_is_unavailable_and_passes(
    s3_server: FaultyS3, s3_store: S3Store, fault: str | tuple[int, str]
) -> None:
    await s3_store.put("a/b", b"one")
    for call in calls(s3_store):
        s3_server.faults.append(fault)
        before = s3_server.seen
        with pytest.raises(StoreUnavailable):
            await call()
        assert s3_server.seen == before + 1, "the adapter tried again behind its caller's back"
    assert await s3_store.list("") == ["a/b"]
    assert await s3_store.get("a/b") == b"one"


@pytest.mark.parametrize("fault", LASTING, ids=str)
async def test_a_lasting_fault_says_what_to_fix(s3_server: FaultyS3, s3_store: S3Store, fault: tuple[int, str]) -> None:
    for call in calls(s3_store):
        s3_server.faults.append(fault)
        with pytest.raises(StoreMisconfigured, match=rf"s3://crowdspike-\d+/talks/2026/: .*{fault[1]}.*; \w+"):
            await call()


async def test_a_write_whose_answer_got_lost_is_unavailable_and_done(s3_server: FaultyS3, s3_store: S3Store) -> None:
    s3_server.faults += [DROP_AFTER, DROP_AFTER]
    with pytest.raises(StoreUnavailable):
        await s3_store.put("a", b"one")
    with pytest.raises(StoreUnavailable):
        await s3_store.create("b", b"two")
    assert [await s3_store.get("a"), await s3_store.get("b")] == [b"one", b"two"]


async def test_a_conflict_is_tried_again_until_s3_says_who_won(s3_server: FaultyS3, s3_store: S3Store) -> None:
    conflict = (409, "ConditionalRequestConflict")
    s3_server.faults.append(conflict)
    await s3_store.create("a", b"ours")
    s3_server.faults.append(conflict)
    with pytest.raises(AlreadyExists):
        await s3_store.create("a", b"late")
    s3_server.faults += [conflict] * CONFLICT_TRIES
    with pytest.raises(StoreUnavailable):
        await s3_store.create("b", b"never settled")
    assert s3_server.faults == []


async def test_a_refused_connection_is_unavailable(s3_server: FaultyS3) -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    store = S3Store("bucket", "", connect(f"http://127.0.0.1:{port}"))
    for call in calls(store):
        with pytest.raises(StoreUnavailable):
            await call()
    await store.close()


async def test_a_body_cut_short_is_unavailable(s3_server: FaultyS3) -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(cut, "127.0.0.1", 0)
    store = S3Store("bucket", "", connect(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"))
    with pytest.raises(StoreUnavailable):
        await store.get("a")
    await store.close()
    server.close()
    await server.wait_closed()


async def test_a_missing_bucket_says_what_to_fix(s3_server: FaultyS3) -> None:
    store = S3Store("no-such-bucket", "", connect(s3_server.url))
    for call in calls(store):
        with pytest.raises(StoreMisconfigured, match="create the bucket"):
            await call()
    await store.close()


async def test_what_others_keep_in_the_bucket_stays_out_of_sight(s3_server: FaultyS3) -> None:
    client = connect(s3_server.url)
    client.create_bucket(Bucket="shared-bucket")
    for key in ("log/", "log/rooms/", "log/rooms/with space", "log/.hidden/x", "logs/y", "x"):
        client.put_object(Bucket="shared-bucket", Key=key, Body=b"")
    store = S3Store("shared-bucket", "log/", client)
    await store.put("rooms/a", b"")
    assert await store.list("") == ["rooms/a"]
    assert await store.folders("") == ["rooms"]
    await store.close()
