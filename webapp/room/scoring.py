"""Points, streaks and ranks. Pure arithmetic over who answered what and when."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from webapp.talk.model import Quiz, Scoring

STREAK_STEP = 100
STREAK_MAX = 500


@dataclass(frozen=True, slots=True)
class Mark:
    """How one answer came out: `elapsed_ms` from opening to receipt by the server's clock."""

    right: bool
    points: int
    elapsed_ms: int


@dataclass(frozen=True, slots=True)
class Standing:
    """A row of the leaderboard. Equal points and equal right answers share a rank, and the next rank is skipped."""

    participant: str
    points: int
    right: int
    rank: int
    streak: int = 0
    moved: int = 0


def mark(quiz: Quiz, choice: Iterable[str], elapsed_ms: int, scoring: Scoring) -> Mark:
    """A right answer names all correct options and no other. With speed it is worth
    `round(points × (1 − t / T / 2))`, t and T in ms, t held between 0 and T: the last moment is worth half.

    The formula is Kahoot's, as its help page on points states it (support.kahoot.com, article 115002303908),
    without its half second at full points.
    """
    right = frozenset(choice) == quiz.correct
    limit_ms = quiz.time_limit_s * 1000
    t = min(max(elapsed_ms, 0), limit_ms)
    points = round(quiz.points * (1 - t / limit_ms / 2)) if scoring.speed else quiz.points
    return Mark(right=right, points=points if right else 0, elapsed_ms=elapsed_ms)


def standings(
    participants: Iterable[str],
    rounds: Iterable[Mapping[str, Mark]],
    scoring: Scoring,
) -> list[Standing]:
    """Ranks over the revealed quiz questions, in the order in which the talk has them.

    `rounds` maps, for each question, a participant to the mark of the answer that counts. Who did not answer a
    question gets nothing for it and loses the streak. `moved` is the rank before the last round minus the rank now.
    """
    rounds = list(rounds)
    participants = list(participants)
    now = _ranked(participants, rounds, scoring)
    if len(rounds) < 2:
        return now
    before = {s.participant: s.rank for s in _ranked(participants, rounds[:-1], scoring)}
    return [Standing(s.participant, s.points, s.right, s.rank, s.streak, before[s.participant] - s.rank) for s in now]


def _ranked(participants: list[str], rounds: list[Mapping[str, Mark]], scoring: Scoring) -> list[Standing]:
    totals = [(who, *_total(who, rounds, scoring)) for who in participants]
    totals.sort(key=lambda row: (-row[1], -row[2], row[0]))
    table: list[Standing] = []
    for place, (who, points, right, streak) in enumerate(totals, 1):
        same = table and (table[-1].points, table[-1].right) == (points, right)
        table.append(Standing(who, points, right, table[-1].rank if same else place, streak))
    return table


def _total(who: str, rounds: list[Mapping[str, Mark]], scoring: Scoring) -> tuple[int, int, int]:
    points = right = streak = 0
    for marks in rounds:
        got = marks.get(who)
        if got is None or not got.right:
            streak = 0
            continue
        right += 1
        points += got.points
        if scoring.streaks:
            points += min(streak * STREAK_STEP, STREAK_MAX)
        streak += 1
    return points, right, streak
