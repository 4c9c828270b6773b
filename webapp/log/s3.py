"""The log in an S3 bucket, or in anything that speaks S3 and honours `If-None-Match: *`.

boto3 blocks, so calls run in threads. boto's own retries are off: an answer that got lost must not come back as
"already exists", and our callers retry with what they know.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import Any, ParamSpec, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
)

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

THREADS = 16
DEFAULT_REGION = "us-east-1"
CONFLICT_TRIES, CONFLICT_WAIT_S = 4, 0.05
_FOR_A_PERSON = (NoCredentialsError, PartialCredentialsError, ParamValidationError, ProfileNotFound)
_COMES_AND_GOES = {"RequestTimeout", "SlowDown", "Throttling", "OperationAborted", "ConditionalRequestConflict"}
_FIXES = {
    "NoSuchBucket": "create the bucket or correct its name",
    "InvalidBucketName": "correct the bucket's name",
    "PermanentRedirect": "set AWS_REGION to the bucket's region",
    "AccessDenied": "allow s3:ListBucket on the bucket and s3:GetObject and s3:PutObject on its objects",
    "InvalidAccessKeyId": "check the credentials",
    "SignatureDoesNotMatch": "check the credentials",
    "ExpiredToken": "renew the credentials",
    "RequestTimeTooSkewed": "correct this machine's clock",
}

P = ParamSpec("P")
R = TypeVar("R")


def connect(endpoint_url: str | None = None) -> Any:
    """A boto3 S3 client with credentials from the normal chain. Raises StoreMisconfigured for a bad endpoint."""
    config = Config(
        connect_timeout=2,
        read_timeout=5,
        retries={"mode": "standard", "total_max_attempts": 1},
        max_pool_connections=2 * THREADS,
        # Not every S3-compatible server knows the checksum trailers that boto3 otherwise adds.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    try:
        session = boto3.Session()
        region = session.region_name or DEFAULT_REGION
        return session.client("s3", endpoint_url=endpoint_url, region_name=region, config=config)
    except (BotoCoreError, ValueError) as error:
        raise StoreMisconfigured(f"S3: {error}") from error


class S3Store:
    """A `Store` in `bucket` below `prefix` ("" or ending in "/"). `client` is what `connect` gives."""

    def __init__(self, bucket: str, prefix: str, client: Any) -> None:
        self._bucket = bucket
        self._prefix = check_prefix(prefix)
        self._client = client
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="s3-store")

    async def get(self, key: str) -> bytes:
        return await self._call(self._get, check_key(key))

    async def put(self, key: str, body: bytes) -> None:
        await self._call(self._put, check_key(key), body)

    async def create(self, key: str, body: bytes) -> None:
        await self._call(self._create, check_key(key), body)

    async def list(self, prefix: str, after: str = "") -> list[str]:
        return await self._call(self._list, check_prefix(prefix), after)

    async def folders(self, prefix: str) -> list[str]:
        return await self._call(self._folders, check_prefix(prefix))

    async def ping(self) -> None:
        # Not HeadBucket: its errors have no body, so a missing bucket and a wrong path look the same.
        await self._call(self._client.list_objects_v2, Bucket=self._bucket, Prefix=self._prefix, MaxKeys=1)

    async def close(self) -> None:
        await asyncio.to_thread(self._threads.shutdown)
        self._client.close()

    async def _call(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._threads, partial(work, *args, **kwargs))
        except (ClientError, BotoCoreError) as error:
            raise _explained(error, f"s3://{self._bucket}/{self._prefix}") from error

    def _get(self, key: str) -> bytes:
        try:
            answer = self._client.get_object(Bucket=self._bucket, Key=self._prefix + key)
        except ClientError as error:
            if _code(error) == "NoSuchKey":
                raise NotFound(key) from None
            raise
        with closing(answer["Body"]) as body:  # its own `with` gives the raw stream, whose errors are not boto's
            return body.read()

    def _put(self, key: str, body: bytes, **condition: str) -> None:
        self._client.put_object(Bucket=self._bucket, Key=self._prefix + key, Body=body, **condition)

    def _create(self, key: str, body: bytes) -> None:
        # 409 means that another request for the key was under way and does not say which one won, so a 409 is no
        # AlreadyExists: S3's documentation asks to try again, and the next answer is 200 or 412.
        for attempt in range(1, CONFLICT_TRIES + 1):
            try:
                return self._put(key, body, IfNoneMatch="*")
            except ClientError as error:
                if _code(error) == "PreconditionFailed":
                    raise AlreadyExists(key) from None
                if _code(error) != "ConditionalRequestConflict" or attempt == CONFLICT_TRIES:
                    raise
                time.sleep(CONFLICT_WAIT_S * attempt)

    def _list(self, prefix: str, after: str) -> list[str]:
        start = {"StartAfter": self._prefix + after} if after else {}
        found = (entry["Key"] for page in self._pages(prefix, **start) for entry in page.get("Contents", ()))
        cut = len(self._prefix)
        return [key[cut:] for key in found if is_key(key[cut:])]

    def _folders(self, prefix: str) -> list[str]:
        pages = self._pages(prefix, Delimiter="/")
        found = (entry["Prefix"] for page in pages for entry in page.get("CommonPrefixes", ()))
        cut = len(self._prefix + prefix)
        return [name for path in found if is_key(name := path[cut:-1])]

    def _pages(self, prefix: str, **options: str) -> Iterator[dict[str, Any]]:
        """The pages of one listing; S3 gives at most 1,000 names in each."""
        while True:
            page = self._client.list_objects_v2(Bucket=self._bucket, Prefix=self._prefix + prefix, **options)
            yield page
            if not page["IsTruncated"]:
                return
            options = {**options, "ContinuationToken": page["NextContinuationToken"]}


def _code(error: ClientError) -> str:
    return error.response.get("Error", {}).get("Code", "")


def _explained(error: ClientError | BotoCoreError, where: str) -> StoreError:
    """Which of our errors this is. Of boto's own, all but those about set-up are the network's."""
    if isinstance(error, BotoCoreError):
        kind = StoreMisconfigured if isinstance(error, _FOR_A_PERSON) else StoreUnavailable
        return kind(f"{where}: {error}")
    code, status = _code(error), error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in _COMES_AND_GOES or status == 429 or status >= 500:
        return StoreUnavailable(f"{where}: {error}")
    fix = _FIXES.get(code, "check the bucket, its region and the credentials")
    return StoreMisconfigured(f"{where}: {error}; {fix}")
