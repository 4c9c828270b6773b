"""A spike from its first request to the last node given back, on the stage in real Chromium: the whole program, sixty
phones and a hundred users. What the stage showed is held against the log, second by second."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from loadgen.cluster.streams import Streams
from loadgen.phone import Habits
from loadgen.phones import Phones, phones_in
from tests.browser.conftest import PROJECTOR, Demo, Room, free_port, picture, start_demo, stop
from tests.cluster.fakes import copy_manifests, edit
from webapp.log.local import LocalStore
from webapp.timeline import Moment, Timeline, read

PHONES = 60
USERS = 100
TOKENS = 120
MANY = 4
PATIENCE_S = 60
SHOWN_LATE_S = 0.3
"""The stage's document is made anew four times a second."""

RECORD = """
window.shown = [];
document.addEventListener("DOMContentLoaded", () => {
  const text = (name) => document.querySelector(`[data-cl=${name}]`).textContent;
  document.querySelector("#events").addEventListener("snapshot", (event) => {
    const at_s = JSON.parse(event.detail.data).now_ms / 1000;
    const names = ["ready", "ready-more", "in-flight", "waiting", "tokens", "ttft", "usd-hour", "queue-metric"];
    const figures = Object.fromEntries(names.map((name) => [name, text(name)]));
    const pods = document.querySelectorAll(".slot:not([data-phase=none])").length;
    window.shown.push({ at_s, figures: { ...figures, pods: String(pods) } });
  });
});
"""


class Crowd:
    """Phones and users, on an event loop in a thread of its own: the browser has this one."""

    def __init__(self, demo: Demo, code: str) -> None:
        self.streams = Streams(demo.url, TOKENS)
        self.phones: Phones | None = None
        self._where = [demo.url], code, PHONES, Habits(answer_within_s=8)
        self._joined, self._users = AsyncExitStack(), AsyncExitStack()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> Crowd:
        self._thread.start()
        self._do(self._join())
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._leave())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def spike(self) -> None:
        self._do(self._users.enter_async_context(self.streams.users(USERS)))

    def calm(self) -> None:
        """No more requests; everybody has an answer or a reply."""
        self._do(self._rest())

    def _do(self, work: Coroutine[Any, Any, object]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE_S)

    async def _join(self) -> None:
        self.phones = await self._joined.enter_async_context(phones_in(*self._where))

    async def _rest(self) -> None:
        assert self.phones is not None
        await self._users.aclose()
        await self.streams.all_ended(PATIENCE_S)
        await self.phones.all(lambda phone: bool(phone.record.sent), "answering", PATIENCE_S)
        await self.phones.all(
            lambda phone: all(sent.reply_done_at for sent in phone.record.sent.values()), "with a reply", PATIENCE_S
        )

    async def _leave(self) -> None:
        await self._users.aclose()
        self.streams.drop()
        await self._joined.aclose()


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    """Its cluster reads our manifests with shorter waits on the way down."""
    base = copy_manifests(tmp_path)
    edit(base, r"stabilizationWindowSeconds: 300", "stabilizationWindowSeconds: 10")
    edit(base, r"value: 50, periodSeconds: 60", "value: 100, periodSeconds: 15")
    edit(base, r"consolidateAfter: \w+", "consolidateAfter: 4s")
    edit(base, r"sleep: \{seconds: \d+\}", "sleep: {seconds: 1}")
    settings = {"CROWDSPIKE_CLUSTER_MANIFESTS": str(base), "CROWDSPIKE_CLUSTER_SPEED_UP": "20"}
    running = start_demo(tmp_path, free_port(), **settings)
    yield running
    stop(running.process)


def slots(page: Page, phase: str) -> Locator:
    return page.locator(f".slot[data-phase={phase}]")


def spike(page: Page, room: Room) -> Crowd:
    """From one pod to many and back, with a picture of each stage of it."""
    rest = {"timeout": PATIENCE_S * 1000}
    unknown = page.locator(".pod-running", has_text="–")
    expect(slots(page, "ready")).to_have_count(1, **rest)
    expect(unknown).to_have_count(0, **rest)
    with Crowd(room.demo, room.code) as crowd:
        room.control("goto", activity="hpa-sync")
        picture(page, "spike-1-quiet")
        crowd.spike()
        room.control("open")
        expect(page.locator("[data-cl=ready-more]")).to_have_text(re.compile(rf"^of ([{MANY}-9]|10)$"), **rest)
        picture(page, "spike-2-noticed")
        expect(slots(page, "starting").nth(1)).to_be_attached(**rest)
        picture(page, "spike-3-starting")
        expect(slots(page, "ready").nth(MANY - 1)).to_be_attached(**rest)
        for phase in ("pending", "image", "starting"):
            expect(slots(page, phase)).to_have_count(0, **rest)
        expect(unknown).to_have_count(0, **rest)
        expect(page.locator(".cl-step[data-done=true]").nth(6)).to_be_attached(**rest)
        picture(page, "spike-4-ready")
        crowd.calm()
        expect(page.locator("[data-cl=ready-more]")).to_have_text("of 1", **rest)
        expect(page.locator(".slot:not([data-phase=none])")).to_have_count(1, **rest)
        expect(page.locator(".slot:not([data-node=none])")).to_have_count(1, **rest)
        picture(page, "spike-5-back")
    return crowd


def test_spike_goes_from_one_pod_to_many_and_back_and_the_log_says_the_same(guest: Any, demo: Demo) -> None:
    room = Room(demo, demo.code)
    page = guest(PROJECTOR).page
    page.add_init_script(RECORD)
    page.goto(room.stage_url)
    crowd = spike(page, room)
    shown = page.evaluate("window.shown")
    records = [record for record in room.records() if record["type"] == "answered"]
    page.close()
    stop(demo.process)

    assert crowd.streams.unserved == crowd.streams.broken == crowd.streams.short == []
    assert crowd.phones is not None and not [sent for sent in crowd.phones.sent if sent.reply_failed]
    assert len(records) == PHONES and all(record["reply"] for record in records)
    with ThreadPoolExecutor() as pool:  # Playwright's loop runs in this thread
        timeline = pool.submit(asyncio.run, read(LocalStore(demo.store), room.code)).result()
    shown = [one for one in shown if one["at_s"] < timeline.moments[-1].at_s]  # what came after is in no record
    assert len(shown) > 20
    wrong = [(one["at_s"], name, text, values) for one in shown for name, text, values in unlike(one, timeline)]
    assert wrong == []
    assert max(moment.cluster.ready for moment in timeline.moments) >= MANY


def unlike(shown: dict[str, Any], timeline: Timeline) -> Iterator[tuple[str, str, list[float | None]]]:
    """The figures that were neither what the log has of that second nor on the way to what it has of the next."""
    at_s = shown["at_s"]
    later = [moment for moment in timeline.moments if moment.at_s > at_s][:1]
    around = [timeline.at(at_s - SHOWN_LATE_S), timeline.at(at_s), *later]
    moments = [moment for moment in around if moment is not None]  # the stage may show a moment before it is recorded
    assert moments and all(abs(moment.at_s - at_s) < 3 for moment in moments), "a gap in the timeline"
    logged = [figures(moment) for moment in moments]
    for name, text in shown["figures"].items():
        values = [one[name] for one in logged]
        if not is_one_of(text, values):
            yield name, text, values


def figures(moment: Moment) -> dict[str, float | None]:
    """What the stage is to show of it, by the names of its places."""
    cluster, vitals = moment.cluster, moment.vitals
    assert cluster is not None and cluster.autoscaler is not None
    return {
        "ready": cluster.ready,
        "ready-more": cluster.autoscaler.desired,
        "pods": len(cluster.pods),
        "queue-metric": cluster.autoscaler.metric,
        "usd-hour": cluster.usd_per_hour,
        "in-flight": sum(vitals.in_flight.values()),
        "waiting": vitals.waiting,
        "tokens": vitals.tokens_per_s,
        "ttft": vitals.ttft_p95_s,
    }


def is_one_of(text: str, values: list[float | None]) -> bool:
    """Between the least and the greatest, to half of the last digit that is shown; `–` stands for None."""
    digits = re.sub(r"[^0-9.]", "", text)
    known = [value for value in values if value is not None]
    if not digits:
        return (text == "–" and None in values) or (text == "" and 0 in values)
    half = 0.51 * 10 ** -len(digits.partition(".")[2]) + 0.0005
    return bool(known) and min(known) - half <= float(digits) <= max(known) + half
