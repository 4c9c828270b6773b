"""What a talk file means: each key ends up in the talk, text stays the text that was written."""

import base64
import json
from pathlib import Path

import pytest

from webapp.talk.model import (
    QA,
    Ask,
    Code,
    Field,
    FieldKind,
    Option,
    Picture,
    Quiz,
    Raffle,
    Scoring,
    Survey,
    Talk,
    Theme,
    from_json,
    to_json,
)
from webapp.talk.parse import load_talk, parse_talk

PNG = b"\x89PNG\r\n\x1a\n rest"
JPEG = b"\xff\xd8\xff\xe0 rest"
WEBP = b"RIFF\x00\x00\x00\x00WEBP rest"


def parse(text: str, base: Path | None = None) -> Talk:
    return parse_talk(text, "talk.yaml", base)


def activities(text: str):
    return parse("title: T\nactivities:\n" + text).activities


def test_a_short_talk_has_the_defaults_of_the_model() -> None:
    talk = parse("""
title: Short
activities:
  - quiz: Q?
    options: [correct: a, b]
  - ask: Ask
  - survey: Form
    fields:
      - rating: R
      - text: T
  - raffle: Draw
    prizes: [P]
""")
    assert talk == Talk(
        title="Short",
        activities=(
            Quiz(id="q1", title="Q?", options=(Option("a", "a", True), Option("b", "b"))),
            Ask(id="ask1", title="Ask"),
            Survey(
                id="survey1",
                title="Form",
                fields=(Field("rating1", "R", FieldKind.RATING), Field("text1", "T", FieldKind.TEXT)),
            ),
            Raffle(id="raffle1", title="Draw", prizes=("P",)),
        ),
    )


def test_every_key_ends_up_in_the_talk(tmp_path: Path) -> None:
    (tmp_path / "p.png").write_bytes(PNG)
    talk = parse(
        """
title: Full
subtitle: Sub
speaker: Somebody
language: pt-BR
theme: {accent: "#ABCDEF"}
scoring: {speed: false, streaks: true}
moderation: no
persona: You are brief.
activities:
  - quiz: Which?
    id: which
    time_limit: 300
    points: 0
    explanation: Because.
    code: {language: yaml, text: "a: b"}
    picture: {file: p.png, alt: A picture}
    options:
      - correct: one
      - two
      - correct: three
  - ask: Ask
    id: the-ask
    prompt: Go on
    examples: ["One?", "Two?"]
    max_questions: 1
  - survey: Form
    id: form
    prompt: Please
    fields:
      - {rating: R, id: r, required: true, scale: 10, low: bad, high: good}
      - {choice: C, options: [x, y]}
      - {choices: D, options: [x, y, z], required: yes}
      - {text: T, max_length: 2000}
  - raffle: Draw
    prompt: Luck
    prizes: [A book, A book]
qa:
  - question: Why?
    answer: So.
    keywords: [why, 42]
""",
        tmp_path,
    )
    src = "data:image/png;base64," + base64.b64encode(PNG).decode()
    assert talk == Talk(
        title="Full",
        subtitle="Sub",
        speaker="Somebody",
        language="pt-BR",
        theme=Theme("#abcdef"),
        scoring=Scoring(speed=False, streaks=True),
        moderation=False,
        persona="You are brief.",
        activities=(
            Quiz(
                id="which",
                title="Which?",
                options=(Option("a", "one", True), Option("b", "two"), Option("c", "three", True)),
                time_limit_s=300,
                points=0,
                explanation="Because.",
                code=Code("a: b", "yaml"),
                picture=Picture(src, "A picture"),
            ),
            Ask("the-ask", "Ask", "Go on", ("One?", "Two?"), 1),
            Survey(
                "form",
                "Form",
                (
                    Field("r", "R", FieldKind.RATING, True, scale=10, low="bad", high="good"),
                    Field("choice1", "C", FieldKind.CHOICE, options=("x", "y")),
                    Field("choices1", "D", FieldKind.CHOICES, True, ("x", "y", "z")),
                    Field("text1", "T", FieldKind.TEXT, max_length=2000),
                ),
                "Please",
            ),
            Raffle("raffle1", "Draw", ("A book", "A book"), "Luck"),
        ),
        qa=(QA("Why?", "So.", ("why", "42")),),
    )
    assert from_json(json.loads(json.dumps(to_json(talk)))) == talk


@pytest.mark.parametrize(
    "written",
    ["no", "yes", "404", "1.0", "0x1F", "12:30", "null", "~", "2026-01-01", "1_000", ".inf", "True", "=", "-"],
)
def test_text_stays_as_written(written: str) -> None:
    quoted = "'-'" if written == "-" else written
    (quiz,) = activities(f"  - quiz: {quoted}\n    options:\n      - {quoted}\n      - correct: other\n")
    assert (quiz.title, quiz.options[0]) == (written, Option("a", written))


def test_norwegian_is_a_language() -> None:
    assert parse("title: T\nlanguage: no\nactivities: [ask: A]").language == "no"


def test_markup_is_only_text() -> None:
    nasty = """<script>alert('1')</script> {{ 7*7 }} <img src=x onerror="x"> ]]> &amp;"""
    (quiz,) = activities(
        f"  - quiz: |\n      {nasty}\n    options:\n"
        f"      - |\n        {nasty}\n"
        f"      - correct: |\n          {nasty}2\n"
    )
    assert (quiz.title, quiz.options[0].text, quiz.options[1].text) == (nasty, nasty, nasty + "2")


def test_true_and_false_can_be_options() -> None:
    (quiz,) = activities("  - quiz: Is it?\n    options:\n      - correct: true\n      - false\n")
    assert [(o.text, o.correct) for o in quiz.options] == [("true", True), ("false", False)]


def test_code_keeps_its_lines_and_indentation() -> None:
    (quiz,) = activities(
        "  - quiz: Q\n    options: [correct: a, b]\n    code:\n      text: |\n"
        "        if a:\n            b\n\n        c\n"
    )
    assert quiz.code == Code("if a:\n    b\n\nc")


def test_code_may_begin_with_white_space() -> None:
    (quiz,) = activities('  - quiz: Q\n    options: [correct: a, b]\n    code: {text: "  a\\n    b\\n"}\n')
    assert quiz.code == Code("  a\n    b")


def test_made_ids_step_past_given_ones() -> None:
    quiz = "  - quiz: Q\n    options: [correct: a, b]\n"
    found = activities(quiz + quiz + "    id: q1\n" + quiz + "  - ask: A\n    id: q3\n  - ask: B\n")
    assert [a.id for a in found] == ["q2", "q1", "q4", "q3", "ask1"]


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [("p.png", PNG, "png"), ("p.JPG", JPEG, "jpeg"), ("p.jpeg", JPEG, "jpeg"), ("sub/p.webp", WEBP, "webp")],
)
def test_pictures_are_embedded(tmp_path: Path, name: str, content: bytes, kind: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    text = f"title: T\nactivities:\n  - quiz: Q\n    options: [correct: a, b]\n    picture: {{file: {name}, alt: A}}\n"
    picture = parse(text, tmp_path).activities[0].picture
    assert picture == Picture(f"data:image/{kind};base64,{base64.b64encode(content).decode()}", "A")


def test_answers_may_live_in_another_file(tmp_path: Path) -> None:
    (tmp_path / "answers.yaml").write_text("- question: Why?\n  answer: So.\n")
    (tmp_path / "talk.yaml").write_text("title: T\nqa_file: answers.yaml\nactivities: [ask: A]\n")
    assert load_talk(tmp_path / "talk.yaml").qa == (QA("Why?", "So."),)


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "talk.yaml"
    path.write_bytes("\ufefftitle: Grüße\r\nactivities:\r\n  - ask: A\r\n".encode())
    assert load_talk(path).title == "Grüße"


def test_a_talk_may_have_a_hundred_activities() -> None:
    assert len(activities("  - ask: A\n" * 100)) == 100
