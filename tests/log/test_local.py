"""What only the folder adapter can get wrong: processes, kills, full disks, rights."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_child import BODY_BYTES, KEYS

from webapp.log.local import LocalStore
from webapp.log.store import StoreMisconfigured, StoreUnavailable

REPOSITORY = Path(__file__).parents[2]


def start(command: str, root: Path, name: str) -> subprocess.Popen[str]:
    child = str(Path(__file__).with_name("local_child.py"))
    return subprocess.Popen(
        [sys.executable, child, command, str(root), name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )


def files(root: Path) -> set[str]:
    return {path.name for path in root.rglob("*") if path.is_file()}


def modes(root: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in root.rglob("*")}


async def test_two_processes_win_each_key_once(tmp_path: Path, local_store: LocalStore) -> None:
    root = tmp_path / "log"
    children = {name: start("create", root, name) for name in ("one", "two")}
    for child in children.values():
        assert child.stdout.readline() == "ready\n"
    won = {}
    for child in children.values():
        child.stdin.write("go\n")
        child.stdin.flush()
    for name, child in children.items():
        out, _ = child.communicate(timeout=20)
        assert child.returncode == 0
        won[name] = out.split()
    assert Counter(won["one"] + won["two"]) == Counter(KEYS)
    for name, keys in won.items():
        for key in keys:
            assert await local_store.get(key) == name.encode()
    assert files(root) == {key.split("/")[1] for key in KEYS}


async def test_a_killed_writer_leaves_only_whole_bodies(tmp_path: Path, local_store: LocalStore) -> None:
    root = tmp_path / "log"
    for attempt in range(4):
        child = start("put", root, f"w{attempt}")
        acked = [child.stdout.readline() for _ in range(3 + attempt)][-1]
        child.kill()
        out, _ = child.communicate()
        acked = int((out.split("\n")[-2:-1] or [acked])[0])
        keys = await local_store.list(f"w{attempt}/")
        assert len(keys) >= acked + 1
        for key in keys:
            body = await local_store.get(key)
            assert len(body) == BODY_BYTES and len(set(body)) == 1


@pytest.mark.parametrize("key", ["rooms/old", "rooms/new"])
async def test_a_writer_that_dies_half_way_changes_nothing(tmp_path: Path, local_store: LocalStore, key: str) -> None:
    await local_store.put("rooms/old", b"whole")
    child = start("die", tmp_path / "log", key)
    child.communicate(timeout=20)
    assert child.returncode == -signal.SIGXFSZ
    assert await local_store.list("") == ["rooms/old"]
    assert await local_store.get("rooms/old") == b"whole"


async def test_temporary_files_are_never_listed(tmp_path: Path, local_store: LocalStore) -> None:
    await local_store.put("a/b", b"x")
    (tmp_path / "log/a/.tmp-1-00ff").write_bytes(b"left by a killed process")
    assert await local_store.list("") == ["a/b"]


async def test_only_the_owner_may_read(tmp_path: Path, local_store: LocalStore) -> None:
    await local_store.put("rooms/a", b"x")
    await local_store.create("rooms/b", b"x")
    assert modes(tmp_path) == {"log": 0o700, "rooms": 0o700, "a": 0o600, "b": 0o600}


async def test_a_folder_removed_under_way_is_made_again(tmp_path: Path, local_store: LocalStore) -> None:
    await local_store.put("rooms/KWXM/a", b"x")
    shutil.rmtree(tmp_path / "log")
    await local_store.put("rooms/KWXM/b", b"y")
    assert await local_store.list("") == ["rooms/KWXM/b"]


async def test_a_file_in_the_place_of_the_root_says_what_to_fix(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    for root in (tmp_path / "file", tmp_path / "file/log"):
        store = LocalStore(root)
        for call in (store.ping(), store.put("a", b""), store.create("a", b""), store.get("a"), store.list("")):
            with pytest.raises(StoreMisconfigured, match=r"needs a folder"):
                await call
        await store.close()


async def test_a_key_in_the_place_of_a_folder_is_told(local_store: LocalStore) -> None:
    await local_store.put("a/b", b"x")
    for key in ("a", "a/b/c"):
        with pytest.raises(StoreMisconfigured):
            await local_store.put(key, b"")
    assert await local_store.list("") == ["a/b"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a really full disk needs the right to mount a tmpfs: {getattr(error, 'stderr', error)}")
    yield disk
    subprocess.run(["umount", disk], check=True)


async def test_a_full_disk_is_unavailable_until_there_is_room(small_disk: Path) -> None:
    store = LocalStore(small_disk / "log")
    await store.put("rooms/old", b"x" * 30_000)
    for write in (store.put, store.create):
        with pytest.raises(StoreUnavailable, match="No space left"):
            await write("rooms/new", b"y" * 60_000)
    with pytest.raises(StoreUnavailable):
        await store.put("rooms/old", b"z" * 60_000)
    assert files(small_disk) == {"old"}
    assert await store.get("rooms/old") == b"x" * 30_000
    (small_disk / "log/rooms/old").unlink()
    await store.create("rooms/new", b"y" * 60_000)
    assert await store.get("rooms/new") == b"y" * 60_000
    await store.close()


async def test_a_cancelled_caller_leaves_the_store_working(local_store: LocalStore) -> None:
    puts = [asyncio.create_task(local_store.put(f"a/{number}", b"x")) for number in range(50)]
    await asyncio.sleep(0)
    for task in puts:
        task.cancel()
    await asyncio.gather(*puts, return_exceptions=True)
    await local_store.put("a/last", b"x")
    assert "a/last" in await local_store.list("")
