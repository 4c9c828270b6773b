"""What is fixed when a room is made, and its JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from webapp.talk.model import Talk, from_json, to_json


@dataclass(frozen=True, slots=True)
class RoomInfo:
    """What is fixed when a room is made: `room.json`. `seed` stays secret until the draw."""

    code: str
    talk: Talk
    created_ms: int
    seed: str

    def to_json(self) -> dict[str, Any]:
        return {
            "code": self.code,
            "created_ms": self.created_ms,
            "seed": self.seed,
            "talk": to_json(self.talk),
        }

    @staticmethod
    def from_json(data: dict[str, Any]) -> RoomInfo:
        return RoomInfo(data["code"], from_json(data["talk"]), data["created_ms"], data["seed"])
