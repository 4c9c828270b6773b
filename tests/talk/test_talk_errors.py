"""Each mistake in a talk file is found where it is, and its message says what would be right."""

from pathlib import Path

import pytest

from webapp.talk.parse import Problem, TalkError, load_talk, parse_talk

QUIZ = "title: T\nactivities:\n  - quiz: Q\n    options: [correct: a, b]\n"


def errors(text: str, base: Path | None = None) -> tuple[Problem, ...]:
    with pytest.raises(TalkError) as caught:
        parse_talk(text, "talk.yaml", base)
    assert str(caught.value) == "\n".join(str(problem) for problem in caught.value.errors)
    assert all("\n" not in str(problem) for problem in caught.value.errors)
    return caught.value.errors


def options(*lines: str) -> str:
    return "title: T\nactivities:\n  - quiz: Q\n    options:\n" + "".join(f"      - {line}\n" for line in lines)


def field(text: str) -> str:
    return f"title: T\nactivities:\n  - survey: S\n    fields:\n      - {text}\n"


def head(text: str) -> str:
    return f"{text}\ntitle: T\nactivities: [ask: A]\n"


GRAMMAR_MISTAKES = [
    # the talk
    ("[a]", "1:1", "", "is a list, not a group of keys; give keys"),
    ("just text", "1:1", "", "is text, not a group of keys"),
    ("title: T", "1:1", "activities", "is missing; give 1 to 100 activities"),
    ("activities: [ask: A]", "1:1", "title", "is missing; give `title: text`"),
    ("title:\nactivities: [ask: A]", "1:7", "title", "is empty; give text"),
    ("title: ''\nactivities: [ask: A]", "1:8", "title", "is empty"),
    (f"title: {'x' * 201}\nactivities: [ask: A]", "1:8", "title", "is 201 characters long; give at most 200"),
    ("title: [a]\nactivities: [ask: A]", "1:8", "title", "is a list, not text"),
    ('title: "a\\0b"\nactivities: [ask: A]', "1:8", "title", "has the control character '\\x00'"),
    ('title: "\\ud800"\nactivities: [ask: A]', "1:8", "title", "has the control character '\\ud800'"),
    (head("titel: T"), "1:1", "", "unknown key 'titel'; did you mean title?"),
    (head("zzz: T"), "1:1", "", "unknown key 'zzz'; known here: title, subtitle"),
    (head("speaker: A\nspeaker: B"), "2:1", "", "'speaker' comes twice, first in line 1; keep one"),
    (head("<<: {subtitle: x}"), "1:1", "", "unknown key '<<'"),
    (head("language: English please"), "1:11", "language", "is no language tag; give one such as en"),
    (head("moderation: maybe"), "1:13", "moderation", "'maybe' is neither; give true or false"),
    (head(f"persona: {'x' * 2001}"), "1:10", "persona", "give at most 2000"),
    (head("theme: blue"), "1:8", "theme", "is text, not a group of keys; give keys, such as `accent: …`"),
    (head("theme:\n  accent: #123456"), "2:10", "theme.accent", "text that begins with # needs quotes"),
    (head("theme:\n  accent: blue"), "2:11", "theme.accent", "'blue' is no colour; give one such as \"#5b5bd6\""),
    (head("theme:\n  accent: '#abc'"), "2:11", "theme.accent", "is no colour"),
    (head("scoring: {speed: fast}"), "1:18", "scoring.speed", "'fast' is neither; give true or false"),
    (head("scoring: {streak: true}"), "1:11", "scoring", "did you mean streaks?"),
    # activities
    ("title: T\nactivities: []", "2:13", "activities", "has no activities; give 1 to 100 activities"),
    ("title: T\nactivities: quiz", "2:13", "activities", "is text, not a list"),
    ("title: T\nactivities:\n  quiz: Q", "3:3", "activities", "is a group of keys, not a list"),
    ("title: T\nactivities:\n" + "  - ask: A\n" * 101, "3:3", "activities", "has 101 activities; give 1 to 100"),
    ("title: T\nactivities: [Hello]", "2:14", "activities[0]", "one of: quiz, ask, survey, raffle"),
    ("title: T\nactivities: [{}]", "2:14", "activities[0]", "one of: quiz, ask, survey, raffle"),
    ("title: T\nactivities:\n  - quizz: Q", "3:5", "activities[0]", "unknown key 'quizz'; did you mean quiz?"),
    ("title: T\nactivities:\n  - poll: Q", "3:5", "activities[0]", "one of: quiz, ask, survey, raffle"),
    ("title: T\nactivities:\n  - ask: A\n    quiz: Q", "3:5", "activities[0]", "is quiz and ask at once"),
    (QUIZ + "    timelimit: 5", "5:5", "activities[0]", "unknown key 'timelimit'; did you mean time_limit?"),
    (QUIZ + "    id: Q 1", "5:9", "activities[0].id", "'Q 1' is no id; give 1 to 40 of a-z, 0-9 and -"),
    (QUIZ + f"    id: {'x' * 41}", "5:9", "activities[0].id", "give at most 40"),
    (QUIZ + "    id: x\n  - ask: A\n    id: x", "6:5", "activities[1]", "id 'x' is taken by an item above"),
    (QUIZ + "    time_limit: 900", "5:17", "activities[0].time_limit", "900 is too long; give 5 to 300 seconds"),
    (QUIZ + "    time_limit: 4", "5:17", "activities[0].time_limit", "4 is too short; give 5 to 300 seconds"),
    (QUIZ + "    time_limit: 20s", "5:17", "activities[0].time_limit", "'20s' is not a whole number; give 5 to"),
    (QUIZ + "    time_limit: 2.5", "5:17", "activities[0].time_limit", "not a whole number"),
    (QUIZ + "    time_limit: ٣٠", "5:17", "activities[0].time_limit", "not a whole number"),
    (QUIZ + f"    time_limit: {'9' * 499}", "5:17", "activities[0].time_limit", "not a whole number"),
    (QUIZ + "    points: -1", "5:13", "activities[0].points", "-1 is too small; give 0 to 10000"),
    (QUIZ + "    points: 10001", "5:13", "activities[0].points", "10001 is too large; give 0 to 10000"),
    (QUIZ + f"    explanation: {'x' * 601}", "5:18", "activities[0].explanation", "give at most 600"),
    (QUIZ.replace("Q", "Q" * 501), "3:11", "activities[0].quiz", "is 501 characters long; give at most 500"),
    (QUIZ.replace("Q", "{a: b}"), "3:11", "activities[0].quiz", "is a group of keys, not text"),
    # options
    ("title: T\nactivities: [quiz: Q]", "2:14", "activities[0].options", "is missing; give 2 to 6 options"),
    (options("correct: a"), "5:7", "activities[0].options", "has 1 options; give 2 to 6 options"),
    (options("correct: a", *"bcdefg"), "5:7", "activities[0].options", "has 7 options; give 2 to 6 options"),
    (options("a", "b"), "5:7", "activities[0].options", "no option is right; write a right one as `correct: text`"),
    (options("correct: a", "correct: b"), "5:7", "activities[0].options", "every option is right"),
    (options("correct: a", "b", "b"), "7:9", "activities[0].options[2]", "'b' is there already"),
    (options("correct: a", "x" * 201), "6:9", "activities[0].options[1]", "give at most 200"),
    (options("correct: " + "x" * 201, "b"), "5:18", "activities[0].options[0].correct", "give at most 200"),
    (options("correct: a", "Which: one"), "6:9", "activities[0].options[1]", "a right one as `correct: text`"),
    (options("correct: a", "corect: b"), "6:9", "activities[0].options[1]", "did you mean correct?"),
    (options("correct: a", "{text: b, correct: true}", "c"), "6:10", "activities[0].options[1]", "unknown key 'text'"),
    (options("correct: a", "[b]"), "6:9", "activities[0].options[1]", "is a list, not text"),
    (options("correct: a", ""), "6:8", "activities[0].options[1]", "is empty"),
    # code and picture
    (QUIZ + "    code: print()", "5:11", "activities[0].code", "not a group of keys"),
    (QUIZ + "    code: {language: yaml}", "5:11", "activities[0].code.text", "is missing"),
    (
        QUIZ + "    code: {language: klingon, text: a}",
        "5:22",
        "activities[0].code.language",
        "'klingon' is no language",
    ),
    (QUIZ + "    picture: a.png", "5:14", "activities[0].picture", "give keys, such as `file: …`"),
    (QUIZ + "    picture: {alt: A}", "5:14", "activities[0].picture.file", "is missing"),
    (QUIZ + "    picture: {file: a.png, alt: A}", "5:21", "activities[0].picture.file", "not read from a folder"),
    # ask, survey, raffle
    ("title: T\nactivities:\n  - ask: A\n    max_questions: 0", "4:20", "activities[0].max_questions", "give 1 to 20"),
    ("title: T\nactivities:\n  - ask: A\n    examples: Why?", "4:15", "activities[0].examples", "not a list"),
    ("title: T\nactivities: [survey: S]", "2:14", "activities[0].fields", "is missing; give 1 to 20 fields"),
    (field("rate: R"), "5:9", "activities[0].fields[0]", "unknown key 'rate'; did you mean rating?"),
    (field("number: R"), "5:9", "activities[0].fields[0]", "one of: rating, choice, choices, text"),
    (field("{rating: R, scale: 11}"), "5:28", "activities[0].fields[0].scale", "11 is too large; give 3 to 10"),
    (field("{rating: R, options: [a, b]}"), "5:21", "activities[0].fields[0]", "unknown key 'options'"),
    (field("{rating: R, required: 1}"), "5:31", "activities[0].fields[0].required", "give true or false"),
    (field("{choice: C}"), "5:9", "activities[0].fields[0].options", "is missing; give 2 to 12 options"),
    (field("{choice: C, options: [a]}"), "5:30", "activities[0].fields[0].options", "has 1 options"),
    (field("{choices: C, options: [a, a]}"), "5:35", "activities[0].fields[0].options[1]", "'a' is there already"),
    (field("{text: C, max_length: 2001}"), "5:31", "activities[0].fields[0].max_length", "give 1 to 2000"),
    (field("{text: C, id: a}\n      - {text: D, id: a}"), "6:9", "activities[0].fields[1]", "id 'a' is taken"),
    ("title: T\nactivities: [raffle: R]", "2:14", "activities[0].prizes", "is missing; give 1 to 20 prizes"),
    ("title: T\nactivities:\n  - {raffle: R, prizes: []}", "3:25", "activities[0].prizes", "has no prizes"),
    # qa
    (head("qa: {a: b}"), "1:5", "qa", "is a group of keys, not a list"),
    (head("qa: [{question: Q}]"), "1:6", "qa[0].answer", "is missing"),
    (head("qa: [{question: Q, answer: A, keywords: a b}]"), "1:41", "qa[0].keywords", "is text, not a list"),
    (head("qa: []\nqa_file: a.yaml"), "2:10", "qa_file", "comes beside `qa`; give one of the two"),
    (head("qa_file: a.yaml"), "1:10", "qa_file", "not read from a folder"),
]

YAML_MISTAKES = [
    ("", "1:1", "the file is empty; a talk begins with `title: …`"),
    ("# only a comment\n", "1:1", "the file is empty"),
    ("title: What: a talk", "1:12", 'text with ": " in it needs quotes'),
    ("title:\n\tsub: x", "2:1", "use spaces, not tabs, to indent"),
    ("title: 'open\nactivities:\n", "1:8", "a quote that opens here is not closed"),
    ("title: @home", "1:8", "text that begins with this character needs quotes"),
    ("title: `code`", "1:8", "text that begins with this character needs quotes"),
    ("title: 'a' b", "1:12", "check the indentation and the quotes"),
    ("title: a\n- b", "2:1", "check the indentation"),
    ("title: [a, b", "1:8", "check commas and brackets"),
    ("title: *important* news", "1:8", "text that begins with * needs quotes"),
    ("title: &- news", "1:8", "text that begins with & needs quotes"),
    ("title: !<- news", "1:8", "text that begins with ! needs quotes"),
    ("title: [Why?, a]", "1:12", "between brackets, text with any of , ? : [ ] { } needs quotes"),
    ("title: &amp news", "1:8", "'&amp' is a YAML anchor; text that begins with & needs quotes"),
    ("title: !now", "1:8", "text that begins with ! needs quotes"),
    ("title: !!python/object/apply:os.system [ls]", "1:8", "is a YAML tag"),
    ("title: a\n---\ntitle: b\n", "2:1", "a second document begins here"),
    ("title: a\x07b", "1:9", "the control character '\\x07' is not text"),
    ("title: \ud800", "1:8", "is not text; take it out"),
    ('title: "\\UFFFFFFFF"', "1:11", "is out of range"),
    ("{[a]: b}", "1:2", "a key must be text"),
    ("[" * 5000, "1:22", "too much: at most 20 levels"),
    ("- a\n" * 50_001, "50000:3", "too much"),
    ("a: &a [x]\nb: &b [*a, *a]\nc: [*b, *b]", "1:4", "is a YAML anchor"),
]


@pytest.mark.parametrize(("text", "where", "field", "words"), GRAMMAR_MISTAKES)
def test_a_mistake_is_named_with_its_place_and_remedy(text: str, where: str, field: str, words: str) -> None:
    found = errors(text)
    assert len(found) == 1, found
    line = str(found[0])
    assert line.startswith(f"talk.yaml:{where}: {field}: " if field else f"talk.yaml:{where}: ")
    assert found[0].field == field
    assert words in line


@pytest.mark.parametrize(("text", "where", "words"), YAML_MISTAKES)
def test_bad_yaml_is_named_in_the_same_shape(text: str, where: str, words: str) -> None:
    found = errors(text)
    assert len(found) == 1
    assert str(found[0]).startswith(f"talk.yaml:{where}: ")
    assert words in str(found[0])


def test_all_mistakes_are_named_at_once_in_the_order_of_the_file() -> None:
    found = errors("""\
titel: Oops
activities:
  - quiz: Q
    time_limit: 900
    options: [a, b]
  - survey: S
    fields:
      - rating: R
        scale: 99
      - what: is this
  - nothing
theme: {accent: red}
""")
    assert [(p.line, p.field) for p in found] == [
        (1, ""),
        (1, "title"),
        (4, "activities[0].time_limit"),
        (5, "activities[0].options"),
        (9, "activities[1].fields[0].scale"),
        (10, "activities[1].fields[1]"),
        (11, "activities[2]"),
        (12, "theme.accent"),
    ]


def test_a_hopeless_file_gives_a_hundred_problems_at_most() -> None:
    assert len(errors("".join(f"zz{i}: x\n" for i in range(5000)))) == 100


def test_a_long_value_is_cut_in_its_message() -> None:
    (found,) = errors(QUIZ + f"    {'k' * 900}: x")
    assert len(str(found)) < 300


def test_a_text_of_more_than_a_mebibyte_is_refused() -> None:
    (found,) = errors("# " + "x" * 1024 * 1024)
    assert str(found) == "talk.yaml: is too large; give at most 1 MiB"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"title: T\nspeaker: Ren\xe9\n", ":2:13: byte 0xe9 is not UTF-8; save the file as UTF-8"),
        ("title: T".encode("utf-16"), ":1:1: byte 0xff is not UTF-8; save the file as UTF-8"),
        (b"#" * (1024 * 1024 + 1), ": is too large; give at most 1 MiB"),
        (b"", ":1:1: the file is empty; a talk begins with `title: …` and has `activities:`"),
    ],
)
def test_a_file_that_is_no_text_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "talk.yaml"
    path.write_bytes(content)
    with pytest.raises(TalkError) as caught:
        load_talk(path)
    assert str(caught.value) == f"{path}{message}"


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(TalkError, match=r"none\.yaml: there is no such file$"):
        load_talk(tmp_path / "none.yaml")
    with pytest.raises(TalkError, match=r": cannot be read: Is a directory$"):
        load_talk(tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.png", "there is no such file"),
        ("drawing.svg", "is an SVG, which may carry scripts; give a png, jpg or webp"),
        ("talk.gif", "is no picture that we show; give a png, jpg or webp"),
        ("fake.png", "has a picture's name, but not its content"),
        ("large.png", "is too large; give at most 512 KiB"),
        ("folder.png", "cannot be read: Is a directory"),
        ("../secret.png", "is outside of the talk's folder"),
        ("/etc/hostname", "is outside of the talk's folder"),
        ("link.png", "is outside of the talk's folder"),
        ("loop.png", "is no path"),
    ],
)
def test_a_picture_that_cannot_be_shown_is_named(tmp_path: Path, name: str, message: str) -> None:
    folder = tmp_path / "talk"
    (folder / "folder.png").mkdir(parents=True)
    (tmp_path / "secret.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    (folder / "loop.png").symlink_to(folder / "loop.png")
    (folder / "fake.png").write_bytes(b"<svg onload=alert(1)>")
    (folder / "large.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(512 * 1024))
    (found,) = errors(QUIZ + f"    picture: {{file: {name}, alt: A}}", folder)
    assert (found.line, found.column, found.field) == (5, 21, "activities[0].picture.file")
    assert f"{name!r} {message}" in found.message


def test_a_picture_needs_words(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (found,) = errors(QUIZ + "    picture: {file: a.png}", tmp_path)
    assert str(found) == "talk.yaml:5:14: activities[0].picture.alt: is missing; give `alt: text`"


def test_a_mistake_in_the_answers_carries_their_files_name(tmp_path: Path) -> None:
    (tmp_path / "answers.yaml").write_text("- {question: Q, answer: A}\n- {question: Q}\n")
    (tmp_path / "broken.yaml").write_text("a: 'b")
    (tmp_path / "talk.yaml").write_text("title: T\nqa_file: answers.yaml\nactivities: [ask: A]\nzzz: 1\n")
    with pytest.raises(TalkError) as caught:
        load_talk(tmp_path / "talk.yaml")
    first, second = str(caught.value).splitlines()
    assert first.startswith(f"{tmp_path / 'talk.yaml'}:4:1: unknown key 'zzz'")
    assert second.startswith(f"{tmp_path / 'answers.yaml'}:2:3: qa[1].answer: is missing")
    (found,) = errors(head("qa_file: broken.yaml"), tmp_path)
    assert str(found).startswith("broken.yaml:1:4: not YAML")
    (found,) = errors(head("qa_file: ../talk.yaml"), tmp_path)
    assert str(found).startswith("talk.yaml:1:10: qa_file: '../talk.yaml' is outside of the talk's folder")
