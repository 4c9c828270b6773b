"""What every store promises, checked against each."""

from __future__ import annotations

import asyncio

import pytest

from webapp.log.store import AlreadyExists, BadKey, NotFound, Store

BAD_KEYS = ["", "/a", "a/", "a//b", "..", "a/../b", "a/./b", ".tmp-1", "a/.hidden", "a\0b", "a b", "ü", "a\\b", "a\n"]
BAD_KEYS += ["x" * 201, "/".join(["x" * 100] * 10)]
BAD_PREFIXES = ["a", "/", "../", "a//", "a/../", ".tmp/"]


@pytest.mark.parametrize("body", [b"", b"x", "größe ✓ 日本\n".encode(), bytes(range(256)) * 4096])
async def test_a_body_comes_back_as_it_was_put(store: Store, body: bytes) -> None:
    await store.put("rooms/KWXM/room.json", body)
    assert await store.get("rooms/KWXM/room.json") == body


async def test_put_overwrites(store: Store) -> None:
    await store.put("a", b"one, and long")
    await store.put("a", b"two")
    assert await store.get("a") == b"two"
    assert await store.list("") == ["a"]


async def test_create_leaves_what_was_there_first(store: Store) -> None:
    await store.create("a/b", b"one")
    with pytest.raises(AlreadyExists):
        await store.create("a/b", b"two")
    await store.put("a/c", b"three")
    with pytest.raises(AlreadyExists):
        await store.create("a/c", b"four")
    assert [await store.get("a/b"), await store.get("a/c")] == [b"one", b"three"]
    assert await store.list("") == ["a/b", "a/c"]


async def test_of_twenty_creates_exactly_one_wins(store: Store) -> None:
    async def create(number: int) -> int | None:
        try:
            await store.create("rooms/KWXM/control/000001.json", str(number).encode())
        except AlreadyExists:
            return None
        return number

    winners = [number for number in await asyncio.gather(*map(create, range(20))) if number is not None]
    assert len(winners) == 1
    assert await store.get("rooms/KWXM/control/000001.json") == str(winners[0]).encode()


async def test_what_is_not_there_is_not_found(store: Store) -> None:
    await store.put("a/b", b"x")
    for key in ("a", "b", "a/b/c", "a/c"):
        with pytest.raises(NotFound):
            await store.get(key)
    for prefix in ("b/", "a/b/", "a/b/c/"):
        assert await store.list(prefix) == []
        assert await store.folders(prefix) == []


async def test_list_gives_keys_at_any_depth_in_byte_order(store: Store) -> None:
    keys = ["a-b", "a.b", "a/B", "a/b.c", "a/b/c", "a/b0", "a0", "b/c"]
    for key in reversed(keys):
        await store.put(key, b"")
    assert await store.list("") == sorted(keys) == sorted(keys, key=str.encode)
    assert await store.list("a/") == ["a/B", "a/b.c", "a/b/c", "a/b0"]


async def test_list_starts_strictly_after(store: Store) -> None:
    for seq in range(1, 5):
        await store.put(f"w/{seq:08d}.jsonl", b"")
    assert await store.list("w/", after="w/00000002.jsonl") == ["w/00000003.jsonl", "w/00000004.jsonl"]
    assert await store.list("w/", after="w/00000002") == [f"w/{seq:08d}.jsonl" for seq in (2, 3, 4)]
    assert await store.list("w/", after="a") == await store.list("w/")
    assert await store.list("w/", after="x") == []


async def test_list_and_folders_go_on_after_a_thousand_names(store: Store) -> None:
    keys = [f"rooms/r{number:04d}/x" for number in range(1, 1006)]
    await asyncio.gather(*(store.put(key, b"") for key in keys))
    assert await store.list("rooms/") == keys
    assert await store.list("rooms/", after=keys[49]) == keys[50:]
    assert await store.folders("rooms/") == [key.split("/")[1] for key in keys]


async def test_folders_are_the_names_right_below(store: Store) -> None:
    for key in ("rooms/KWXM/responses/w2/1", "rooms/KWXM/responses/w1/1", "rooms/BCDF/room.json", "rooms/readme"):
        await store.put(key, b"")
    assert await store.folders("") == ["rooms"]
    assert await store.folders("rooms/") == ["BCDF", "KWXM"]
    assert await store.folders("rooms/KWXM/responses/") == ["w1", "w2"]
    assert await store.folders("rooms/KWXM/responses/w1/") == []


async def test_an_empty_store_answers(store: Store) -> None:
    await store.ping()
    assert await store.list("") == await store.folders("") == await store.list("rooms/") == []


async def test_bad_keys_and_prefixes_are_refused(store: Store) -> None:
    for key in BAD_KEYS:
        for call in (store.get(key), store.put(key, b""), store.create(key, b"")):
            with pytest.raises(BadKey):
                await call
    for prefix in BAD_PREFIXES:
        for call in (store.list(prefix), store.folders(prefix)):
            with pytest.raises(BadKey):
                await call
