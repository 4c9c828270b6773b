"""Which store a setting opens."""

from __future__ import annotations

from pathlib import Path

import pytest
from faulty_s3 import FaultyS3

from webapp.log.local import LocalStore
from webapp.log.open import open_store
from webapp.log.s3 import S3Store, connect
from webapp.log.store import StoreMisconfigured


async def test_a_folder_opens_a_local_store(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "log"))
    assert isinstance(store, LocalStore)
    assert not (tmp_path / "log").exists(), "opening wrote something"
    await store.ping()
    assert (tmp_path / "log").is_dir()
    await store.close()


@pytest.mark.parametrize("ending", ["", "/", "/one", "/one/two/"])
async def test_an_s3_url_opens_its_bucket_and_prefix(s3_server: FaultyS3, ending: str) -> None:
    client = connect(s3_server.url)
    client.create_bucket(Bucket="open-bucket")
    store = open_store(f"s3://open-bucket{ending}", endpoint_url=s3_server.url)
    assert isinstance(store, S3Store)
    await store.put("a", ending.encode())
    key = "/".join([*filter(None, ending.split("/")), "a"])
    assert client.get_object(Bucket="open-bucket", Key=key)["Body"].read() == ending.encode()
    await store.close()


BAD = ["", "  ", "s3://", "s3:///x", "s3://UPPER/x", "s3://b", "s3://bucket//x", "s3://bucket/../x", "s3://bucket/a b"]
BAD += ["s3:/bucket", "gs://bucket/x", "http://127.0.0.1/bucket", "file:///tmp", "S3://bucket", "a\0b"]


@pytest.mark.parametrize("where", BAD)
def test_a_bad_place_says_what_to_write(where: str) -> None:
    with pytest.raises(StoreMisconfigured, match=r"write .*s3://bucket"):
        open_store(where)


def test_a_bad_endpoint_is_named() -> None:
    with pytest.raises(StoreMisconfigured, match="no-scheme"):
        open_store("s3://bucket", endpoint_url="no-scheme")
