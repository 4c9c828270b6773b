"""What the protocol between a runner and its parent promises, over real pipes."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from loadgen.spike.control import Control
from loadgen.spike.progress import Progress

PATIENCE_S = 10


@dataclass
class Parent:
    """The other ends of a runner's standard input and output."""

    in_fd: int
    out_fd: int
    to_it: int
    from_it: int

    def control(self) -> Control:
        return Control(self.in_fd, self.out_fd)

    def lines(self) -> list[dict]:
        os.close(self.out_fd)
        return [json.loads(line) for line in os.fdopen(self.from_it, closefd=False)]


@pytest.fixture
def parent() -> Iterator[Parent]:
    in_fd, to_it = os.pipe()
    from_it, out_fd = os.pipe()
    yield Parent(in_fd, out_fd, to_it, from_it)
    for fd in (to_it, in_fd, out_fd, from_it):
        with suppress(OSError):
            os.close(fd)


async def heard(control: Control, count: int) -> list[str]:
    commands = control.commands()
    async with asyncio.timeout(PATIENCE_S):
        return [await anext(commands) for _ in range(count)]


async def test_commands_are_lines_and_anything_else_is_passed_over(parent: Parent) -> None:
    control = parent.control()
    os.write(parent.to_it, b"fi")
    os.write(parent.to_it, b"re\n\ninterrupt\nrm -rf\xff\n kill \r\nst")
    os.write(parent.to_it, b"op\n")
    assert await heard(control, 3) == ["fire", "kill", "stop"]


async def test_the_end_of_the_input_is_a_stop(parent: Parent) -> None:
    control = parent.control()
    os.write(parent.to_it, b"fire\n")
    os.close(parent.to_it)
    assert await heard(control, 2) == ["fire", "stop"]


async def test_a_file_or_the_null_device_can_be_the_input(tmp_path: Path, parent: Parent) -> None:
    """An event loop can't wait for them."""
    (tmp_path / "commands").write_text("fire\n")
    file, null = (os.open(path, os.O_RDONLY) for path in (tmp_path / "commands", os.devnull))
    assert await heard(Control(file, parent.out_fd), 2) == ["fire", "stop"]
    assert await heard(Control(null, parent.out_fd), 1) == ["stop"]
    os.close(file)
    os.close(null)


async def test_progress_is_a_line_and_the_end_is_left_to_the_outcome(parent: Parent) -> None:
    control = parent.control()
    control.said(Progress(state="running", served=3))
    control.said(Progress(state="ended", served=4))
    (line,) = parent.lines()
    assert (line["state"], line["served"]) == ("running", 3)


async def test_who_does_not_read_does_not_hold_up_the_run(parent: Parent) -> None:
    """A pipe takes 64 KiB; a write that waits would stand still here, and with it every limit of the run."""
    control = parent.control()
    for served in range(2000):
        control.said(Progress(state="running", served=served))
    lines = parent.lines()
    assert [line["served"] for line in lines] == list(range(len(lines)))
    assert 0 < len(lines) < 2000


async def test_when_nobody_can_read_any_more_the_run_is_to_stop(parent: Parent) -> None:
    control = parent.control()
    os.close(parent.from_it)
    control.said(Progress(state="running"))
    control.said(Progress(state="running"))
    assert await heard(control, 1) == ["stop"]
