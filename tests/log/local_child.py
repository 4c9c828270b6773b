"""Runs as a process of its own: `python local_child.py create|put|die ROOT NAME`. See test_local.py."""

from __future__ import annotations

import asyncio
import itertools
import resource
import signal
import sys

from webapp.log.local import LocalStore
from webapp.log.store import AlreadyExists

KEYS = [f"control/{seq:06d}.json" for seq in range(1, 201)]
BODY_BYTES = 1_000_000


async def create_all(root: str, name: str) -> None:
    """Try to create every key; print those that this process won. Starts when its parent says so."""
    store = LocalStore(root)
    print("ready", flush=True)
    sys.stdin.readline()
    for key in KEYS:
        try:
            await store.create(key, name.encode())
        except AlreadyExists:
            continue
        print(key)
    await store.close()


async def put_for_ever(root: str, name: str) -> None:
    """Put segments and overwrite one object until killed; each body is one digit, `BODY_BYTES` times."""
    store = LocalStore(root)
    bodies = [str(digit).encode() * BODY_BYTES for digit in range(10)]
    for number in itertools.count(1):
        body = bodies[number % 10]
        await store.put(f"{name}/same", body)
        await store.put(f"{name}/{number:08d}", body)
        print(number, flush=True)


async def die_writing(root: str, name: str) -> None:
    """Overwrite the object `name` and be killed by the kernel half way through the bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (BODY_BYTES // 2, BODY_BYTES // 2))
    await LocalStore(root).put(name, b"x" * BODY_BYTES)


if __name__ == "__main__":
    command, folder, who = sys.argv[1:]
    asyncio.run({"create": create_all, "put": put_for_ever, "die": die_writing}[command](folder, who))
