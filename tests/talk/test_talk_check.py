"""`crowdspike talk check` says what a talk holds or what is wrong, and its exit code tells scripts."""

from pathlib import Path

import pytest

from webapp.talk.check import check
from webapp.talk.samples import talk_paths


def test_a_good_talk_is_told_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "talk.yaml"
    path.write_text("""
title: A small talk
theme: {accent: "#ffff00"}
activities:
  - {quiz: Q, options: [correct: a, b], time_limit: 65}
  - {quiz: R, options: [correct: a, b]}
  - ask: A
qa: [{question: Q, answer: A}]
""")
    assert check([path]) == 0
    assert capsys.readouterr().out == (
        f"{path}: A small talk (2 quiz, 1 ask, 1 qa, 1 min 35 s of quiz time, text #000000 on #ffff00 has 19.6:1)\n"
    )


def test_one_bad_talk_among_good_ones_fails_and_hides_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("titel: T\nactivities: [ask: A]\n")
    assert check([tmp_path / "none.yaml", bad, *talk_paths()]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        f"{tmp_path / 'none.yaml'}: there is no such file",
        f"{bad}:1:1: unknown key 'titel'; did you mean title?",
        f"{bad}:1:1: title: is missing; give `title: text`",
    ]
    assert "Scaling LLMs on Kubernetes (" in lines[3]
