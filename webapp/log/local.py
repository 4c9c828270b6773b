"""The log in a folder: one file per key. Several processes on one machine may share it.

A file appears complete or not at all: it is written under a temporary name, synced, then renamed (`put`) or
hard-linked (`create`, which fails when the name is taken), and the folder is synced before the call returns.
"""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar

from .store import (
    AlreadyExists,
    NotFound,
    StoreError,
    StoreMisconfigured,
    StoreUnavailable,
    check_key,
    check_prefix,
    is_key,
)

THREADS = 8
_FOLDER_MODE, _FILE_MODE = 0o700, 0o600
_FOR_A_PERSON = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ENOTSUP}

P = ParamSpec("P")
R = TypeVar("R")


class LocalStore:
    """A `Store` in the folder `root`, which the first write or `ping` makes when it is missing."""

    def __init__(self, root: Path | str) -> None:
        self._root = Path(root).absolute()
        self._synced: set[Path] = set()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="local-store")

    async def get(self, key: str) -> bytes:
        return await self._call(self._get, check_key(key))

    async def put(self, key: str, body: bytes) -> None:
        await self._call(self._write, check_key(key), body, os.replace)

    async def create(self, key: str, body: bytes) -> None:
        await self._call(self._write, check_key(key), body, os.link)

    async def list(self, prefix: str, after: str = "") -> list[str]:
        return await self._call(self._list, check_prefix(prefix), after)

    async def folders(self, prefix: str) -> list[str]:
        return await self._call(self._folders, check_prefix(prefix))

    async def ping(self) -> None:
        await self._call(self._ping)

    async def close(self) -> None:
        await asyncio.to_thread(self._threads.shutdown)

    async def _call(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._threads, partial(work, *args, **kwargs))
        except OSError as error:
            raise _explained(error, self._root) from error

    def _get(self, key: str) -> bytes:
        try:
            return (self._root / key).read_bytes()
        except OSError as error:
            if isinstance(error, IsADirectoryError) or self._missing(error):
                raise NotFound(key) from None
            raise

    def _write(self, key: str, body: bytes, publish: Callable[[Path, Path], None]) -> None:
        path = self._root / key
        temporary = path.parent / f".tmp-{os.getpid()}-{secrets.token_hex(8)}"
        try:
            try:
                self._make_folder(path.parent)
                _write_synced(temporary, body)
            except FileNotFoundError:  # somebody removed the folder since we made it
                self._synced.clear()
                self._make_folder(path.parent)
                _write_synced(temporary, body)
            publish(temporary, path)
        except FileExistsError:
            _sync_folder(path.parent)  # who made it may have died before this; our caller may rely on it now
            raise AlreadyExists(key) from None
        finally:
            with suppress(FileNotFoundError, NotADirectoryError):
                temporary.unlink()  # after `os.link`, or after a failure
        _sync_folder(path.parent)

    def _make_folder(self, folder: Path) -> None:
        """Make `folder` and those above it, and sync their entries once per process: another process may have
        made them without having come to its sync yet."""
        if folder in self._synced:
            return
        if folder != self._root:
            self._make_folder(folder.parent)
        try:
            folder.mkdir(_FOLDER_MODE, parents=folder == self._root)
        except FileExistsError:
            if not folder.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from None
        _sync_folder(folder.parent)
        self._synced.add(folder)

    def _list(self, prefix: str, after: str) -> list[str]:
        keys = []
        for folder, _, names in os.walk(self._root / prefix, onerror=self._raise_unless_missing):
            base = Path(folder).relative_to(self._root).as_posix()
            base = "" if base == "." else base + "/"
            keys += [key for name in names if (key := base + name) > after and is_key(key)]
        return sorted(keys)

    def _folders(self, prefix: str) -> list[str]:
        try:
            with os.scandir(self._root / prefix) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir() and is_key(entry.name))
        except OSError as error:
            self._raise_unless_missing(error)
            return []

    def _ping(self) -> None:
        self._make_folder(self._root)
        if not os.access(self._root, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self._root))

    def _raise_unless_missing(self, error: OSError) -> None:
        if not self._missing(error):
            raise error

    def _missing(self, error: OSError) -> bool:
        """Whether it only says that nothing is stored there. A file in the place of a folder says so too, except
        in the place of the root."""
        return isinstance(error, FileNotFoundError) or (isinstance(error, NotADirectoryError) and self._root.is_dir())


def _write_synced(path: Path, body: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _FILE_MODE)
    with open(descriptor, "wb", buffering=0) as file:
        view = memoryview(body)
        while view:
            view = view[file.write(view) :]
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _explained(error: OSError, root: Path) -> StoreError:
    if error.errno in _FOR_A_PERSON:
        return StoreMisconfigured(
            f"{error.filename or root}: {error.strerror}. The log needs a folder that this user may write to, "
            f"on a file system with hard links; it is set to {root}"
        )
    return StoreUnavailable(f"{root}: {error.strerror or error}")
