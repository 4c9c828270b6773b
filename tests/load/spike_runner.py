"""A runner that speaks the protocol of `crowdspike spike … --control` and sends nothing. Its first argument says how:
`waits` for orders, `quick` ends by itself once it is fired, `deaf` takes no notice of a stop, `refuses` at once."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path


def say(**line: object) -> None:
    print(json.dumps(line), flush=True)


def main() -> int:
    kind, arguments = sys.argv[1], sys.argv[2:]
    folder = Path(arguments[arguments.index("--out") + 1])
    heard: list[str] = []
    if kind == "refuses":
        print("warming up", file=sys.stderr)
        print("http://own.test refuses connections.", file=sys.stderr)
        return 2
    (folder / "environment.json").write_text(json.dumps({"arguments": arguments, **os.environ}))
    say(state="arming")
    say(state="armed", unit="requests/s")
    for line in sys.stdin:
        order = line.strip()
        heard.append(order)
        if order == "fire":
            say(state="running", t_s=1.0, level=40.0, served=7, ttft_p95_s=0.25, ttft_by="token")
        if (order == "stop" and kind != "deaf") or (order == "fire" and kind == "quick"):
            break
    verdict = "pass" if kind == "quick" and heard else "stopped"
    headline = f"Heard {' '.join(heard) or 'nothing'}."
    summary = {
        "counts": {"served": 120, "failed": 1, "refused": 2, "unfinished": 3, "dropped": 4},
        "latency": {"ttft_s": {"scheduled": {"p95": 0.75}, "service": {"p95": 0.5}}},
        "ttft_by": "token",
        "verdict": {"verdict": verdict},
    }
    (folder / "points.jsonl").write_text('{"n":0}\n')
    (folder / "report.html").write_text("<!doctype html><title>Spike</title><p>The verdict.</p>")
    (folder / "summary.json").write_text(json.dumps(summary))
    say(state="ended", verdict=verdict, exit_code=0, folder=str(folder), headline=headline)
    return 0


sys.exit(main())
