"""`crowdspike rehearse` as a person runs it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest

from inference.cluster import manifests
from webapp.cli import main

QUICK = ("--phones", "60", "--minutes", "10", "--lobby-minutes", "3", "--answer-tokens", "80")


def test_it_compares_the_base_with_its_crowd_aware_overlay(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rehearse", *QUICK]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Scaling LLMs on Kubernetes: 60 phones, ")
    assert "seed 1; simulated" in out
    head = next(line for line in out.splitlines() if "crowd-aware" in line)
    assert head.split() == ["base", "crowd-aware"]
    for label in ("TTFT p95", "requests over 1 s", "requests refused", "GPU-hours", "cost", "pods at most"):
        assert label in out
    assert "crowd-aware against base: TTFT p95 " in out


def test_the_same_command_writes_the_same_files_byte_for_byte(tmp_path: Path) -> None:
    for name in ("one", "two"):
        files = ("--json", str(tmp_path / f"{name}.json"), "--plot", str(tmp_path / f"{name}.svg"))
        assert main(["rehearse", *QUICK, *files]) == 0
    for suffix in ("json", "svg"):
        assert (tmp_path / f"one.{suffix}").read_bytes() == (tmp_path / f"two.{suffix}").read_bytes()
    data = json.loads((tmp_path / "one.json").read_text(encoding="utf-8"))
    assert [one["name"] for one in data["configurations"]] == ["base", "crowd-aware"]
    for one in data["configurations"]:
        assert one["figures"]["requests"] > 0
        assert {len(values) for values in one["points"].values()} == {len(one["points"]["at_s"])}
    assert ElementTree.parse(tmp_path / "one.svg").getroot().tag.endswith("svg")


def test_any_number_of_folders_are_compared_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = manifests.defaults()
    own = shutil.copytree(base, tmp_path / "own & <mine>")
    twin = shutil.copytree(base, tmp_path / "twin" / "base")
    plot = tmp_path / "plot.svg"
    folders = [word for folder in (base, own, twin) for word in ("--manifests", str(folder))]
    assert main(["rehearse", *QUICK, *folders, "--plot", str(plot)]) == 0
    out = capsys.readouterr().out
    assert out.count(" against 1: ") == 2, "two of them have one name, so all are told by their paths"
    assert "TTFT p95 the same, the same cost." in out
    assert "own & <mine>" in "".join(ElementTree.parse(plot).getroot().itertext())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--profile", "abacus"), "no profile 'abacus'"),
        (("--manifests", "no-such-folder"), "no-such-folder"),
        (("--talk", "no-such-talk.yaml"), "no-such-talk.yaml"),
        ((*QUICK, "--json", "no-such-folder/out.json"), "no-such-folder/out.json can't be written"),
    ],
)
def test_what_can_not_be_used_is_said_and_nothing_breaks(
    arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rehearse", *arguments]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [("--phones", "-1"), ("--phones", "50000"), ("--minutes", "soon")])
def test_options_out_of_bounds_are_refused(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["rehearse", *arguments])
    assert "is not a" in capsys.readouterr().err
