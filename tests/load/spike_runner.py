"""A runner that speaks the protocol of `crowdspike spike … --control` and sends nothing. Its first argument says how:
`waits` for orders, `quick` ends by itself once it is fired, `deaf` takes no notice of a stop, `refuses` at once."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

from loadgen.spike.figures import Counts
from loadgen.spike.generator import UNKNOWN
from loadgen.spike.latency import Both, Quantiles
from loadgen.spike.plan import Plan, Stage
from loadgen.spike.summary import About, summarize

PLAN = Plan("spike", "open", 40, (Stage(40, 10),), "k6")
ABOUT = About(
    scenario="spike",
    tool="k6",
    tool_version="1.1.0",
    target="http://own.test",
    model="mistral",
    loop="open",
    unit="requests/s",
    seed=1,
    peak=40,
    duration_s=10,
    started_at="2026-11-21T00:00:00.000+00:00",
    machine="none",
)


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
    nothing = summarize(PLAN, [], [], UNKNOWN, ABOUT)
    waited = Both(scheduled=Quantiles.of([0.75]), service=Quantiles.of([0.5]))
    summary = replace(
        nothing,
        counts=Counts(planned=130, sent=126, served=120, failed=1, refused=2, unfinished=3, dropped=4),
        latency=replace(nothing.latency, ttft_s=waited),
        ttft_by="token",
        verdict=replace(nothing.verdict, verdict=verdict),
    )
    (folder / "points.jsonl").write_text('{"n":0}\n')
    (folder / "report.html").write_text("<!doctype html><title>Spike</title><p>The verdict.</p>")
    (folder / "summary.json").write_text(summary.to_json())
    say(state="ended", verdict=verdict, exit_code=0, folder=str(folder), headline=headline)
    return 0


sys.exit(main())
