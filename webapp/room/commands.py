"""What the presenter may do. Pure: the room's state and an action in, one control event or a refusal out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from webapp.room import names, raffle
from webapp.room.events import (
    Archived,
    Closed,
    Control,
    Drawn,
    Extended,
    LobbyLocked,
    Moderated,
    ModerationSet,
    Moved,
    Opened,
    Removed,
    Renamed,
    Revealed,
    Shown,
)
from webapp.room.items import items
from webapp.room.state import Phase, RoomState
from webapp.talk.model import Activity, Kind, Quiz, Raffle

SCENES = ("auto", "lobby", "leaderboard", "questions", "podium")
VERDICTS = {"approve": "approved", "hide": "hidden", "pin": "pinned", "unpin": "approved", "pend": "pending"}
EXTEND_MAX_S = 600


class CommandRefused(Exception):
    """The room is not in a state for this action, or the action is malformed; the text is for the presenter."""


@dataclass(frozen=True, slots=True)
class Action:
    """One control call. `at` is what the presenter saw (`q3:open`), so that a double tap does not skip two steps."""

    id: str
    action: str
    at: str = ""
    activity: str = ""
    item: str = ""
    participant: str = ""
    nickname: str = ""
    scene: str = ""
    on: bool = True
    by_s: int = 15
    prize: int = 0


def position(state: RoomState, now_ms: int) -> str:
    """Where the running order stands, as `Action.at` names it; `lobby` before the first activity.

    A raffle's draws and a reopening count: `raffle1:closed:2` has had two.
    """
    if state.current is None:
        return "lobby"
    progress = state.of(state.current)
    turns = len(progress.draws) or max(len(progress.windows) - 1, 0)
    return f"{state.current}:{progress.phase(now_ms)}:{turns}"


def decide(state: RoomState, action: Action, now_ms: int) -> Control:
    """The event that carries out `action`. Raises CommandRefused, and then nothing happened."""
    decider = _DECIDERS.get(action.action)
    if decider is None:
        raise CommandRefused(f"Unknown action {action.action!r}. There are: {', '.join(sorted(_DECIDERS))}.")
    if state.archived_ms is not None:
        raise CommandRefused("This room is archived: it can be read and exported, not changed.")
    if action.at and action.at != position(state, now_ms):
        raise CommandRefused("The room has moved on since this page was drawn. Look again, then decide.")
    return decider(state, action, now_ms)


def _current(state: RoomState) -> Activity:
    if state.activity is None:
        raise CommandRefused("No activity has been chosen yet: start the talk first.")
    return state.activity


def _step(by: int) -> Callable[[RoomState, Action, int], Control]:
    def move(state: RoomState, action: Action, now_ms: int) -> Control:
        index = -1 if state.current is None else state.talk.index(state.current)
        if not 0 <= index + by < len(state.talk.activities):
            raise CommandRefused(f"That was the {'last' if by > 0 else 'first'} activity of the talk.")
        return Moved(id=action.id, at_ms=now_ms, activity=state.talk.activities[index + by].id)

    return move


def _goto(state: RoomState, action: Action, now_ms: int) -> Control:
    if state.talk.activity(action.activity) is None:
        raise CommandRefused(f"The talk has no activity {action.activity!r}.")
    return Moved(id=action.id, at_ms=now_ms, activity=action.activity)


def _open(state: RoomState, action: Action, now_ms: int) -> Control:
    activity = _current(state)
    phase = state.phase(now_ms)
    if phase is Phase.OPEN:
        raise CommandRefused("It is open already.")
    if phase is not Phase.READY and action.action == "open":
        raise CommandRefused("It has been closed. Use reopen to take more responses.")
    if phase is Phase.READY and action.action == "reopen":
        raise CommandRefused("It has not been open yet.")
    if state.of(activity.id).draws:
        raise CommandRefused("A prize has been drawn: the tickets are frozen.")
    duration_s = activity.time_limit_s if isinstance(activity, Quiz) else None
    return Opened(id=action.id, at_ms=now_ms, activity=activity.id, duration_s=duration_s)


def _close(state: RoomState, action: Action, now_ms: int) -> Control:
    activity = _current(state)
    if state.phase(now_ms) is not Phase.OPEN:
        raise CommandRefused("It is not open.")
    entrants: tuple[str, ...] = ()
    if isinstance(activity, Raffle):
        entrants = tuple(sorted(state.ticket(p) for p in state.audience))
    return Closed(id=action.id, at_ms=now_ms, activity=activity.id, entrants=entrants)


def _extend(state: RoomState, action: Action, now_ms: int) -> Control:
    activity = _current(state)
    if not isinstance(activity, Quiz) or state.phase(now_ms) is not Phase.OPEN:
        raise CommandRefused("Only an open quiz question has a timer to extend.")
    if not 1 <= action.by_s <= EXTEND_MAX_S:
        raise CommandRefused(f"Extend by 1 to {EXTEND_MAX_S} seconds, not {action.by_s}.")
    return Extended(id=action.id, at_ms=now_ms, activity=activity.id, by_s=action.by_s)


def _reveal(state: RoomState, action: Action, now_ms: int) -> Control:
    activity = _current(state)
    if activity.kind not in (Kind.QUIZ, Kind.SURVEY):
        raise CommandRefused("Only a quiz question or a survey has results to reveal.")
    phase = state.phase(now_ms)
    if phase is Phase.REVEALED:
        raise CommandRefused("It is revealed already.")
    if phase is Phase.READY:
        raise CommandRefused("It has not been open yet.")
    return Revealed(id=action.id, at_ms=now_ms, activity=activity.id)


def _draw(state: RoomState, action: Action, now_ms: int) -> Control:
    activity = _current(state)
    if not isinstance(activity, Raffle):
        raise CommandRefused("The current activity is not a raffle.")
    if state.phase(now_ms) is not Phase.CLOSED:
        raise CommandRefused("Close the raffle first: that freezes and publishes the tickets.")
    progress = state.of(activity.id)
    if not 0 <= action.prize < len(activity.prizes):
        raise CommandRefused(f"The raffle has no prize {action.prize + 1}.")
    if (action.action == "redraw") != (action.prize in progress.winners):
        raise CommandRefused(
            "This prize has a winner: redraw replaces an absent one."
            if action.prize in progress.winners
            else "This prize has not been drawn yet."
        )
    if not progress.entrants:
        raise CommandRefused("There are no tickets yet. Reopen the raffle, then close it: that freezes them.")
    owners = {state.ticket(p): p for p in state.audience}
    gone = {ticket for ticket in progress.entrants if ticket not in owners}
    drawn = {draw.ticket for draw in progress.draws}
    ticket = raffle.next_winner(state.info.seed, progress.entrants, drawn | gone)
    if ticket is None:
        raise CommandRefused("Every ticket has been drawn, or its owner was removed.")
    return Drawn(
        id=action.id,
        at_ms=now_ms,
        activity=activity.id,
        prize=action.prize,
        ticket=ticket,
        participant=owners[ticket],
        seed=state.info.seed,
    )


def _show(state: RoomState, action: Action, now_ms: int) -> Control:
    if action.scene not in SCENES:
        raise CommandRefused(f"Unknown scene {action.scene!r}. There are: {', '.join(SCENES)}.")
    return Shown(id=action.id, at_ms=now_ms, scene=action.scene)


def _moderate(state: RoomState, action: Action, now_ms: int) -> Control:
    response = state.responses.get(":".join(action.item.split(":")[1:3]))
    if response is None or action.item not in items(response):
        raise CommandRefused("That question, quote or nickname is not in this room.")
    return Moderated(id=action.id, at_ms=now_ms, item=action.item, verdict=VERDICTS[action.action])


def _participant(state: RoomState, action: Action) -> str:
    if state.join(action.participant) is None:
        raise CommandRefused("That participant is not in this room.")
    return action.participant


def _rename(state: RoomState, action: Action, now_ms: int) -> Control:
    nickname = names.clean_line(action.nickname)
    if not 1 <= len(nickname) <= names.NICKNAME_MAX:
        raise CommandRefused(f"A nickname has 1 to {names.NICKNAME_MAX} characters.")
    return Renamed(id=action.id, at_ms=now_ms, participant=_participant(state, action), nickname=nickname)


def _remove(state: RoomState, action: Action, now_ms: int) -> Control:
    participant = _participant(state, action)
    return Removed(id=action.id, at_ms=now_ms, participant=participant, on=action.action == "remove")


_DECIDERS: dict[str, Callable[[RoomState, Action, int], Control]] = {
    "next": _step(1),
    "back": _step(-1),
    "goto": _goto,
    "open": _open,
    "reopen": _open,
    "close": _close,
    "extend": _extend,
    "reveal": _reveal,
    "draw": _draw,
    "redraw": _draw,
    "show": _show,
    "lock": lambda state, action, now_ms: LobbyLocked(id=action.id, at_ms=now_ms, on=action.on),
    "moderation": lambda state, action, now_ms: ModerationSet(id=action.id, at_ms=now_ms, on=action.on),
    **{name: _moderate for name in VERDICTS},
    "rename": _rename,
    "remove": _remove,
    "restore": _remove,
    "archive": lambda state, action, now_ms: Archived(id=action.id, at_ms=now_ms),
}
