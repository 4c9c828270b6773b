"""Load runs by HTTP: what the presenter may ask for, what is shown of it and to whom."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest
from callers import HTML, Web, web_on
from markup import check_markup

from tests.scripted_cluster import ScriptedCluster, snapshot
from webapp.room.events import SpikeArmed, SpikeEnded, SpikeFired
from webapp.room.spikes import Spike
from webapp.routes.stage import stage_snapshot
from webapp.server import address, listen

HX = {**HTML, "hx-request": "true"}
REFUSING = "http://127.0.0.1:9"
"""Nothing listens on the discard port."""
RUN = "ab12cd34ef"
WITHIN_S = 30.0


@pytest.fixture
async def web(tmp_path: Path) -> AsyncIterator[Web]:
    cluster = ScriptedCluster(snapshot(2))
    async with web_on(tmp_path / "store", cluster=cluster, spike_target=REFUSING) as web:
        yield web


async def post(web: Web, code: str, action: str, **fields: str) -> httpx.Response:
    return await web.presenter.post(f"/present/{code}/spikes", json={"action": action, **fields})


async def spikes_of(web: Web, code: str) -> list[dict]:
    return (await web.presenter.get(f"/present/{code}/spikes")).json()["spikes"]


async def until(web: Web, code: str, true: Callable[[Spike], object]) -> Spike:
    room = await web.front.parts.rooms.get(code)
    async with asyncio.timeout(WITHIN_S):
        async for _ in room.changes(0.1, asyncio.Event()):
            for spike in room.state.spikes.values():
                if true(spike):
                    return spike
    raise AssertionError


async def tell(web: Web, code: str, *kinds: str) -> None:
    """A run that another web process has: its events come into the log."""
    room = await web.front.parts.rooms.get(code)
    known = {
        "armed": lambda at_ms: SpikeArmed(
            **{"id": "a", "at_ms": at_ms, "spike": RUN, "scenario": "spike", "tool": "k6", "peak": 40},
            **{"unit": "requests/s", "duration_s": 60, "target": "http://hidden-host.test", "by": "another"},
            until_ms=at_ms + 600_000,
        ),
        "fired": lambda at_ms: SpikeFired(id="f", at_ms=at_ms, spike=RUN, until_ms=at_ms + 200_000),
        "ended": lambda at_ms: SpikeEnded(
            **{"id": "e", "at_ms": at_ms, "spike": RUN, "verdict": "fail", "headline": "<b>Slow</b> & late."},
            **{"served": 1200, "failed": 3, "dropped": 0, "ttft_p95_ms": 4200, "ttft_by": "held headers"},
            kept=True,
        ),
    }
    for kind in kinds:
        await room.append_control(lambda state, at_ms, kind=kind: known[kind](at_ms))


async def test_only_the_presenter_may(web: Web, code: str) -> None:
    stranger = web.client()
    for method, path in (
        ("POST", f"/present/{code}/spikes"),
        ("GET", f"/present/{code}/spikes"),
        ("DELETE", f"/present/{code}/spikes/{RUN}"),
        ("GET", f"/present/{code}/spikes/{RUN}/report"),
    ):
        assert (await stranger.request(method, path)).status_code == 401, path
    cross = await web.presenter.post(f"/present/{code}/spikes", json={}, headers={"origin": "http://evil.test"})
    assert cross.status_code == 403


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"action": "explode"}, "action must be"),
        ({"action": ""}, "action must be"),
        ({"action": "arm"}, "scenario must be"),
        ({"action": "arm", "scenario": "matrix"}, "scenario must be"),
        ({"action": "arm", "scenario": "spike", "tool": "wrk"}, "tool must be"),
        ({"action": "arm", "scenario": "spike", "peak": "201"}, "1 to 200"),
        ({"action": "arm", "scenario": "spike", "peak": "0"}, "1 to 200"),
        ({"action": "arm", "scenario": "spike", "peak": "²"}, "whole number"),
        ({"action": "arm", "scenario": "spike", "duration_s": "1801"}, "1 to 1800"),
        ({"action": "arm", "scenario": "spike", "duration": "20s"}, "no field 'duration'"),
        ({"action": "arm", "scenario": "spike", "target": "file:///etc/passwd", "confirmed": "1"}, "http://"),
        ({"action": "arm", "scenario": "spike", "target": "http://other.test"}, "not this room's own gateway"),
        ({"action": "arm", "scenario": "amplify", "target": "http://other.test", "confirmed": "1"}, "takes part"),
    ],
)
async def test_what_makes_no_sense_or_harm_is_refused(web: Web, code: str, wrong: dict, words: str) -> None:
    response = await web.presenter.post(f"/present/{code}/spikes", json=wrong)
    assert (response.status_code, words in response.json()["detail"]) == (400, True), response.text
    assert await spikes_of(web, code) == []
    shown = await web.presenter.post(f"/present/{code}/spikes", data=wrong, headers=HX)
    assert shown.status_code == 200
    assert "hx-swap-oob" in shown.text


async def test_without_a_run_there_is_nothing_to_fire_or_to_stop(web: Web, code: str) -> None:
    for action in ("fire", "stop"):
        assert (await post(web, code, action)).status_code == 409
        assert (await post(web, code, action, id="unknown0")).status_code == 404
    assert (await web.presenter.delete(f"/present/{code}/spikes/unknown0")).status_code == 404


async def test_a_target_that_refuses_is_said_in_the_runners_words(web: Web, code: str) -> None:
    response = await post(web, code, "arm", scenario="spike", request_id=RUN)
    assert (response.status_code, response.json()["phase"], response.json()["id"]) == (200, "armed", RUN)
    spike = await until(web, code, lambda spike: spike.ended)
    assert spike.ended.verdict == "failed"
    assert "127.0.0.1:9" in spike.ended.headline
    console = (await web.presenter.get(f"/present/{code}", headers=HTML)).text
    assert "did not run" in console
    assert (await web.presenter.get(f"/present/{code}/spikes/{RUN}/report")).status_code == 404
    assert (await post(web, code, "fire", id=RUN)).status_code == 409


async def test_the_console_offers_what_can_be_chosen(web: Web, code: str) -> None:
    page = (await web.presenter.get(f"/present/{code}", headers=HTML)).text
    check_markup(page, "console")
    assert "Spike: a step up and back (40 requests/s, 60 s)" in page
    assert 'max="200"' in page
    assert REFUSING in page
    panel = (await web.presenter.get(f"/present/{code}/spikes", headers=HX)).text
    assert "<html" not in panel
    assert 'value="arm"' in panel


async def test_a_run_of_another_web_process_is_shown_and_can_be_stopped(web: Web, code: str) -> None:
    await tell(web, code, "armed", "fired")
    panel = (await web.presenter.get(f"/present/{code}/spikes", headers=HX)).text
    check_markup(panel, "panel")
    assert "Another web process runs it" in panel
    assert 'value="arm"' not in panel
    assert (await post(web, code, "arm", scenario="spike")).status_code == 409
    for _ in range(2):
        response = await web.presenter.delete(f"/present/{code}/spikes/{RUN}")
        assert response.status_code == 200
        assert response.json()["stopped_ms"] is not None, "a second time is no error"


async def test_a_form_leads_back_and_htmx_gets_the_panel(web: Web, code: str) -> None:
    await tell(web, code, "armed")
    path = f"/present/{code}/spikes"
    response = await web.presenter.post(path, data={"action": "fire", "id": RUN}, headers=HTML)
    assert (response.status_code, response.headers["location"]) == (303, f"/present/{code}")
    response = await web.presenter.post(path, data={"action": "stop", "id": RUN}, headers=HX)
    assert "It is being stopped" in response.text


async def test_the_stage_marks_a_run_and_tells_no_target(web: Web, code: str) -> None:
    stage, screen = f"/stage/{code}", f"/stage/{code}/screen"
    await tell(web, code, "armed")
    assert "Spike ·" not in (await web.client().get(screen, headers=HTML)).text
    await tell(web, code, "fired")
    for path in (stage, screen):
        html = (await web.client().get(path, headers=HTML)).text
        check_markup(html, path)
        assert "Spike · k6 · 40 requests/s for 60 s" in html
        assert "scripted load" in html
        assert "hidden-host" not in html
    await tell(web, code, "ended")
    assert "Spike ·" not in (await web.client().get(screen, headers=HTML)).text


async def test_what_a_run_left_is_served_and_its_report_may_run_nothing(web: Web, code: str) -> None:
    await tell(web, code, "armed", "fired", "ended")
    store, prefix = web.front.parts.rooms.store, f"rooms/{code}/spikes/{RUN}/"
    await store.put(prefix + "report.html", b"<!doctype html><title>R</title><style>p{color:red}</style><p>Verdict")
    await store.put(prefix + "summary.json", json.dumps({"version": 1}).encode())
    base = f"/present/{code}/spikes/{RUN}"
    report = await web.presenter.get(f"{base}/report", headers=HTML)
    assert (report.status_code, b"Verdict" in report.content) == (200, True)
    policy = report.headers["content-security-policy"]
    assert "script-src" not in policy
    assert policy.startswith("default-src 'none'")
    assert policy.endswith("sandbox")
    assert "nonce" in (await web.presenter.get(f"/present/{code}", headers=HTML)).headers["content-security-policy"]
    assert (await web.presenter.get(f"{base}/summary.json")).json() == {"version": 1}
    for missing in (f"{base}/points.jsonl.gz", f"{base}/plan.json", f"/present/{code}/spikes/other/report"):
        assert (await web.presenter.get(missing)).status_code == 404


async def test_what_a_run_says_is_text(web: Web, code: str) -> None:
    await tell(web, code, "armed", "fired", "ended")
    console = (await web.presenter.get(f"/present/{code}", headers=HTML)).text
    check_markup(console, "console")
    assert "&lt;b&gt;Slow&lt;/b&gt; &amp; late." in console


async def test_a_runs_begin_is_among_the_stages_decisions(web: Web, code: str) -> None:
    await tell(web, code, "armed", "fired")
    room = await web.front.parts.rooms.get(code)
    feed = stage_snapshot(web.front.parts, room)["cluster"]["feed"]
    assert any(line["text"] == "Load begins: Spike · k6 · 40 requests/s for 60 s" for line in feed)
    assert "hidden-host" not in repr(feed)


def test_the_server_knows_its_own_address_whatever_it_listens_on() -> None:
    for host in ("127.0.0.1", "0.0.0.0"):
        sock = listen(host, 0)
        assert address(sock) == f"http://127.0.0.1:{sock.getsockname()[1]}"
        sock.close()
