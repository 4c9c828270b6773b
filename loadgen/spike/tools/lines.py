"""How a tool's script says its reports: one JSON object a line, whose key `crowdspike` names the kind. Pure.

{"crowdspike":"began","at_s":…}   {"crowdspike":"sent","n":0,"at_s":…}   {"crowdspike":"dropped","at_s":…,"count":1}
{"crowdspike":"point","n":0,…}    {"crowdspike":"trouble","text":"…"}    All times are Unix times in seconds.
"""

from __future__ import annotations

import json
from dataclasses import asdict

from loadgen.spike.point import Began, Dropped, Point, Report, Sent, Trouble

KEY = "crowdspike"
TROUBLE_CHARS = 500
_KINDS: dict[type, str] = {Began: "began", Sent: "sent", Dropped: "dropped", Point: "point", Trouble: "trouble"}
_CLASSES = {kind: report for report, kind in _KINDS.items()}


def encode(report: Report) -> str:
    """A line, without its end. A trouble's text is cut to `TROUBLE_CHARS`."""
    kind = _KINDS[type(report)]
    if isinstance(report, Point):
        return f'{{"{KEY}":"{kind}",{report.to_json()[1:]}'
    data = {"text": report.text[:TROUBLE_CHARS]} if isinstance(report, Trouble) else asdict(report)
    return json.dumps({KEY: kind, **data}, separators=(",", ":"))


def decode(line: str | bytes) -> Report | None:
    """None for anything else that a tool prints, or that a killed one left half printed."""
    try:
        data = json.loads(line)
        report = _CLASSES[data.pop(KEY)]
        return Point.from_mapping(data) if report is Point else report(**data)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
