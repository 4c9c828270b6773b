"""The comparison of a real and a simulated server: its arithmetic, its page, and the whole command with two simulated
ones, since a real one is not to be had in these tests."""

import json
import os
import subprocess
import sys
from xml.etree import ElementTree

import pytest

from inference.engine import profile as profiles
from inference.openloop.summary import FIGURES, Summary
from loadgen.fidelity import compare, plot, servers
from loadgen.fidelity.compare import LABELS
from tests.inference.servers import profile_file
from tests.processes import replica

REAL = Summary(50, 200, 10, 30, 800, 2000, running=6, waiting=0.1, throughput=500)


def summary(**changes: float) -> Summary:
    return Summary(**{name: changes.get(name, getattr(REAL, name)) for name in FIGURES})


def test_every_figure_of_a_summary_is_compared():
    found = compare.compare(0.5, 10, REAL, REAL, REAL)
    assert [row.name for row in found.rows] == list(FIGURES) == list(LABELS)
    assert found.off == []


def test_what_is_off_by_more_than_the_bound_is_named():
    found = compare.compare(0.5, 10, REAL, summary(ttft_p50_ms=58, itl_p95_ms=34, throughput=424.9), REAL)
    assert [row.name for row in found.off] == ["ttft_p50_ms", "throughput"]
    assert found.off[0].off == pytest.approx(0.16)


def test_averages_that_differ_by_less_than_half_a_request_agree():
    assert compare.compare(0.5, 10, REAL, summary(waiting=0.5), REAL).off == []
    assert [row.name for row in compare.compare(0.5, 10, REAL, summary(waiting=0.7), REAL).off] == ["waiting"]


def test_a_real_figure_of_nothing_has_no_percentage():
    real = Summary(*[0.0] * len(FIGURES))
    found = compare.compare(0.5, 10, real, REAL, REAL)
    assert {row.off for row in found.rows} == {None}
    assert "waiting" not in {row.name for row in found.off} and "running" in {row.name for row in found.off}


def test_the_texts_mark_what_is_off_and_count_it():
    found = [
        compare.compare(0.5, 10, REAL, summary(e2e_p95_ms=2600), summary(e2e_p95_ms=2100)),
        compare.compare(1.3, 20, REAL, REAL, REAL),
    ]
    text = compare.text(found)
    (line,) = [line for line in text.splitlines() if " ! " in line]
    assert line.split()[:2] == ["E2E", "p95,"] and "+30%" in line and "+5%" in line
    assert text.endswith("17 of 18 figures are within 15% of the real server")
    table = compare.markdown(found).splitlines()
    assert len({line.count("|") for line in table}) == 1, "a table has the same columns in each row"
    assert sum("**+30%**" in line for line in table) == 1


def test_a_page_gets_the_table_between_its_markers_and_keeps_the_rest():
    page = "before\n<!-- fidelity -->\nold\n<!-- /fidelity -->\nafter\n"
    assert compare.put_into(page, "new") == page.replace("old", "new")
    with pytest.raises(ValueError, match="<!-- fidelity -->"):
        compare.put_into("no markers", "new")


def test_our_own_page_has_the_markers():
    page = (servers.ROOT / "docs/fidelity.md").read_text(encoding="utf-8")
    assert "new table" in compare.put_into(page, "new table")


def test_the_picture_is_one_svg_with_both_lines_in_every_panel():
    panels = [plot.Panel(f"A & B {i}", [1.0, 5.0, 40.0], [2.0, 6.0, 4000.0]) for i in range(5)]
    root = ElementTree.fromstring(plot.svg(panels, columns=3))
    paths = [path.get("d") for path in root.iter("{http://www.w3.org/2000/svg}path") if path.get("class") == "real"]
    assert len(paths) == 1 + len(panels), "the legend's and each panel's"
    width, height = (float(value) for value in root.get("viewBox").split()[2:])
    assert (width, height) == (3 * plot.WIDTH, 2 * plot.HEIGHT + 26)
    for path in paths[1:]:
        points = [tuple(map(float, point.split())) for point in path[1:].split("L")]
        assert points == sorted(points, key=lambda p: (p[0], -p[1])), "a distribution only rises"
        assert all(0 <= x <= plot.WIDTH and 0 <= y <= plot.HEIGHT for x, y in points)


def test_a_picture_of_nothing_is_a_picture():
    ElementTree.fromstring(plot.svg([plot.Panel("empty", [], [])], columns=1))


def test_a_server_and_what_it_started_are_found():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert {os.getpid(), child.pid} <= set(servers.tree(os.getpid()))
    finally:
        child.communicate(b"\n")


def test_the_whole_comparison_runs_against_a_server_that_is_there(tmp_path):
    values = {"step_base_ms": 4.0, "step_per_decode_ms": 0.1, "step_per_prefill_token_ms": 0.01, "max_model_len": 1024}
    with replica(tmp_path, "--profile", profile_file(tmp_path, **values)) as process:
        command = [sys.executable, "-m", "loadgen.fidelity", "--url", process.url, "--out", str(tmp_path / "out")]
        command += [
            "--capacity",
            "25",
            "--rounds",
            "2",
            "--fit-seconds",
            "1",
            "--seconds",
            "1",
            "--rates",
            "0.5",
            "1.3",
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "of 18 figures are within 15% of the real server" in done.stdout
    found = json.loads((tmp_path / "out/fidelity.json").read_text())
    assert [comparison["share"] for comparison in found["comparisons"]] == [0.5, 1.3]
    assert profiles.load(str(tmp_path / "out/cpu-tiny-mistral.yaml")).step_base_ms.value > 0


def test_a_server_that_is_not_there_ends_it_with_the_reason(tmp_path):
    command = [sys.executable, "-m", "loadgen.fidelity", "--url", "http://127.0.0.1:9", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "cannot connect" in done.stderr and "Traceback" not in done.stderr
