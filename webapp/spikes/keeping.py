"""What a run has left in its folder, put into the store and summed up for the log."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loadgen.spike.folder import PLAN, POINTS, REPORT, SERVER, SUMMARY
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


def summary(folder: Path) -> dict[str, Any] | None:
    """None where it was not written, or not whole."""
    try:
        read = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return read if isinstance(read, dict) else None


def ended(
    id: str, at_ms: int, spike: str, summary: Mapping[str, Any] | None, otherwise: str, headline: str, kept: bool
) -> SpikeEnded:
    """The event. Without a summary the verdict is `otherwise`."""
    figures = summary or {}
    counts = figures.get("counts", {})
    ttft_s, by = first_token_p95_s(figures)
    verdict = figures.get("verdict", {}).get("verdict", otherwise)
    return SpikeEnded(
        id=id,
        at_ms=at_ms,
        spike=spike,
        verdict=verdict,
        headline=headline.strip()[:HEADLINE_CHARS],
        served=counts.get("served", 0),
        failed=sum(counts.get(name, 0) for name in ("failed", "refused", "unfinished")),
        dropped=counts.get("dropped", 0),
        ttft_p95_ms=None if ttft_s is None else round(ttft_s * 1000),
        ttft_by=by,
        kept=kept,
    )


def first_token_p95_s(summary: Mapping[str, Any]) -> tuple[float | None, str]:
    """p95 of the time to first token, from the scheduled time where there is one, and who saw it: the tool, or the
    probe beside it."""
    both = (summary.get("latency") or {}).get("ttft_s") or {}
    own = both.get("scheduled") or both.get("service")
    probe = ((summary.get("probe") or {}).get("ttft_s")) or {}
    if own:
        return own["p95"], summary.get("ttft_by", "")
    probed = probe.get("scheduled") or probe.get("service") or probe
    return probed.get("p95"), "probe" if probed.get("p95") is not None else ""
