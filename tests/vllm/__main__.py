"""`python -m tests.vllm DIR [pytest options]`: starts the real server of the environment DIR, runs against it all
suites that can, and ends it, whatever happens."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from loadgen.processes import NotReady, Process, free_port
from tests.contract import SERVER

PROJECT = Path(__file__).parent.parent.parent
SUITES = ("tests/contract", "tests/vllm", "tests/gateway/test_gateway_conformance.py")
READY_WITHIN_S = 600.0  # about a minute on an idle machine


@contextmanager
def real_server(environment: Path, log: Path) -> Iterator[Process]:
    """A ready server on a free port. Raises NotReady."""
    port = free_port()
    command = [str(PROJECT / "scripts" / "vllm-cpu"), "serve", str(environment), "--port", str(port), *SERVER]
    process = Process(command, port, "/health", log)
    try:
        process.wait_ready(READY_WITHIN_S)
        yield process
    finally:
        process.end()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its engine and workers, should it have died before them


def main(environment: Path, options: list[str]) -> int:
    # Without this SIGTERM would leave the server behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="crowdspike-vllm-") as folder:
        print("starting vLLM …", flush=True)
        with real_server(environment, Path(folder) / "vllm.log") as server:
            ours = {"CROWDSPIKE_TEST_VLLM_URL": server.url, "CROWDSPIKE_VLLM_ENV": str(environment)}
            command = [sys.executable, "-m", "pytest", *(options or SUITES)]
            status = subprocess.run(command, cwd=PROJECT, env={**os.environ, **ours}, check=False).returncode
            if status:
                print(f"vLLM's last words:\n{server.log()[-4000:]}", file=sys.stderr)
            return status


if __name__ == "__main__":
    try:
        sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
    except NotReady as error:
        sys.exit(f"vLLM did not start: {error}")
