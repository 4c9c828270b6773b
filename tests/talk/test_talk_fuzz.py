"""Whatever stands in a talk file, reading it gives a talk or a TalkError, never anything else."""

import json
from pathlib import Path

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from webapp.talk.model import from_json, to_json
from webapp.talk.parse import GRAMMAR, TalkError, load_talk, parse_talk
from webapp.talk.samples import talk_paths

SAMPLE = talk_paths()[0]
SHORT_SAMPLE = "\n  - question: ".join(SAMPLE.read_text().split("\n  - question: ", 3)[:3])
MARKS = st.sampled_from(
    [*"\t\n :-#&*!|>'\"%@`{}[],?~", "- ", ": ", "\n  - ", "\n\n---\n", "\ufeff", '"\\u0000"', "<<: "]
)
KEYS = st.sampled_from(sorted({key for keys in GRAMMAR.values() for key in keys}))
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 10**6) | st.text(max_size=8) | st.sampled_from(["", "#5b5bd6", "yaml"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=25,
)


def read(text: str, base: Path | None = None) -> None:
    """Reads a text, and checks what came of it either way."""
    try:
        talk = parse_talk(text, "talk.yaml", base)
    except TalkError as error:
        lines = str(error).splitlines()
        assert len(lines) == len(error.errors) <= 101
        assert all(line.startswith("talk.yaml:") for line in lines)
    else:
        assert from_json(json.loads(json.dumps(to_json(talk)))) == talk
        json.dumps(to_json(talk), ensure_ascii=False).encode()


@settings(deadline=None, max_examples=300)
@given(st.text() | st.text(alphabet=st.sampled_from("ab \n\t:-#&*!|>'\"%@`{}[],?~\\0xU")))
def test_any_text_is_a_talk_or_a_talk_error(text: str) -> None:
    read(text)


@settings(deadline=None, max_examples=150)
@given(
    st.lists(
        st.tuples(st.integers(0, len(SHORT_SAMPLE)), st.integers(0, 60), MARKS | st.text(max_size=3)),
        min_size=1,
        max_size=4,
    )
)
def test_a_damaged_sample_is_a_talk_or_a_talk_error(cuts: list[tuple[int, int, str]]) -> None:
    text = SHORT_SAMPLE
    for start, length, instead in cuts:
        text = text[:start] + instead + text[start + length :]
    read(text, SAMPLE.parent)


@settings(deadline=None, max_examples=300)
@given(st.dictionaries(st.sampled_from(GRAMMAR["talk"]), ANYTHING) | ANYTHING)
def test_known_keys_in_the_wrong_places_are_a_talk_or_a_talk_error(data: object) -> None:
    read(yaml.safe_dump(data, allow_unicode=True))


@settings(deadline=None, max_examples=100)
@given(data=st.binary())
def test_any_file_is_a_talk_or_a_talk_error(tmp_path_factory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / "talk.yaml"
    path.write_bytes(data)
    try:
        load_talk(path)
    except TalkError as error:
        assert str(error).startswith(str(path))


def test_the_damaged_sample_is_a_good_one_before_it_is_damaged() -> None:
    assert parse_talk(SHORT_SAMPLE, "talk.yaml", SAMPLE.parent).qa
