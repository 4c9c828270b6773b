"""A talk file becomes a `Talk`, or a `TalkError` that lists everything that is wrong with it.

The grammar of docs/talk-file.md: which keys there are, what they may hold. How a value is read and where it stands is
`place.py`'s matter, YAML `yaml_marks.py`'s.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TypeVar

from pygments.lexers import find_lexer_class_by_name
from pygments.util import ClassNotFound

from webapp.talk import files
from webapp.talk.model import (
    QA,
    Activity,
    Ask,
    Code,
    Field,
    FieldKind,
    Kind,
    Option,
    Picture,
    Quiz,
    Raffle,
    Scoring,
    Survey,
    Talk,
    Theme,
)
from webapp.talk.place import Fields, Place
from webapp.talk.problems import Malformed, Problem, TalkError, Unreadable, quoted
from webapp.talk.yaml_marks import read_tree

__all__ = ["GRAMMAR", "Problem", "TalkError", "load_talk", "parse_talk"]

# The keys of each place in the file; docs/talk-file.md describes every one of them.
GRAMMAR: dict[str, tuple[str, ...]] = {
    "talk": (
        "title", "subtitle", "speaker", "language", "theme", "scoring", "moderation", "persona",
        "activities", "qa", "qa_file",
    ),
    "theme": ("accent",),
    "scoring": ("speed", "streaks"),
    "quiz": ("quiz", "id", "options", "time_limit", "points", "explanation", "code", "picture"),
    "option": ("correct",),
    "code": ("language", "text"),
    "picture": ("file", "alt"),
    "ask": ("ask", "id", "prompt", "examples", "max_questions"),
    "survey": ("survey", "id", "prompt", "fields"),
    "rating": ("rating", "id", "required", "scale", "low", "high"),
    "choice": ("choice", "id", "required", "options"),
    "choices": ("choices", "id", "required", "options"),
    "text": ("text", "id", "required", "max_length"),
    "raffle": ("raffle", "id", "prompt", "prizes"),
    "qa": ("question", "answer", "keywords"),
}  # fmt: skip

LINE, QUESTION, SHORT, LONG = 200, 500, 40, 2000  # characters
EXPLANATION = 600
OPTION_IDS = "abcdef"
OPTION_HINT = (
    "write a wrong option as plain text and a right one as `correct: text` (text with ': ' in it needs quotes)"
)
ID_PREFIXES = {Kind.QUIZ: "q"}  # the other kinds number their own names: ask1, survey1, rating1

_TALK = Talk(title="", activities=())
_QUIZ = Quiz(id="", title="", options=())
_ASK = Ask(id="", title="")
_FIELD = Field(id="", label="", kind=FieldKind.TEXT)
_CODE = Code(text="")

Numbered = TypeVar("Numbered", Quiz, Ask, Survey, Raffle, Field)


def load_talk(path: Path) -> Talk:
    """The talk in a file. Raises TalkError, also for a file that is missing or cannot be read."""
    source = str(path)
    try:
        text = files.read_text(path)
    except Unreadable as error:
        raise TalkError((Problem(source, 0, 0, "", str(error)),)) from None
    except Malformed as error:
        raise TalkError((Problem(source, error.line, error.column, "", error.message),)) from None
    return parse_talk(text, source, path.parent)


def parse_talk(text: str, source: str, base: Path | None) -> Talk:
    """The talk in `text`. `source` is its name in messages, `base` the folder of its pictures (None: it may have none).
    Raises TalkError with every problem; only bad YAML hides what comes after it."""
    if len(text) > files.MAX_TEXT_BYTES:
        raise TalkError((Problem(source, 0, 0, "", "is too large; give at most 1 MiB"),))
    problems: list[Problem] = []
    try:
        root = read_tree(text.removeprefix("\ufeff"))
    except Malformed as error:
        raise TalkError((Problem(source, error.line, error.column, "", error.message),)) from None
    talk = _talk(Place(root, "", source, problems), base)
    if problems:
        raise TalkError(tuple(sorted(problems, key=lambda p: (p.source != source, p.line, p.column))))
    return talk


def _talk(place: Place, base: Path | None) -> Talk:
    fields = place.fields(GRAMMAR["talk"])
    language = fields.text("language", SHORT, _TALK.language)
    if language and not re.fullmatch(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*", language):
        fields.found["language"].wrong(f"{quoted(language)} is no language tag; give one such as en, de or pt-BR")
    return Talk(
        title=fields.text("title", LINE),
        subtitle=fields.text("subtitle", LINE, _TALK.subtitle),
        speaker=fields.text("speaker", LINE, _TALK.speaker),
        language=language,
        persona=fields.text("persona", LONG, _TALK.persona),
        moderation=fields.flag("moderation", _TALK.moderation),
        theme=_theme(fields.get("theme")),
        scoring=_scoring(fields.get("scoring")),
        activities=_activities(fields.items("activities", 1, 100), base),
        qa=_qa(fields, base),
    )


def _theme(place: Place | None) -> Theme:
    if place is None:
        return _TALK.theme
    fields = place.fields(GRAMMAR["theme"])
    accent = fields.text("accent", SHORT, _TALK.theme.accent)
    if accent and not re.fullmatch(r"#[0-9a-fA-F]{6}", accent):
        fields.found["accent"].wrong(f'{quoted(accent)} is no colour; give one such as "#5b5bd6", in quotes')
    return Theme(accent.lower())


def _scoring(place: Place | None) -> Scoring:
    if place is None:
        return _TALK.scoring
    fields = place.fields(GRAMMAR["scoring"])
    return Scoring(fields.flag("speed", _TALK.scoring.speed), fields.flag("streaks", _TALK.scoring.streaks))


def _activities(places: Sequence[Place], base: Path | None) -> tuple[Activity, ...]:
    found = [(place, _activity(place, base)) for place in places]
    return _with_ids([(place, activity) for place, activity in found if activity])


def _activity(place: Place, base: Path | None) -> Activity | None:
    kind = _kind(place, tuple(Kind))
    if kind is None:
        return None
    fields = place.fields(GRAMMAR[kind])
    activity_id, title = _id(fields), fields.text(kind, QUESTION)
    match Kind(kind):
        case Kind.QUIZ:
            return _quiz(activity_id, title, fields, base)
        case Kind.ASK:
            examples = fields.texts("examples", 0, 10, QUESTION)
            most = fields.whole("max_questions", 1, 20, _ASK.max_questions)
            return Ask(activity_id, title, fields.text("prompt", QUESTION, ""), examples, most)
        case Kind.SURVEY:
            asked = [(item, _field(item)) for item in fields.items("fields", 1, 20)]
            numbered = _with_ids([(item, field) for item, field in asked if field])
            return Survey(activity_id, title, numbered, fields.text("prompt", QUESTION, ""))
        case Kind.RAFFLE:
            prizes = fields.texts("prizes", 1, 20, LINE)
            return Raffle(activity_id, title, prizes, fields.text("prompt", QUESTION, ""))


def _quiz(quiz_id: str, title: str, fields: Fields, base: Path | None) -> Quiz:
    return Quiz(
        id=quiz_id,
        title=title,
        options=_options(fields),
        time_limit_s=fields.whole("time_limit", 5, 300, _QUIZ.time_limit_s, "seconds"),
        points=fields.whole("points", 0, 10_000, _QUIZ.points),
        explanation=fields.text("explanation", EXPLANATION, ""),
        code=_code(fields.get("code")),
        picture=_picture(fields.get("picture"), base),
    )


def _options(fields: Fields) -> tuple[Option, ...]:
    options: list[Option] = []
    places = fields.items("options", 2, len(OPTION_IDS))
    for option_id, place in zip(OPTION_IDS, places, strict=False):
        options.append(_option(option_id, place))
    _no_doubles(places, [option.text for option in options])
    if len(options) >= 2:
        right = sum(option.correct for option in options)
        if right == 0:
            fields.found["options"].wrong("no option is right; write a right one as `correct: text`")
        elif right == len(options):
            fields.found["options"].wrong("every option is right; write a wrong one as plain text")
    return tuple(options)


def _option(option_id: str, place: Place) -> Option:
    if not place.keys():
        return Option(option_id, place.text(LINE))
    fields = place.fields(GRAMMAR["option"], OPTION_HINT)
    return Option(option_id, fields.text("correct", LINE, ""), correct="correct" in fields.found)


def _code(place: Place | None) -> Code | None:
    if place is None:
        return None
    fields = place.fields(GRAMMAR["code"])
    language = fields.text("language", SHORT, _CODE.language)
    try:
        find_lexer_class_by_name(language or _CODE.language)
    except ClassNotFound:
        message = f"{quoted(language)} is no language that Pygments knows; give one such as yaml, python, bash or text"
        fields.found["language"].wrong(message)
    text = fields.need("text", "`text: |` and the code")
    return Code(text.text(LONG, indented=True) if text else "", language)


def _picture(place: Place | None, base: Path | None) -> Picture | None:
    if place is None:
        return None
    fields = place.fields(GRAMMAR["picture"])
    name, alt = fields.text("file", LINE), fields.text("alt", QUESTION)
    if not name:
        return None
    try:
        return Picture(files.picture_src(files.beside(base, name)), alt)
    except Unreadable as error:
        fields.found["file"].wrong(f"{quoted(name)} {error}")
        return None


def _field(place: Place) -> Field | None:
    kind = _kind(place, tuple(FieldKind))
    if kind is None:
        return None
    fields = place.fields(GRAMMAR[kind])
    field = Field(_id(fields), fields.text(kind, QUESTION), FieldKind(kind), fields.flag("required", _FIELD.required))
    match FieldKind(kind):
        case FieldKind.RATING:
            scale = fields.whole("scale", 3, 10, _FIELD.scale)
            return replace(field, scale=scale, low=fields.text("low", SHORT, ""), high=fields.text("high", SHORT, ""))
        case FieldKind.CHOICE | FieldKind.CHOICES:
            places = fields.items("options", 2, 12)
            options = tuple(item.text(LINE) for item in places)
            _no_doubles(places, options)
            return replace(field, options=options)
        case FieldKind.TEXT:
            return replace(field, max_length=fields.whole("max_length", 1, LONG, _FIELD.max_length))


def _qa(fields: Fields, base: Path | None) -> tuple[QA, ...]:
    places, file = fields.items("qa", 0, 500), fields.get("qa_file")
    if file and "qa" in fields.found:
        file.wrong("comes beside `qa`; give one of the two")
    elif file:
        places = _qa_file(file, base)
    return tuple(_answer(place.fields(GRAMMAR["qa"])) for place in places)


def _qa_file(place: Place, base: Path | None) -> list[Place]:
    """The entries of another file; their problems carry that file's name."""
    name = place.text(LINE)
    if not name:
        return []
    source = str(Path(place.source).parent / name)
    try:
        root = read_tree(files.read_text(files.beside(base, name)))
    except Unreadable as error:
        place.wrong(f"{quoted(name)} {error}")
        return []
    except Malformed as error:
        place.problems.append(Problem(source, error.line, error.column, "", error.message))
        return []
    return Place(root, "qa", source, place.problems).items(0, 500, "qa")


def _answer(fields: Fields) -> QA:
    return QA(
        question=fields.text("question", QUESTION),
        answer=fields.text("answer", LONG),
        keywords=fields.texts("keywords", 0, 20, SHORT),
    )


def _kind(place: Place, kinds: tuple[str, ...]) -> str | None:
    """Which of `kinds` the keys here name; none or several of them is a problem."""
    keys = place.keys()
    named = [kind for kind in kinds if any(key.text == kind for key in keys)]
    if len(named) == 1:
        return named[0]
    if named:
        place.wrong(f"is {' and '.join(named)} at once; make each an item of its own")
    elif keys:
        place.unknown(keys[0], kinds, f"an item here says what it is with one of: {', '.join(kinds)}")
    else:
        place.wrong(f"says no kind; begin with one of: {', '.join(kinds)}, such as `- {kinds[0]}: …`")
    return None


def _id(fields: Fields) -> str:
    text = fields.text("id", SHORT, "")
    if text and not re.fullmatch(r"[a-z0-9-]{1,40}", text):
        fields.found["id"].wrong(f"{quoted(text)} is no id; give 1 to 40 of a-z, 0-9 and -")
    return text


def _with_ids(items: Sequence[tuple[Place, Numbered]]) -> tuple[Numbered, ...]:
    """The items, those without an id numbered by kind (`q1`, `q2`, `ask1` …), past ids that are given."""
    given: set[str] = set()
    for place, item in items:
        if item.id in given:
            place.wrong(f"id {quoted(item.id)} is taken by an item above; give each its own")
        elif item.id:
            given.add(item.id)
    counters = {kind: count(1) for kind in (*Kind, *FieldKind)}
    return tuple(item if item.id else replace(item, id=_next(item, counters, given)) for _, item in items)


def _next(item: Numbered, counters: dict[str, count[int]], given: set[str]) -> str:
    prefix = ID_PREFIXES.get(item.kind, item.kind)
    return next(name for n in counters[item.kind] if (name := f"{prefix}{n}") not in given)


def _no_doubles(places: Sequence[Place], texts: Sequence[str]) -> None:
    for i, place in enumerate(places):
        if texts[i] and texts[i] in texts[:i]:
            place.wrong(f"{quoted(texts[i])} is there already; make each option different")
