"""Hypothesis strategies for the log of a room, as unruly as several web processes can make it."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.sample_room import ASK, QUIZ, RAFFLE, SEVERAL, SURVEY, T0_MS, SampleRoom
from webapp.room.commands import SCENES, VERDICTS, CommandRefused
from webapp.room.events import Answered, Asked, Joined, Named, Replied, Response, Surveyed
from webapp.room.items import items

PEOPLE = ("ann", "ben", "cy", "dee")
ACTIVITIES = (QUIZ.id, SEVERAL.id, ASK.id, SURVEY.id, RAFFLE.id)
STEPS = ("next", "back", "open", "reopen", "close", "extend", "reveal", "draw", "redraw", "lock", "moderation")

people = st.sampled_from(PEOPLE)
ids = st.sampled_from([f"phone-{n}" for n in range(12)])  # few, so that different things share an id
texts = st.text(min_size=1, max_size=12)
sources = st.sampled_from(["audience", "k6"])
choices = st.lists(st.sampled_from("abc"), min_size=1, max_size=3, unique=True).map(lambda c: tuple(sorted(c)))
forms = st.fixed_dictionaries(
    {},
    optional={
        "stars": st.integers(1, 5),
        "pace": st.sampled_from(["slow", "fast"]),
        "topics": st.lists(st.sampled_from(["pods", "nodes"]), min_size=1, unique=True),
        "comment": texts,
    },
)


def responses(at_ms: st.SearchStrategy[int]) -> st.SearchStrategy[Response]:
    """Any response; several share an id and differ in content, kind and time."""
    who = {"participant": people, "at_ms": at_ms}
    quizzes = st.sampled_from([QUIZ.id, SEVERAL.id])
    return st.one_of(
        st.builds(Joined, id=st.just("join"), nickname=texts, source=sources, **who),
        st.builds(Named, id=ids, nickname=texts, **who),
        st.builds(Answered, id=ids, activity=quizzes, choice=choices, **who),
        st.builds(Answered, id=ids, activity=quizzes, choice=choices, **who),
        st.builds(Asked, id=ids, activity=st.just(ASK.id), question=texts, **who),
        st.builds(Surveyed, id=ids, activity=st.just(SURVEY.id), values=forms, **who),
        ids.flatmap(
            lambda to: st.builds(
                Replied, id=st.just(f"reply-{to}"), to=st.just(to), text=texts, failed=st.booleans(), **who
            )
        ),
    )


@st.composite
def rooms(draw: st.DrawFn, max_steps: int = 25) -> SampleRoom:
    """A room that a presenter led through some steps while phones sent things before, during and after them."""
    room = SampleRoom()
    for step in draw(st.lists(st.sampled_from(STEPS), max_size=max_steps)):
        room.after(draw(st.sampled_from([0, 0.3, 1, 4, 31])))
        if room.state.current is None and draw(st.booleans()):
            room.do("goto", activity=draw(st.sampled_from(ACTIVITIES)))
        try:
            room.do(step, prize=draw(st.integers(0, 1)), on=draw(st.booleans()))
        except CommandRefused:
            continue
    times = st.integers(T0_MS - 500, room.now_ms + 2500)
    for response in draw(st.lists(responses(times), max_size=25)):
        room.add(response)
    said = sorted(item for r in room.state.responses.values() for item in items(r))
    for _ in range(draw(st.integers(0, 4))):
        if said:
            room.do(draw(st.sampled_from(sorted(VERDICTS))), item=draw(st.sampled_from(said)))
        if who := sorted(p for p in PEOPLE if room.state.join(p)):
            participant = draw(st.sampled_from(who))
            room.do(draw(st.sampled_from(["remove", "restore"])), participant=participant)
        room.do("show", scene=draw(st.sampled_from(SCENES)))
    return room
