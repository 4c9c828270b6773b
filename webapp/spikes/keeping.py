"""What a run has left in its folder, put into the store and summed up for the log."""

from __future__ import annotations

import asyncio
import gzip
import logging
from dataclasses import replace
from pathlib import Path

from loadgen.spike.folder import PLAN, POINTS, REPORT, SERVER, SUMMARY
from loadgen.spike.summary import BadSummary, Summary
from webapp.log.store import Store, StoreError
from webapp.room.events import SpikeEnded

log = logging.getLogger("crowdspike.spikes")

GZIPPED = {POINTS: f"{POINTS}.gz", SERVER: f"{SERVER}.gz"}
KEPT = (PLAN, SUMMARY, REPORT, POINTS, SERVER)
HEADLINE_CHARS = 300


def place(code: str, spike: str, name: str) -> str:
    """The store's key of a file of a run."""
    return f"rooms/{code}/spikes/{spike}/{GZIPPED.get(name, name)}"


async def keep(store: Store, code: str, spike: str, folder: Path) -> bool:
    """Stores what there is. Whether summary and report are among it; False too where the store fails."""
    found = [name for name in KEPT if (folder / name).is_file()]
    try:
        for name in found:
            body = await asyncio.to_thread(_read, folder / name)
            await store.put(place(code, spike, name), body)
    except (OSError, StoreError) as error:
        log.warning("room %s: load run %s stays in %s: %s", code, spike, folder, error)
        return False
    return {SUMMARY, REPORT} <= set(found)


def _read(path: Path) -> bytes:
    body = path.read_bytes()
    return gzip.compress(body, mtime=0) if path.name in GZIPPED else body


def summary(folder: Path) -> Summary | None:
    """None where it was not written, or not whole."""
    try:
        return Summary.from_json((folder / SUMMARY).read_bytes())
    except (OSError, BadSummary):
        return None


def ended(
    id: str, at_ms: int, spike: str, summary: Summary | None, otherwise: str, headline: str, kept: bool
) -> SpikeEnded:
    """The event. Without a summary the verdict is `otherwise`."""
    event = SpikeEnded(
        id=id, at_ms=at_ms, spike=spike, verdict=otherwise, headline=headline.strip()[:HEADLINE_CHARS], kept=kept
    )
    if summary is None:
        return event
    counts, ttft = summary.counts, summary.latency.ttft_s.user(summary.about.loop)
    return replace(
        event,
        verdict=summary.verdict.verdict,
        served=counts.served,
        failed=counts.failed + counts.refused + counts.unfinished,
        dropped=counts.dropped,
        ttft_p95_ms=None if ttft is None else round(ttft.p95 * 1000),
        ttft_by=summary.ttft_by,
    )
