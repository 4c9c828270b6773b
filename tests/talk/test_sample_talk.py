"""The bundled talk is one that a presenter could give tonight."""

import json
from collections import Counter

from webapp.talk.files import MAX_PICTURE_BYTES
from webapp.talk.model import Ask, FieldKind, Kind, Quiz, Raffle, Survey, from_json, to_json
from webapp.talk.parse import load_talk
from webapp.talk.samples import SAMPLE, sample_talk, talk_paths

TALK = sample_talk()
QUIZZES = [activity for activity in TALK.activities if isinstance(activity, Quiz)]


def only(kind: type):
    (activity,) = (a for a in TALK.activities if isinstance(a, kind))
    return activity


def test_every_bundled_talk_is_good() -> None:
    assert talk_paths()[0].name == SAMPLE
    assert load_talk(talk_paths()[0]) == TALK
    assert TALK.title == "Scaling LLMs on Kubernetes"
    assert all(load_talk(path).activities for path in talk_paths())


def test_the_sample_survives_json() -> None:
    assert from_json(json.loads(json.dumps(to_json(TALK)))) == TALK


def test_the_sample_has_enough_questions_of_different_kinds() -> None:
    assert len(QUIZZES) >= 8
    assert any(quiz.several for quiz in QUIZZES)
    assert any(quiz.code for quiz in QUIZZES)
    assert any(quiz.picture for quiz in QUIZZES)
    assert len({quiz.time_limit_s for quiz in QUIZZES}) > 2
    assert len({quiz.points for quiz in QUIZZES}) > 1


def test_the_right_option_is_not_always_in_the_same_place() -> None:
    places = Counter(next(iter(quiz.correct)) for quiz in QUIZZES if not quiz.several)
    assert len(places) >= 3
    assert max(places.values()) <= len(QUIZZES) / 2


def test_each_question_is_explained_in_at_most_400_characters() -> None:
    assert all(50 < len(quiz.explanation) <= 400 for quiz in QUIZZES)


def test_the_pictures_words_do_not_give_the_solution_away() -> None:
    for quiz in QUIZZES:
        if quiz.picture:
            assert not any(option.text in quiz.picture.alt for option in quiz.options)
            assert len(quiz.picture.src) < MAX_PICTURE_BYTES / 8


def test_the_room_asks_between_the_questions() -> None:
    ask = only(Ask)
    assert len(ask.examples) == 3
    assert 0 < TALK.index(ask.id) < TALK.index(QUIZZES[-1].id)


def test_the_survey_has_every_kind_of_field_and_needs_only_the_rating() -> None:
    fields = only(Survey).fields
    assert {field.kind for field in fields} == set(FieldKind)
    assert [field.kind for field in fields if field.required] == [FieldKind.RATING]


def test_the_raffle_comes_last_and_has_two_prizes() -> None:
    assert TALK.activities[-1].kind is Kind.RAFFLE
    assert len(only(Raffle).prizes) == 2


def test_the_simulated_replica_has_answers_to_what_is_asked() -> None:
    assert 25 <= len(TALK.qa) <= 40
    questions = {entry.question for entry in TALK.qa}
    assert len(questions) == len(TALK.qa)
    assert set(only(Ask).examples) <= questions
    assert all(entry.keywords and 100 < len(entry.answer) <= 500 for entry in TALK.qa)


def test_a_simulated_replica_says_that_it_is_no_real_model() -> None:
    (answer,) = (entry.answer for entry in TALK.qa if entry.question == "Are you a real model?")
    assert answer.startswith("No.")
    assert "prepared text" in answer
