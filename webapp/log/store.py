"""The port of the log's storage: keys and bytes, with no idea of what they mean.

Every adapter (folder, S3, memory) keeps the promises written here; one contract suite checks them all.

    StoreError
    ├── BadKey               a key that no store takes
    ├── NotFound             nothing is stored under the key
    ├── AlreadyExists        `create` met an object that was there first
    ├── StoreUnavailable     did not work now, may work later: timeouts, 5xx, refused connections, a full disk
    └── StoreMisconfigured   will not work until a person acts; the message says what to fix
"""

from __future__ import annotations

import re
from typing import Protocol


class StoreError(Exception):
    """Anything that a store may raise."""


class BadKey(StoreError):
    """A key or prefix that no store takes. See `check_key`."""


class NotFound(StoreError):
    """Nothing is stored under this key."""


class AlreadyExists(StoreError):
    """`create` found an object under this key and left it as it was."""


class StoreUnavailable(StoreError):
    """The store did not do it now; try again later. A write that fails so may still have happened."""


class StoreMisconfigured(StoreError):
    """The store cannot work as it is set up; the message tells a person what to change."""


class Store(Protocol):
    """Objects under keys such as `rooms/KWXM/room.json`.

    A prefix is "" or ends in "/". All methods raise BadKey, StoreUnavailable or StoreMisconfigured besides what
    they name. What one call wrote, every later call of any process sees.
    """

    async def get(self, key: str) -> bytes:
        """The object's bytes. Raises NotFound."""
        ...

    async def put(self, key: str, body: bytes) -> None:
        """Create or overwrite, all or nothing. Durable when it returns."""
        ...

    async def create(self, key: str, body: bytes) -> None:
        """Like `put`, for the first to come only: of any number of concurrent calls exactly one succeeds.

        Raises AlreadyExists. After StoreUnavailable the object may be there, with our bytes or another's.
        """
        ...

    async def list(self, prefix: str, after: str = "") -> list[str]:
        """All keys under `prefix`, at any depth, strictly after the key `after`, in byte order."""
        ...

    async def folders(self, prefix: str) -> list[str]:
        """The names right under `prefix` that have keys below them, in byte order: `["KWXM"]` for `rooms/`."""
        ...

    async def ping(self) -> None:
        """Return when the store answers and may be read."""
        ...

    async def close(self) -> None:
        """Wait for the calls under way and free what the store holds."""
        ...


# A part never starts with a dot: that leaves "..", and the names of temporary files, out of reach of any key.
# ASCII only, so that byte order, string order and every file system agree.
_PART = r"[A-Za-z0-9_=+@,-][A-Za-z0-9_=+@,.-]{0,199}"
_KEY = re.compile(rf"{_PART}(/{_PART})*")
_KEY_MAX_CHARS = 900  # S3 takes 1,024 bytes, the store's own prefix included


def is_key(key: str) -> bool:
    """Whether `key` is `part/part/…`: parts of 1 to 200 of `A-Z a-z 0-9 _ = + @ , . -`, none starting with a dot."""
    return len(key) <= _KEY_MAX_CHARS and _KEY.fullmatch(key) is not None


def check_key(key: str) -> str:
    """`key` itself. Raises BadKey unless `is_key`."""
    if not is_key(key):
        raise BadKey(f"not a key: {key[:100]!r}")
    return key


def check_prefix(prefix: str) -> str:
    """`prefix` itself. Raises BadKey unless it is empty or a key with a "/" at its end."""
    if prefix and not (prefix.endswith("/") and is_key(prefix[:-1])):
        raise BadKey(f"not a prefix (it ends in '/'): {prefix[:100]!r}")
    return prefix
