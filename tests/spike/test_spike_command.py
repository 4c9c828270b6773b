"""`crowdspike spike …` as a person runs it: what it prints and writes, what it refuses, and how it exits."""

from __future__ import annotations

import argparse
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from loadgen.processes import Process, free_port
from loadgen.spike import folder
from loadgen.spike import options as written
from loadgen.spike.folder import read_run
from loadgen.spike.options import add_arguments
from loadgen.spike.order import BAD_INPUT, FAIL, INTERRUPTED, INVALID, NOT_WRITTEN, PASS, SCRIPT, STOPPED
from loadgen.spike.plan import Plan
from loadgen.spike.scenarios import SCENARIOS, Options, plan
from loadgen.spike.summary import Summary
from webapp.cli import main

PATIENCE_S = 60
PHASES = ["armed", "running", "ended"]
NOBODY = "http://127.0.0.1:9"
PAGE = (Path(__file__).parents[2] / "docs" / "load.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that answers at once, in vLLM's streams."""
    port = free_port()
    command = [sys.executable, "-m", "loadgen.gateway.stub", str(port)]
    process = Process(command, port, "/health", tmp_path_factory.mktemp("stub") / "stub.log")
    try:
        process.wait_ready()
        yield process.url
    finally:
        process.end()


def spike(*arguments: str, **more) -> subprocess.Popen:
    ours = {k: v for k, v in os.environ.items() if not k.startswith("CROWDSPIKE_")}
    command = [sys.executable, "-m", "webapp.cli", "spike", *arguments]
    return subprocess.Popen(command, text=True, env=ours, **{"stdin": subprocess.DEVNULL, **more})


def said(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """In this process: exit status, standard output, standard error."""
    try:
        status = main(["spike", *arguments])
    except SystemExit as left:
        status = left.code
    return status, *capsys.readouterr()


def test_the_list_has_every_scenario_with_a_line_of_words(capsys) -> None:
    status, out, _ = said("list", capsys=capsys)
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()] == list(SCENARIOS)
    assert all(scenario.text in out for scenario in SCENARIOS.values())


def test_the_plan_alone_is_printed_as_the_tools_read_it(capsys) -> None:
    arguments = ("--peak", "7", "--duration", "1m", "--seed", "3", "--prompt-tokens", "64", "--max-tokens", "5:50")
    more = ("--tool", "locust", "--slo-ttft", "500ms", "--slo-tpot", "0.02s", "--threshold", "served>=3", "--closed")
    rest = ("--timeout", "9s", "--max-in-flight", "11", "--cache-busting", "--ignore-eos", "--model", "m")
    status, out, err = said("spike", *arguments, *more, *rest, "--plan-only", capsys=capsys)
    assert (status, err) == (0, "")
    made = Plan.from_json(out)
    assert (made.peak, made.duration_s, made.seed, made.source, made.loop) == (7, 60, 3, "locust", "closed")
    assert (made.slo.ttft_s, made.slo.tpot_s, made.thresholds) == (0.5, 0.02, ("served>=3",))
    assert (made.timeout_s, made.max_in_flight, made.model) == (9, 11, "m")
    assert made.cache_busting
    assert made.ignore_eos
    assert max(one.max_tokens for one in made.work) <= 50


def test_a_matrix_and_amplified_questions_have_options_of_their_own(capsys) -> None:
    chosen = ("--batch", "2", "--concurrency", "3,5", "--models", "a,b", "--plan-only")
    cells = Plan.from_json(said("matrix", *chosen, capsys=capsys)[1]).cells
    assert [(cell.model, cell.users, cell.batch) for cell in cells] == [(m, u, 2) for m in "ab" for u in (3, 5)]
    made = Plan.from_json(said("amplify", "--room", "kwxm", "--copies", "3", "--plan-only", capsys=capsys)[1])
    assert (made.room, made.copies) == ("KWXM", 3)


def test_what_would_be_sent_is_said_and_nothing_is_sent(capsys) -> None:
    status, out, _ = said("soak", "--peak", "2", "--duration", "30s", "--target", NOBODY, "--dry-run", capsys=capsys)
    assert (status, out) == (0, f"soak: up to 2 requests/s for 30 s, 60 in all, to {NOBODY}\n")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "SCENARIO"),
        (("spke",), "choose from"),
        (("spike",), "--target http://127.0.0.1:8000"),
        (("spike", "--peak", "many"), "'many' is not a number above 0"),
        (("spike", "--peak", "9e9", "--target", NOBODY), "--peak 9e+09"),
        (("spike", "--duration", "60"), "'60' is no time: write a number with its unit"),
        (("spike", "--duration", "9h", "--target", NOBODY), "give 1s to 4h"),
        (("spike", "--copies", "3"), "--copies"),
        (("spike", "--room", "K1"), "four letters"),
        (("spike", "--prompt-tokens", "16-400"), "whole number"),
        (("spike", "--threshold", "ttft<1", "--target", NOBODY), "ttft"),
        (("matrix", "--batch", "1,x"), "'x' is not a whole number"),
        (("amplify", "--target", NOBODY), "--room KWXM"),
        (("spike", "--target", NOBODY), "refused the connection"),
        (("spike", "--target", f"{NOBODY}/v1/models"), "has a path"),
        (("spike", "--target", NOBODY, "--paused"), "there is no terminal"),
        (("audience", "--target", NOBODY), "set CROWDSPIKE_PRESENTER_TOKEN"),
        (("amplify", "--target", NOBODY, "--room", "KWXM"), "set CROWDSPIKE_PRESENTER_TOKEN"),
        (("report", "nowhere"), "no folder of a run"),
        (("compare", "nowhere", "nowhere"), "nowhere"),
    ],
)
def test_what_a_person_must_put_right_is_said_and_leaves_nothing(
    arguments, told: str, capsys, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, err = said(*arguments, capsys=capsys)
    assert (status, out) == (BAD_INPUT, "")
    assert told in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("more", [(), ("--control",)])
def test_a_strangers_server_is_not_loaded_unless_somebody_says_yes(more, capsys) -> None:
    asked = ("spike", "--target", "https://8.8.8.8", "--peak", "50", "--duration", "10s")
    status, out, err = said(*asked, *more, capsys=capsys)
    assert (status, out) == (BAD_INPUT, "")
    assert "up to 50 requests/s for 10 s, 215 in all, to https://8.8.8.8 (8.8.8.8)" in err
    assert "--yes" in err


def test_on_a_terminal_a_stranger_is_asked_about_and_only_yes_is_yes() -> None:
    ours, theirs = pty.openpty()
    process = spike("spike", "--target", "http://8.8.8.8", stdin=theirs, stderr=theirs, stdout=subprocess.PIPE)
    os.close(theirs)
    shown = heard(ours, "type yes: ")
    os.write(ours, b"y\n")
    shown += heard(ours, "Nothing was sent.")
    process.communicate(timeout=PATIENCE_S)
    os.close(ours)
    assert process.returncode == BAD_INPUT
    assert "516 in all" in shown


def heard(fd: int, text: str) -> str:
    """What is shown up to `text`."""
    shown = ""
    while text not in shown:
        assert select.select([fd], [], [], PATIENCE_S)[0], f"{text!r} was not shown in time, but {shown!r}"
        try:
            part = os.read(fd, 4096).decode(errors="replace")
        except OSError:  # the other end of a terminal was closed
            part = ""
        assert part, f"{text!r} was never shown, but {shown!r}"
        shown += part
    return shown


@pytest.mark.parametrize("tool", ["k6", "locust"])
def test_a_run_ends_with_a_verdict_its_figures_and_a_folder(target: str, tool: str, tmp_path: Path, capsys) -> None:
    out = tmp_path / "run"
    asked = ("spike", "--target", target, "--tool", tool, "--peak", "10", "--duration", "3s", "--out", str(out))
    status, printed, err = said(*asked, capsys=capsys)
    run = read_run(out)
    assert (status == PASS) == (run.summary.verdict.verdict == "pass"), err
    assert status in (PASS, INVALID), err  # a busy machine may send late
    assert printed.startswith(("PASS\n", "INVALID"))
    assert f"served    {run.summary.counts.served}; 0 failed" in printed
    assert run.summary.counts.sent == run.summary.counts.planned == run.plan.planned == 12
    assert sum(point.by == tool for point in run.points()) == 12
    assert {name for name in folder.FILES if (out / name).exists()} >= set(folder.FILES) - {folder.LOG}
    assert str(out / "report.html") in printed
    assert "running" in err
    (out / "report.html").unlink()
    assert said("report", str(out), capsys=capsys) == (0, f"{out / 'report.html'}\n", "")
    assert "</html>" in (out / "report.html").read_text()
    assert said("compare", str(out), str(out), capsys=capsys)[0] == 0
    status, _, err = said(*asked, capsys=capsys)
    assert (status, "holds another run" in err) == (BAD_INPUT, True)


def test_a_threshold_that_is_missed_is_a_fail_and_says_which(target: str, tmp_path: Path, capsys) -> None:
    asked = ("soak", "--target", target, "--peak", "5", "--duration", "2s", "--out", str(tmp_path / "run"))
    missed = ("--threshold", "served>=1000")
    status, out, _ = said(*asked, *missed, capsys=capsys)
    assert status in (FAIL, INVALID)
    held = {one.text: one.ok for one in read_run(tmp_path / "run").summary.verdict.thresholds}
    assert held["served>=1000"] is False
    if status == FAIL:
        assert "served>=1000: it was 10" in out


def test_a_folder_that_cannot_be_made_is_said_before_anything_is_sent(target: str, tmp_path: Path, capsys) -> None:
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "run"
    status, printed, err = said("spike", "--target", target, "--out", str(out), capsys=capsys)
    assert (status, printed) == (NOT_WRITTEN, "")
    assert f"{out} can't be written" in err


def test_programs_say_fire_and_hear_how_it_goes_and_ends(target: str, tmp_path: Path) -> None:
    asked = ("soak", "--target", target, "--peak", "5", "--duration", "2s", "--out", str(tmp_path / "run"))
    process = spike(*asked, "--control", "--paused", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    states = []
    for line in process.stdout:
        one = json.loads(line)
        states.append(one["state"])
        if one["state"] == "armed" and states.count("armed") == 1:
            process.stdin.write("fire\n")
            process.stdin.flush()
    process.wait(PATIENCE_S)
    process.stdin.close()
    process.stdout.close()
    assert [state for state in dict.fromkeys(states) if state in ("armed", "running", "ended")] == PHASES
    assert states[-1] == "ended"
    assert (one["exit_code"], one["folder"]) == (process.returncode, str(tmp_path / "run"))
    assert "10 of 10 served" in one["headline"]


def test_on_a_terminal_enter_begins_and_ctrl_c_ends_in_order(target: str, tmp_path: Path) -> None:
    asked = ("soak", "--target", target, "--peak", "5", "--duration", "60s", "--out", str(tmp_path / "run"))
    ours, theirs = pty.openpty()
    process = spike(*asked, "--paused", stdin=theirs, stderr=theirs, stdout=subprocess.PIPE)
    os.close(theirs)
    shown = heard(ours, "\x1b[2Kready")
    assert "Press Enter" in shown
    os.write(ours, b"\n")
    heard(ours, "served 3")
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=PATIENCE_S)
    os.close(ours)
    assert process.returncode == INTERRUPTED
    assert out.startswith("STOPPED before its time\n")
    assert read_run(tmp_path / "run").summary.counts.served >= 3


def test_ctrl_c_before_anything_was_sent_says_so(tmp_path: Path) -> None:
    """The target takes the connection and says nothing."""
    silent = "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True);"
    silent += "c, _ = s.accept(); print('asked', flush=True); c.recv(9999); s.accept()"
    with subprocess.Popen([sys.executable, "-c", silent], stdout=subprocess.PIPE, text=True) as server:
        url = f"http://127.0.0.1:{server.stdout.readline().strip()}"
        process = spike("spike", "--target", url, "--out", str(tmp_path / "run"), stderr=subprocess.PIPE)
        assert server.stdout.readline() == "asked\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE_S)
        server.kill()
    assert process.returncode == INTERRUPTED
    assert err == "Interrupted before anything was sent.\n"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("5m", 300), ("1h", 3600), ("1.5h", 5400), ("50ms", 0.05), ("0.5s", 0.5)]
)
def test_times_have_units(text: str, seconds: float) -> None:
    assert written.length_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "90", "s", "1d", "-5s", "5 m", "1h30m", "infs", "٣s"])
def test_a_time_without_a_unit_is_none(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="90s, 5m or 1h"):
        written.length_s(text)


def test_options_that_are_not_given_are_what_a_plan_has_without_them() -> None:
    for scenario in SCENARIOS.values():
        parser = argparse.ArgumentParser()
        add_arguments(parser, scenario)
        given = ["--room", "KWXM"]
        assert plan(scenario.name, written.options(parser.parse_args(given))) == plan(
            scenario.name, Options(room="KWXM")
        )


def test_the_page_has_every_option_scenario_exit_code_file_and_figure() -> None:
    for scenario in SCENARIOS.values():
        one = argparse.ArgumentParser(add_help=False, conflict_handler="resolve")
        add_arguments(one, scenario)
        for action in one._actions:
            assert f"`{action.option_strings[0]}" in PAGE, action.option_strings
    for name in SCENARIOS:
        assert re.search(rf"^\| `{name}` \|", PAGE, re.MULTILINE), name
    for code in (PASS, BAD_INPUT, NOT_WRITTEN, INVALID, FAIL, STOPPED, INTERRUPTED, SCRIPT):
        assert re.search(rf"^\| {code} \|", PAGE, re.MULTILINE), code
    for name in (*folder.FILES, *(field.name for field in fields(Summary))):
        assert re.search(rf"^\| .*`{re.escape(name)}`", PAGE, re.MULTILINE), name
