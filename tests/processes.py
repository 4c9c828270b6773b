"""Our processes for tests, real and on loopback: web app, simulated replica, S3 server. Each ends with its block.

A `Process` (see loadgen.processes) has `url`, `pid`, `log()`, `kill()` for kill -9 and `send()` for other signals.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from json import loads
from pathlib import Path
from typing import Any

from loadgen import processes
from loadgen.processes import Process
from loadgen.stand import TALK
from tests.log.faulty_s3 import FaultyS3
from webapp.log.s3 import connect

QUICK = ("--profile", "instant", "--max-num-seqs", "64")
KEYS = {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any", "AWS_DEFAULT_REGION": "us-east-1"}


@contextmanager
def replica(folder: Path, *options: str) -> Iterator[Process]:
    """A ready simulated replica, a quick one unless `options` say otherwise."""
    with _ended(processes.engine(folder / "engine.log", *(options or QUICK))) as process:
        process.wait_ready()
        yield process


@contextmanager
def web_app(
    folder: Path,
    store: str,
    *,
    port: int | None = None,
    inference_url: str = "",
    s3: S3 | None = None,
    options: Sequence[str] = (),
) -> Iterator[Process]:
    """A web app, not waited for yet, whose first talk is the bench's: a form, then the questions `cost` and `again`.
    Its gateway asks for no key."""
    talk = folder / "talk.yaml"
    talk.write_text(TALK)
    port = port or processes.free_port()
    environment = {} if s3 is None else {**KEYS, "CROWDSPIKE_S3_ENDPOINT_URL": s3.url}
    environment["CROWDSPIKE_API_KEYS"] = "off"
    process = processes.web_app(
        folder / f"web-{port}.log",
        store,
        port=port,
        talk=talk,
        inference_url=inference_url,
        options=options,
        environment=environment,
    )
    with _ended(process):
        yield process


@contextmanager
def demo(folder: Path) -> Iterator[Process]:
    """A ready `crowdspike demo`, which leads a process group of its own, as one started in a terminal does."""
    port = processes.free_port()
    command = [sys.executable, "-m", "webapp.cli", "demo", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--store", str(folder / "store")]
    with _ended(Process(command, port, "/healthz", folder / "demo.log")) as process:
        process.wait_ready()
        yield process


@contextmanager
def _ended(process: Process) -> Iterator[Process]:
    try:
        yield process
    finally:
        process.end()


@dataclass(frozen=True, slots=True)
class S3:
    """A bucket on an S3 server of our own. `server.faults` makes the next requests fail."""

    server: FaultyS3
    client: Any
    bucket: str = "crowdspike-faults"

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def store(self) -> str:
        return f"s3://{self.bucket}/talks"

    def read_log(self, code: str) -> Counter[str]:
        """How often each response's id stands in a room's log."""
        found: Counter[str] = Counter()
        pages = self.client.get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=self.bucket, Prefix=f"talks/rooms/{code}/responses/"):
            for entry in page.get("Contents", ()):
                body = self.client.get_object(Bucket=self.bucket, Key=entry["Key"])["Body"].read()
                found.update(loads(line)["id"] for line in body.splitlines())
        return found


@contextmanager
def s3() -> Iterator[S3]:
    server = FaultyS3()
    before = {name: os.environ.get(name) for name in KEYS}
    os.environ.update(KEYS)
    try:
        place = S3(server, connect(server.url))
        place.client.create_bucket(Bucket=place.bucket)
        yield place
    finally:
        server.stop()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def descendants(pid: int) -> set[int]:
    """The processes that a process has started, and those that they have."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (status := _status(int(entry.name))):
            parents[int(entry.name)] = status[1]
    found: set[int] = set()
    while more := {child for child, parent in parents.items() if parent in found | {pid}} - found:
        found |= more
    return found


def runs(pid: int) -> bool:
    status = _status(pid)
    return status is not None and status[0] != "Z"


def _status(pid: int) -> tuple[str, int] | None:
    """State letter and parent (proc(5)); None for a process that has gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return fields[0], int(fields[1])
