"""The test stand: a simulated replica, a web app and a store that is thrown away, with a talk of its own."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from loadgen import machine
from loadgen.processes import Process, engine, web_app

FORM = {"useful": 4, "why": "The figures were measured."}
TALK = """\
title: A bench for crowds
activities:
  - survey: A form that needs no reply
    id: form
    fields:
      - rating: How useful was this?
        id: useful
        required: true
      - text: Why?
        id: why
  - quiz: What does a crowd of phones cost a server?
    id: cost
    time_limit: 120
    options:
      - Nothing
      - correct: A little for each poll, more for each answer
      - A core for each phone
      - It depends on the weather
    explanation: That is what this bench measures.
  - quiz: And the second time?
    id: again
    time_limit: 120
    options:
      - correct: The same
      - Less
      - More
"""


@dataclass(frozen=True, slots=True)
class Stand:
    """`core` is the web app's own, if there is one to spare."""

    web: Process
    engine: Process
    store: Path
    core: int | None


@contextmanager
def stand(*engine_options: str) -> Iterator[Stand]:
    """Both processes, ready. With two cores the web app has one to itself, and we share the other with the replica."""
    cores = machine.two_cores()
    with tempfile.TemporaryDirectory(prefix="crowdspike-bench-") as name:
        folder = Path(name)
        talk = folder / "talk.yaml"
        talk.write_text(TALK)
        if cores:
            os.sched_setaffinity(0, {cores[1]})
        replica = engine(folder / "engine.log", *engine_options)
        try:
            replica.wait_ready()
            core = cores[0] if cores else None
            web = web_app(folder / "web.log", str(folder / "store"), talk=talk, inference_url=replica.url, core=core)
            try:
                web.wait_ready()
                yield Stand(web, replica, folder / "store", core)
            finally:
                web.end()
        finally:
            replica.end()
