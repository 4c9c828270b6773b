"""Holds what phones were promised against what the server kept. Pure, but for reading a log in a folder."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from loadgen.phone import Sent


@dataclass(frozen=True, slots=True)
class Audit:
    """Ids of responses. Lost: acknowledged, but not in the log or the export. Doubled: counted more than once."""

    acknowledged: int
    lost: tuple[str, ...]
    doubled: tuple[str, ...]
    wrong_replies: tuple[str, ...]
    """Where a phone read to its end another text than the export has."""

    @property
    def clean(self) -> bool:
        return not (self.lost or self.doubled or self.wrong_replies)


def audit(sent: Iterable[Sent], export: list[dict], logged: Counter[str] | None = None) -> Audit:
    """`export` from `Presenter.export`; `logged`, from `read_log`, adds the files to what must hold a response."""
    acked = [s for s in sent if s.acked]
    counting = [record for record in export if record.get("counts")]
    by_id = Counter(record["id"] for record in counting)
    by_place = Counter((r["participant"], r["activity"]) for r in counting if r["type"] == "answered")
    replies = {record["id"]: record.get("reply") for record in export}
    lost = tuple(s.id for s in acked if not by_id[s.id] or (logged is not None and not logged[s.id]))
    doubled = tuple(id for id, times in by_id.items() if times > 1)
    doubled += tuple(r["id"] for r in counting if by_place[r["participant"], r.get("activity")] > 1)
    done = [s for s in acked if s.reply_done_at is not None]
    wrong = tuple(s.id for s in done if s.reply.strip() != (replies.get(s.id) or "").strip())
    return Audit(len(acked), lost, tuple(dict.fromkeys(doubled)), wrong)


def read_log(store: Path, code: str) -> Counter[str]:
    """How often each response's id stands in the files of a room's log."""
    segments = (store / "rooms" / code / "responses").glob("*/*.jsonl")
    return Counter(json.loads(line)["id"] for segment in segments for line in segment.read_bytes().splitlines())
