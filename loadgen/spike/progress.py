"""What a run looks like at this moment: the figures of its last seconds, never since its start. Pure.

Only the counts are totals. Rates and times to first token are those of the last five seconds, so that a spike and its
recovery are seen as they are.
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import asdict, dataclass, fields
from typing import Literal

from loadgen import machine
from loadgen.spike.plan import MAX_RATE_PER_S, Plan
from loadgen.spike.point import Began, Dropped, Point, Report, Sent, Trouble

WINDOW_S = 5.0
TROUBLE_CHARS = 200
_KEPT = int(WINDOW_S * MAX_RATE_PER_S * 2)

_SEEN_BY = ("token", "held headers", "probe")

State = Literal["arming", "armed", "running", "draining", "ended"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """`level` is the planned rate or number of users now, in `unit`. `ttft_*` are of the requests that ended in the
    last five seconds, from when they were due where the tool tells it; None where no first token is known. `ttft_by`:
    who saw it (`token`, `held headers`, `probe`). `trouble` is the script's last error."""

    state: State
    t_s: float = 0.0
    of_s: float = 0.0
    level: float = 0.0
    unit: str = ""
    sent: int = 0
    served: int = 0
    failed: int = 0
    refused: int = 0
    dropped: int = 0
    in_flight: int = 0
    sent_per_s: float = 0.0
    served_per_s: float = 0.0
    errors_per_s: float = 0.0
    ttft_p50_s: float | None = None
    ttft_p95_s: float | None = None
    ttft_by: str = ""
    trouble: str = ""

    def to_json(self) -> str:
        return json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in asdict(self).items()})

    @classmethod
    def from_json(cls, line: str | bytes) -> Progress:
        """Takes no notice of what it does not know. Raises ValueError, TypeError."""
        data = json.loads(line)
        return cls(**{f.name: data[f.name] for f in fields(cls) if f.name in data})


class Live:
    """Hears what the tool and the probe report, and when (Unix time), and says how the run stands. The times of a point
    may be of any base."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._unit = "requests/s" if plan.loop == "open" else "phones" if plan.scenario == "audience" else "users"
        self._counts = dict.fromkeys(("sent", "ended", "served", "failed", "refused", "dropped", "unfinished"), 0)
        self._sent, self._served, self._errors = _Window(), _Window(), _Window()
        self._ttft: dict[str, _Window] = {}
        self._began_s: float | None = None
        self._trouble = ""

    def hear(self, report: Report, now_s: float) -> None:
        match report:
            case Began(at_s) if self._began_s is None:
                self._began_s = at_s
            case Sent():
                self._counts["sent"] += 1
                self._sent.add(now_s, 1.0)
            case Dropped(count=count):
                self._counts["dropped"] += count
            case Trouble(text):
                self._trouble = text[:TROUBLE_CHARS]
            case Point():
                self._ended(report, now_s)

    def hear_probe(self, point: Point, now_s: float) -> None:
        """The probe's requests are apart from the tool's: only their first tokens are told here."""
        self._first_token(point, "probe", now_s)

    def at(self, now_s: float, state: State) -> Progress:
        begun = self._began_s is not None
        t_s = max(0.0, now_s - self._began_s) if begun else 0.0
        counts = self._counts
        by = next(
            (by for by in ("token", "held headers", "probe") if by in self._ttft and self._ttft[by].at(now_s)), ""
        )
        ttft = sorted(self._ttft[by].at(now_s)) if by else []
        over_s = min(WINDOW_S, max(1.0, t_s))
        return Progress(
            state=state,
            t_s=t_s,
            of_s=self._plan.duration_s,
            level=self._plan.level(t_s) if begun and state == "running" else 0.0,
            unit=self._unit,
            sent=max(counts["sent"], counts["ended"]),
            served=counts["served"],
            failed=counts["failed"],
            refused=counts["refused"],
            dropped=counts["dropped"],
            in_flight=max(0, counts["sent"] - counts["ended"]),
            sent_per_s=len(self._sent.at(now_s)) / over_s,
            served_per_s=len(self._served.at(now_s)) / over_s,
            errors_per_s=len(self._errors.at(now_s)) / over_s,
            ttft_p50_s=machine.at(ttft, 0.50) if ttft else None,
            ttft_p95_s=machine.at(ttft, 0.95) if ttft else None,
            ttft_by=by,
            trouble=self._trouble,
        )

    def _best_ttft(self, now_s: float) -> tuple[list[float], str]:
        """In order, and who saw them: the tool itself where it can, else the probe beside it."""
        for by in (by for by in _SEEN_BY if by in self._ttft):
            if ttft := self._ttft[by].at(now_s):
                return sorted(ttft), by
        return [], ""

    def _ended(self, point: Point, now_s: float) -> None:
        outcome = point.outcome
        self._counts[outcome] += 1
        if outcome == "dropped":
            return
        self._counts["ended"] += 1
        if outcome == "served":
            self._served.add(now_s, 1.0)
        elif outcome in ("failed", "refused"):
            self._errors.add(now_s, 1.0)
        if point.first_s is not None:
            self._first_token(point, point.first_by, now_s)

    def _first_token(self, point: Point, by: str, now_s: float) -> None:
        since_s = point.sent_s if point.due_s is None else point.due_s
        if point.first_s is not None and since_s is not None:
            self._ttft.setdefault(by, _Window()).add(now_s, point.first_s - since_s)


class _Window:
    """What was heard in the last seconds."""

    def __init__(self) -> None:
        self._heard: deque[tuple[float, float]] = deque(maxlen=_KEPT)

    def add(self, now_s: float, value: float) -> None:
        self._heard.append((now_s, value))

    def at(self, now_s: float) -> list[float]:
        while self._heard and self._heard[0][0] <= now_s - WINDOW_S:
            self._heard.popleft()
        return [value for _, value in self._heard]
