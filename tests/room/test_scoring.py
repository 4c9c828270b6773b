"""Points, ranks and streaks, each worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.sample_room import QUIZ, SEVERAL, TALK, SampleRoom
from webapp.room.scoring import Mark, mark, standings
from webapp.talk.model import Scoring

PLAIN, SPEED, STREAKS = Scoring(speed=False), Scoring(), Scoring(speed=False, streaks=True)


@pytest.mark.parametrize(
    ("elapsed_ms", "points"),
    [
        (0, 1000),
        (1, 1000),  # 999.983
        (3_000, 950),  # 1000 × (1 − 0.1 / 2)
        (7_500, 875),
        (15_000, 750),
        (29_999, 500),  # 500.017
        (30_000, 500),
        (30_900, 500),  # in the grace, or in an extension: the last moment's half
        (45_000, 500),
        (-20, 1000),  # another process's clock
    ],
)
def test_a_right_answer_loses_half_its_points_over_the_time_limit(elapsed_ms: int, points: int) -> None:
    assert mark(QUIZ, ("b",), elapsed_ms, SPEED) == Mark(True, points, elapsed_ms)


def test_a_wrong_answer_is_worth_nothing_however_quick() -> None:
    assert mark(QUIZ, ("a",), 0, SPEED) == Mark(False, 0, 0)


@pytest.mark.parametrize(
    ("choice", "right"),
    [(("a", "c"), True), (("c", "a"), True), (("a",), False), (("a", "b", "c"), False), (("b",), False), ((), False)],
)
def test_several_right_options_count_only_all_together_and_alone(choice: tuple[str, ...], right: bool) -> None:
    assert mark(SEVERAL, choice, 10_000, SPEED) == Mark(right, 375 if right else 0, 10_000)


def test_without_speed_a_right_answer_is_worth_all_points_at_any_time() -> None:
    assert mark(QUIZ, ("b",), 29_000, PLAIN).points == 1000


def right(points: int) -> Mark:
    return Mark(True, points, 0)


WRONG = Mark(False, 0, 0)


def test_equal_results_share_a_rank_and_the_next_is_skipped() -> None:
    one = {"ann": right(900), "ben": right(900), "cy": right(800), "dee": WRONG}
    table = [(s.participant, s.rank, s.points) for s in standings("abcdefg", [], SPEED)]
    assert table == [(who, 1, 0) for who in "abcdefg"]
    table = [(s.participant, s.rank, s.points) for s in standings(["dee", "cy", "ben", "ann"], [one], SPEED)]
    assert table == [("ann", 1, 900), ("ben", 1, 900), ("cy", 3, 800), ("dee", 4, 0)]


def test_of_equal_points_more_right_answers_rank_higher() -> None:
    first, second = {"ann": right(1000), "ben": right(400)}, {"ben": right(600)}
    table = [(s.participant, s.rank, s.right) for s in standings(["ann", "ben"], [first, second], SPEED)]
    assert table == [("ben", 1, 2), ("ann", 2, 1)]


def test_each_right_answer_in_a_row_after_the_first_brings_100_more_up_to_500() -> None:
    rounds = [{"ann": right(10)}] * 8
    totals = [standings(["ann"], rounds[:n], STREAKS)[0].points for n in range(9)]
    assert totals == [0, 10, 120, 330, 640, 1050, 1560, 2070, 2580]
    assert standings(["ann"], rounds, STREAKS)[0].streak == 8


@pytest.mark.parametrize("missed", [{}, {"ann": WRONG}])
def test_a_wrong_or_missing_answer_ends_a_streak(missed: dict[str, Mark]) -> None:
    table = standings(["ann"], [{"ann": right(10)}, {"ann": right(10)}, missed, {"ann": right(10)}], STREAKS)
    assert (table[0].points, table[0].streak) == (10 + 110 + 10, 1)


def test_moved_is_the_rank_before_the_last_question_minus_the_rank_now() -> None:
    first = {"ann": right(900), "ben": right(800)}
    second = {"cy": right(1000)}
    table = {s.participant: (s.rank, s.moved) for s in standings(["ann", "ben", "cy"], [first, second], SPEED)}
    assert table == {"cy": (1, 2), "ann": (2, -1), "ben": (3, -1)}
    assert {s.moved for s in standings(["ann", "ben"], [first], SPEED)} == {0}


def scores(room: SampleRoom) -> dict[str, int]:
    return {s.participant: s.points for s in room.state.standings()}


def test_an_answer_in_the_second_after_closing_counts_and_later_ones_do_not() -> None:
    room = SampleRoom().join("ann", "ben", "cy", "dee").start(QUIZ.id)
    room.after(10).do("close")
    room.after(1).answer("ann", QUIZ.id, "b")
    room.after(0.001).answer("ben", QUIZ.id, "b")
    room.after(3).do("reveal")
    assert scores(room) == {"ann": 817, "ben": 0, "cy": 0, "dee": 0}  # 1000 × (1 − 11 / 60) = 816.7
    assert room.state.tally(QUIZ) == ({"a": 0, "b": 1, "c": 0}, 1)


def test_the_time_limit_closes_by_itself_with_the_same_second_of_grace() -> None:
    room = SampleRoom().join("ann", "ben").start(QUIZ.id)
    room.after(31).answer("ann", QUIZ.id, "b")
    room.after(0.001).answer("ben", QUIZ.id, "b")
    room.after(3).do("reveal")
    assert scores(room) == {"ann": 500, "ben": 0}


def test_no_answer_counts_that_came_after_the_solution_was_shown() -> None:
    room = SampleRoom().join("ann").start(QUIZ.id).after(5)
    room.do("reveal")
    room.after(0.2).answer("ann", QUIZ.id, "b")
    assert scores(room) == {"ann": 0}


def test_no_answer_counts_from_before_the_opening() -> None:
    room = SampleRoom().join("ann")
    room.answer("ann", QUIZ.id, "b")
    room.after(0.001).start(QUIZ.id).after(5).do("reveal")
    assert scores(room) == {"ann": 0}


def test_the_first_answer_in_time_counts() -> None:
    room = SampleRoom().join("ann").start(QUIZ.id)
    room.after(3).answer("ann", QUIZ.id, "a")
    room.after(3).answer("ann", QUIZ.id, "b")
    room.do("reveal")
    assert scores(room) == {"ann": 0}


def test_an_extension_lets_later_answers_count_at_half_points() -> None:
    room = SampleRoom().join("ann").start(QUIZ.id).after(20)
    room.do("extend", by_s=15)
    room.after(22).answer("ann", QUIZ.id, "b")
    room.do("reveal")
    assert scores(room) == {"ann": 500}


def test_after_reopening_the_clock_starts_anew_and_first_answers_still_count() -> None:
    room = SampleRoom().join("ann", "ben", "cy").start(QUIZ.id)
    room.after(3).answer("ann", QUIZ.id, "b")
    room.after(3).do("close")
    room.after(20).answer("cy", QUIZ.id, "b")
    room.after(60).do("reopen")
    room.after(6).answer("ben", QUIZ.id, "b")
    room.answer("ann", QUIZ.id, "a")
    room.after(1).do("reveal")
    assert scores(room) == {"ann": 950, "ben": 900, "cy": 0}


def test_a_removed_participant_has_no_rank_and_no_vote_until_let_in_again() -> None:
    room = SampleRoom().join("ann", "ben").start(QUIZ.id)
    room.after(3).answer("ann", QUIZ.id, "b")
    room.do("reveal")
    room.do("remove", participant="ann")
    assert scores(room) == {"ben": 0}
    assert room.state.tally(QUIZ)[1] == 0
    room.do("restore", participant="ann")
    assert scores(room) == {"ann": 950, "ben": 0}


def test_the_talks_own_options_decide() -> None:
    room = SampleRoom(replace(TALK, scoring=PLAIN)).join("ann").start(QUIZ.id)
    room.after(20).answer("ann", QUIZ.id, "b")
    room.do("reveal")
    assert scores(room) == {"ann": 1000}


def test_nothing_counts_on_the_board_before_its_solution_is_shown() -> None:
    room = SampleRoom().join("ann").start(QUIZ.id)
    room.answer("ann", QUIZ.id, "b")
    room.do("close")
    assert scores(room) == {"ann": 0}
    room.do("reveal")
    assert scores(room) == {"ann": 1000}
    room.do("reopen")
    assert scores(room) == {"ann": 0}
