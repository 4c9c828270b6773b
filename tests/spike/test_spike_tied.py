"""A tied command is the command itself, and dies with whoever started it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from loadgen.spike.tools import tied
from tests.processes import runs

WITHIN_S = 20.0
STARTER = """
import subprocess, sys
from loadgen.spike.tools.tied import tied
child = subprocess.Popen(tied(["sh", "-c", "echo $$; exec sleep 100"]), stdout=subprocess.PIPE)
sys.stdout.write(child.stdout.readline().decode())
sys.stdout.flush()
sys.stdin.read()
"""


def wait_gone(pid: int) -> None:
    give_up_at = time.monotonic() + WITHIN_S
    while runs(pid):
        assert time.monotonic() < give_up_at, f"process {pid} still runs"
        time.sleep(0.02)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells a process that its parent died")
def test_it_dies_when_its_parent_is_killed_with_9():
    parent = subprocess.Popen([sys.executable, "-c", STARTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        child = int(parent.stdout.readline())
        assert runs(child)
    finally:
        parent.kill()
        parent.wait()
    wait_gone(child)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells a process that its parent died")
def test_it_does_not_begin_when_its_parent_has_gone_already():
    gone = subprocess.Popen(["true"])
    gone.wait()
    command = [sys.executable, tied.__file__, "--parent", str(gone.pid), "echo", "begun"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stdout == ""


def test_its_output_and_exit_status_are_the_command_s_own():
    ended = subprocess.run(tied.tied(["sh", "-c", "echo out; exit 7"]), capture_output=True, text=True)
    assert (ended.stdout, ended.returncode) == ("out\n", 7)


def test_it_can_be_run_by_name_without_a_parent():
    command = [sys.executable, "-m", "loadgen.spike.tools.tied", "echo", "out"]
    assert subprocess.run(command, capture_output=True, text=True, cwd=Path(tied.__file__).parents[3]).stdout == "out\n"


def test_a_command_that_is_not_there_is_named():
    ended = subprocess.run(tied.tied(["no-such-command"]), capture_output=True, text=True)
    assert ended.returncode == 1
    assert "no-such-command: No such file" in ended.stderr
