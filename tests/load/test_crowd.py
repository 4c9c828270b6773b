"""The bench of the crowd, run small: it ends by itself, finds nothing lost, and leaves no process behind."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

from tests.processes import descendants

ROOT = Path(__file__).resolve().parents[2]


def run(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "loadgen.crowd", "--polls-for", "1", "--answer-within", "1", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)


def test_the_bench_reports_what_was_acknowledged_lost_and_doubled() -> None:
    done = run("--phones", "20")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"acknowledged +40 +lost 0 +doubled 0 +replies that differ from the log 0", done.stdout)
    for line in ("answer ack ms", "state poll ms", "reveal", "peak memory", "generator", "other programs"):
        assert line in done.stdout


def test_a_bench_that_does_not_end_in_time_says_so_and_ends_its_processes() -> None:
    command = [sys.executable, "-m", "loadgen.crowd", "--phones", "5", "--timeout", "1"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as bench:
        started: set[int] = set()
        while bench.poll() is None:
            started |= descendants(bench.pid)
            time.sleep(0.05)
        _, errors = bench.communicate()
    assert bench.returncode == 1 and "TimeoutError" in errors
    assert len(started) >= 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in started)
