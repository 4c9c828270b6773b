"""A room's load runs: what the log says of them, what may be done with them, and what the stage tells."""

from __future__ import annotations

import pytest

from tests.recordings import store_in
from tests.sample_room import T0_MS, TALK, SampleRoom
from webapp.log.memory import MemoryStore
from webapp.report.page import page
from webapp.room import spike_commands as commands
from webapp.room import spikes
from webapp.room.commands import CommandRefused
from webapp.room.events import Control, SpikeArmed, SpikeEnded, decode_control, encode
from webapp.room.state import fold
from webapp.spikes.choice import Limits
from webapp.tape import load
from webapp.templating import environment
from webapp.views.spike_mark import spike_mark, with_spikes
from webapp.views.spike_panel import spike_panel
from webapp.views.stage import stage_screen

SECRET_TARGET = "http://hidden-host.test:8000"
LIMITS = Limits(200, 1800)


def armed(spike: str = "ab12cd34", at_ms: int = T0_MS, **fields) -> SpikeArmed:
    values = {
        "scenario": "spike",
        "tool": "k6",
        "peak": 40,
        "unit": "requests/s",
        "duration_s": 60,
        "target": SECRET_TARGET,
        "by": "w1",
        "until_ms": at_ms + 1_000_000,
    }
    return SpikeArmed(id=f"arm-{spike}", at_ms=at_ms, spike=spike, **{**values, **fields})


def ended(spike: str = "ab12cd34", at_ms: int = T0_MS + 70_000, **fields) -> SpikeEnded:
    values = {
        "verdict": "pass",
        "headline": "All was well.",
        "served": 1200,
        "failed": 3,
        "dropped": 0,
        "ttft_p95_ms": 420,
        "ttft_by": "held headers",
        "kept": True,
    }
    return SpikeEnded(id=f"end-{spike}", at_ms=at_ms, spike=spike, **{**values, **fields})


class Room(SampleRoom):
    def take(self, event: Control) -> Control:
        self.control.append(event)
        self.state.apply(event)
        return event

    def arm(self, **fields) -> Room:
        self.take(commands.arm(self.state, armed(at_ms=self.now_ms, **fields)))
        return self

    def fire(self, spike: str = "ab12cd34") -> Room:
        self.take(commands.fire(self.state, spike, "fire", self.now_ms))
        return self

    def stop(self, spike: str = "ab12cd34") -> Room:
        self.take(commands.stop(self.state, spike, "stop", self.now_ms))
        return self

    def end(self, **fields) -> Room:
        self.take(commands.end(self.state, ended(at_ms=self.now_ms, **fields)))
        return self


def test_a_run_is_armed_fired_stopped_and_has_ended_by_the_log_alone() -> None:
    room = Room().arm()
    assert room.state.spikes["ab12cd34"].phase == "armed"
    room.after(5).fire()
    assert room.state.spikes["ab12cd34"].phase == "running"
    room.after(20).stop().after(2).end(verdict="stopped")
    spike = room.state.spikes["ab12cd34"]
    assert (spike.phase, spike.stopped_ms, spikes.active(room.state.spikes)) == ("ended", T0_MS + 25_000, None)
    read = fold(room.info, [decode_control(encode(event)) for event in room.control], [])
    assert read == room.state


def test_phones_need_not_look_again_for_a_run() -> None:
    room = Room()
    room.do("goto", activity="q1")
    version = room.state.version
    room.arm().fire().stop().end()
    assert (room.state.version, room.state.seq) == (version, version + 4)


def test_a_room_has_one_run_at_a_time() -> None:
    room = Room().arm()
    with pytest.raises(CommandRefused, match="stands ready"):
        room.arm(spike="other")
    room.fire()
    with pytest.raises(CommandRefused, match="under way"):
        room.arm(spike="other")
    room.end().arm(spike="other")
    assert spikes.active(room.state.spikes).id == "other"


def test_what_is_out_of_order_is_refused() -> None:
    room = Room()
    for refused in (room.fire, room.stop, room.end):
        with pytest.raises(CommandRefused, match="no such"):
            refused()
    room.arm().stop()
    for refused, words in ((room.fire, "was stopped"), (room.stop, "being stopped")):
        with pytest.raises(CommandRefused, match=words):
            refused()
    room.end(verdict="stopped")
    for refused in (room.fire, room.stop, room.end):
        with pytest.raises(CommandRefused, match="has ended"):
            refused()


def test_the_fold_takes_only_the_first_of_events_that_two_processes_wrote() -> None:
    room = Room().arm().fire().end(verdict="pass")
    before = dict(room.state.spikes)
    for event in (armed(peak=7), ended(verdict="lost"), ended("unknown", verdict="lost")):
        room.state.apply(event)
    assert room.state.spikes == before


def test_an_archived_room_lets_a_run_end_but_not_begin() -> None:
    room = Room().arm()
    room.do("archive")
    with pytest.raises(CommandRefused, match="archived"):
        room.fire()
    room.stop().end(verdict="stopped")
    with pytest.raises(CommandRefused, match="archived"):
        room.arm(spike="other")


def test_the_stage_names_the_run_counts_down_and_never_tells_its_target() -> None:
    room = Room().arm()
    assert spike_mark(room.state.spikes, room.now_ms) is None, "nothing is sent yet"
    room.fire().after(10)
    screen = stage_screen(room.state, room.now_ms, "http://talk.test/j/KWXM", False)
    assert screen.spike.what == "Spike · k6 · 40 requests/s for 60 s"
    assert (screen.spike.load, screen.spike.deadline_ms, screen.spike.ending) == (
        "scripted load",
        T0_MS + 60_000,
        False,
    )
    assert "hidden-host" not in repr(screen)
    assert spike_mark(room.state.spikes, T0_MS + 61_000).ending
    room.after(60).end()
    assert stage_screen(room.state, room.now_ms, "http://talk.test/j/KWXM", False).spike is None


@pytest.mark.parametrize(
    ("fields", "what", "load"),
    [
        (
            {"scenario": "amplify", "peak": 10, "unit": "copies", "duration_s": 120},
            "Amplify · k6 · 10 copies for 2 min",
            "amplified questions",
        ),
        (
            {"scenario": "audience", "tool": "locust", "peak": 50, "unit": "phones", "duration_s": 90},
            "Audience · Locust · 50 phones for 90 s",
            "scripted phones",
        ),
    ],
)
def test_the_stage_says_whose_load_it_is(fields: dict, what: str, load: str) -> None:
    room = Room().arm(**fields).fire()
    mark = spike_mark(room.state.spikes, room.now_ms)
    assert (mark.what, mark.load) == (what, load)


def test_a_run_that_nobody_ended_leaves_the_stage_by_itself() -> None:
    room = Room().arm().fire()
    until_ms = room.state.spikes["ab12cd34"].until_ms
    assert spike_mark(room.state.spikes, until_ms + 1000) is not None
    assert spike_mark(room.state.spikes, until_ms + 61_000) is None


def test_begin_and_end_stand_among_the_decisions_with_their_time_after_the_rise() -> None:
    room = Room().arm()
    document = {"feed": [{"kind": "hpa", "text": "4 pods asked for", "ago_s": 8, "t_s": 15, "seq": 1}]}
    assert with_spikes(document, room.state.spikes, None, room.now_ms) is document
    room.fire().after(60).end(verdict="fail")
    edge_s = T0_MS / 1000 + 1
    feed = with_spikes(document, room.state.spikes, edge_s, room.now_ms + 10_000)["feed"]
    assert [line["text"] for line in feed] == [
        "4 pods asked for",
        "Load ends: the run missed its thresholds",
        "Load begins: Spike · k6 · 40 requests/s for 60 s",
    ]
    assert [line["t_s"] for line in feed[1:]] == [59, None]
    assert "hidden-host" not in repr(feed)
    before = with_spikes(document, room.state.spikes, edge_s, room.now_ms - 1000)["feed"]
    assert len(before) == 2, "a replay does not know the end before it came"


def panel(room: SampleRoom, progress=None, missing=None, target: str = "http://own.test"):
    return spike_panel(room.state, room.now_ms, progress, missing or {}, LIMITS, target)


def test_the_panel_of_another_process_shows_that_it_runs_and_lets_stop() -> None:
    room = Room().arm()
    assert panel(room).now.can_fire
    room.fire().after(15)
    now = panel(room).now
    assert (now.state, now.share, now.figures, now.can_stop) == ("Running", 25, (), True)
    assert "Another web process" in now.says
    room.stop()
    assert not panel(room).now.can_stop


def test_the_panel_says_why_nothing_can_be_chosen() -> None:
    assert panel(Room()).why_not == ""
    none = {"k6": "k6 is not here.", "locust": "Locust is not here."}
    assert panel(Room(), missing={"k6": none["k6"]}).why_not == ""
    assert "Neither" in panel(Room(), missing=none).why_not
    assert "CROWDSPIKE_SPIKE_TARGET" in panel(Room(), target="").why_not
    archived = Room(TALK)
    archived.do("archive")
    assert "archived" in panel(archived).why_not


def test_the_panel_lists_the_latest_runs_with_what_came_of_them() -> None:
    room = Room()
    for n in range(7):
        room.after(100).arm(spike=f"run{n}").fire(f"run{n}").after(60).end(spike=f"run{n}", verdict="fail")
    past = panel(room).past
    assert [one.id for one in past] == ["run6", "run5", "run4", "run3", "run2"]
    assert past[0].verdict == "missed its thresholds"
    assert past[0].headline == "All was well."


async def test_a_rooms_report_lists_its_load_runs_from_the_log_alone() -> None:
    room = Room().arm().fire().after(60).end(verdict="fail")
    room.after(10).arm(spike="second00").fire("second00")
    store = MemoryStore()
    await store_in(store, room, [])
    html = page(await load(store, "KWXM"), environment(""))
    assert '<h2 id="runs">Load runs</h2>' in html
    assert "missed its thresholds" in html
    assert "not recorded" in html
    assert "hidden-host" not in html
