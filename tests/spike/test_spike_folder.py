"""A run's folder: nobody else's run in it, held while the runner lives, files whole or not at all, and read back."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from loadgen.spike import folder
from loadgen.spike.folder import BadFolder
from loadgen.spike.generator import Usage
from loadgen.spike.plan import Plan
from loadgen.spike.point import Point
from loadgen.spike.scenarios import Options, plan
from loadgen.spike.summary import About, summarize

HOLD = "import sys, pathlib, signal; from loadgen.spike import folder\nwith folder.held(pathlib.Path(sys.argv[1])):\n"
HOLD += "    print('held', flush=True); signal.pause()"
CRAMPED = """
import pathlib, resource, signal, sys
from loadgen.spike import folder
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    folder.write(pathlib.Path(sys.argv[1]), "new" * 10_000)
except OSError as error:
    print(error.strerror)
"""


def run_of(made: Plan, points: list[Point]) -> str:
    about = About(
        scenario=made.scenario,
        tool="k6",
        tool_version="1",
        target="http://127.0.0.1:1",
        model="m",
        loop=made.loop,
        unit="requests/s",
        seed=1,
        peak=made.peak,
        duration_s=made.duration_s,
        started_at="2026-11-21T19:00:00Z",
        machine="this one",
    )
    return summarize(made, points, [], Usage(), about).to_json()


def test_a_folder_is_named_after_when_and_what() -> None:
    at = datetime(2026, 11, 21, 19, 4, 5, tzinfo=UTC)
    assert folder.default("spike", "k6", at) == Path("spikes/20261121T190405Z-spike-k6")


@pytest.mark.parametrize("name", folder.FILES)
def test_a_folder_that_holds_another_run_is_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("another's")
    with pytest.raises(BadFolder, match=f"holds another run .{name}.*--out"):
        folder.make(tmp_path)
    assert (tmp_path / name).read_text() == "another's"


def test_a_folder_is_made_with_those_above_it_and_one_with_other_files_will_do(tmp_path: Path) -> None:
    folder.make(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "notes.txt").touch()
    folder.make(tmp_path)


def test_a_folder_that_cannot_be_made_is_an_error_of_the_disk(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        folder.make(tmp_path / "file" / "run")


def test_a_folder_is_held_until_the_process_is_gone_even_by_kill_9(tmp_path: Path) -> None:
    assert not folder.is_held(tmp_path)
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE)
    try:
        assert holder.stdout.readline() == b"held\n"
        assert folder.is_held(tmp_path)
        with pytest.raises(BadFolder, match="A run is going on"), folder.held(tmp_path):
            pass
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    assert not folder.is_held(tmp_path)
    with folder.held(tmp_path):
        assert folder.is_held(tmp_path)


def test_a_file_that_does_not_fit_leaves_the_old_one_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    folder.write(path, "old")
    cramped = subprocess.run([sys.executable, "-c", CRAMPED, str(path)], capture_output=True, text=True, check=True)
    assert cramped.stdout == "File too large\n"
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    folder.write(path, "new")
    assert path.read_text() == "new"


def test_a_run_is_read_back_as_it_was_but_for_a_line_that_broke_off(tmp_path: Path) -> None:
    made = plan("soak", Options(peak=1, duration_s=3))
    points = [Point(n=n, by="k6", due_s=n, sent_s=n, ended_s=n + 0.5, status=200) for n in range(3)]
    folder.write(tmp_path / folder.PLAN, made.to_json())
    folder.write(tmp_path / folder.SUMMARY, run_of(made, points))
    folder.write(tmp_path / folder.POINTS, "".join(p.to_json() + "\n" for p in points) + '{"n":3,"by')
    found = folder.read_run(tmp_path)
    assert found.plan == made
    assert found.summary.counts.served == 3
    assert list(found.points()) == list(found.points()) == points


def test_points_that_are_none_are_told_with_their_line(tmp_path: Path) -> None:
    made = plan("soak", Options(peak=1, duration_s=3))
    folder.write(tmp_path / folder.PLAN, made.to_json())
    folder.write(tmp_path / folder.SUMMARY, run_of(made, []))
    folder.write(tmp_path / folder.POINTS, '{"n":0,"by":"k6"}\n{"speed":9}\n')
    found = folder.read_run(tmp_path)
    with pytest.raises(BadFolder, match=r"points.jsonl:2: not a point"):
        list(found.points())
    (tmp_path / folder.POINTS).unlink()
    with pytest.raises(BadFolder, match="can't be read"):
        list(found.points())


def test_what_is_no_run_says_why(tmp_path: Path) -> None:
    made = plan("soak", Options(peak=1, duration_s=3))
    with pytest.raises(BadFolder, match=r"no folder of a run: there is no plan\.json"):
        folder.read_run(tmp_path)
    with pytest.raises(BadFolder, match="no folder of a run"):
        folder.read_run(tmp_path / "nowhere")
    folder.write(tmp_path / folder.PLAN, made.to_json())
    with pytest.raises(BadFolder, match="broken off before its figures"):
        folder.read_run(tmp_path)
    with folder.held(tmp_path), pytest.raises(BadFolder, match="still going on"):
        folder.read_run(tmp_path)
    folder.write(tmp_path / folder.SUMMARY, '{"version": 99}')
    with pytest.raises(BadFolder, match="version 99"):
        folder.read_run(tmp_path)
    folder.write(tmp_path / folder.PLAN, '{"version": 98}')
    with pytest.raises(BadFolder, match="version 98"):
        folder.read_run(tmp_path)
