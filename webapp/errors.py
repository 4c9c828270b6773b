"""Everything that a caller can be told, and the one table that turns it into HTTP.

AppError
├── RoomUnknown, RoomEnded            there is no such room, or it is over
├── NotJoined, CookieForged, Removed  who is asking
├── LobbyLocked, RoomFull
├── BadResponse, BadForm              what was sent cannot be taken
├── ActivityUnknown, ActivityClosed, AlreadyAnswered, NoQuestionsLeft
├── TokenNeeded, CrossSite, CommandRefused
└── RateLimited, NotSaved, TooLarge, WrongContentType
"""

from __future__ import annotations

from webapp.room.commands import CommandRefused


class AppError(Exception):
    """`str(error)` is a sentence for the person; `extra` goes into the problem document."""

    def __init__(self, message: str, **extra: object) -> None:
        super().__init__(message)
        self.extra = extra


class RoomUnknown(AppError):
    pass


class RoomEnded(AppError):
    pass


class NotJoined(AppError):
    pass


class CookieForged(AppError):
    pass


class Removed(AppError):
    pass


class LobbyLocked(AppError):
    pass


class RoomFull(AppError):
    pass


class BadForm(AppError):
    pass


class BadResponse(AppError):
    """`extra["fields"]` maps a field's name to what is wrong with it."""


class ActivityUnknown(AppError):
    pass


class ActivityClosed(AppError):
    pass


class AlreadyAnswered(AppError):
    pass


class NoQuestionsLeft(AppError):
    pass


class TokenNeeded(AppError):
    pass


class CrossSite(AppError):
    pass


class RateLimited(AppError):
    pass


class NotSaved(AppError):
    pass


class TooLarge(AppError):
    pass


class WrongContentType(AppError):
    pass


HTTP: dict[type[Exception], tuple[int, str]] = {
    RoomUnknown: (404, "No such room"),
    RoomEnded: (410, "This talk is over"),
    NotJoined: (401, "You have not joined this room"),
    CookieForged: (403, "This phone's pass is not valid"),
    Removed: (403, "You were removed from this room"),
    LobbyLocked: (403, "The room is locked"),
    RoomFull: (503, "The room is full"),
    BadForm: (400, "That could not be read"),
    BadResponse: (422, "Something is missing or wrong"),
    ActivityUnknown: (404, "No such activity"),
    ActivityClosed: (409, "Too late"),
    AlreadyAnswered: (409, "You have answered already"),
    NoQuestionsLeft: (409, "No questions left"),
    TokenNeeded: (401, "Presenter sign-in needed"),
    CrossSite: (403, "The request came from another site"),
    CommandRefused: (409, "That is not possible now"),
    RateLimited: (429, "Too many requests"),
    NotSaved: (503, "Not saved yet"),
    TooLarge: (413, "That is too large"),
    WrongContentType: (415, "Wrong content type"),
}
RETRY_AFTER_S: dict[type[Exception], int] = {RateLimited: 5, NotSaved: 2, RoomFull: 30}
