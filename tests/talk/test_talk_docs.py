"""docs/talk-file.md describes every key that the parser reads, no other, and its examples work."""

import re
import shutil
from pathlib import Path

import pytest

from webapp.talk.parse import GRAMMAR, parse_talk
from webapp.talk.samples import talk_paths

PAGE = (Path(__file__).parents[2] / "docs" / "talk-file.md").read_text()
SECTIONS = dict(re.findall(r"^##+ (?:The )?`(\w+)`[^\n]*\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL))
EXAMPLES = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
ANSWERS = next(example for example in EXAMPLES if example.startswith("- question:"))


def test_every_place_has_a_section() -> None:
    assert set(SECTIONS) == set(GRAMMAR)


@pytest.mark.parametrize("place", GRAMMAR)
def test_a_section_describes_the_keys_that_are_read_there(place: str) -> None:
    assert re.findall(r"^\| `(\w+)` \|", SECTIONS[place], re.MULTILINE) == list(GRAMMAR[place])


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda text: text.splitlines()[0])
def test_an_example_works(example: str, tmp_path: Path) -> None:
    shutil.copytree(talk_paths()[0].parent / "pictures", tmp_path / "pictures")
    (tmp_path / "answers.yaml").write_text(ANSWERS)
    if example is ANSWERS:
        example = "title: T\nqa_file: answers.yaml\nactivities: [ask: A]\n"
    elif example.startswith("- "):
        example = f"title: T\nactivities:\n{example}"
    assert parse_talk(example, "talk-file.md", tmp_path).activities


def test_the_page_has_an_example_of_every_kind() -> None:
    assert len(EXAMPLES) >= 10
    assert all(
        f"- {kind}: " in PAGE for kind in ("quiz", "ask", "survey", "raffle", "rating", "choice", "choices", "text")
    )
