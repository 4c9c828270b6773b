"""From what a person wrote in the settings to a store."""

from __future__ import annotations

import re
from pathlib import Path

from .local import LocalStore
from .s3 import S3Store, connect
from .store import Store, StoreMisconfigured, is_key

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")


def open_store(where: str, endpoint_url: str | None = None) -> Store:
    """The store at `s3://bucket`, `s3://bucket/prefix` or in a folder. Nothing is read or written yet: `ping` it.

    `endpoint_url` replaces AWS's address for S3; a folder has no use for it. Raises StoreMisconfigured.
    """
    if where.startswith("s3://"):
        bucket, _, prefix = where.removeprefix("s3://").partition("/")
        prefix = prefix.rstrip("/")
        if not _BUCKET.fullmatch(bucket) or (prefix and not is_key(prefix)):
            raise StoreMisconfigured(f"not a place in S3: {where!r}; write s3://bucket or s3://bucket/prefix")
        return S3Store(bucket, f"{prefix}/" if prefix else "", connect(endpoint_url))
    if not where.strip() or "\0" in where or _SCHEME.match(where):
        raise StoreMisconfigured(f"not a store: {where!r}; write a folder, or s3://bucket/prefix")
    return LocalStore(Path(where).expanduser())
