"""The cluster by HTTP: what the stage is given, and what the presenter may do."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from callers import HTML, Web, listening, web_on
from markup import check_markup

from inference.cluster.kubernetes.prometheus import Readings
from tests.scripted_cluster import ScriptedCluster, pod, snapshot

HX = {**HTML, "hx-request": "true"}


@pytest.fixture
def cluster() -> ScriptedCluster:
    return ScriptedCluster(snapshot(2))


@pytest.fixture
async def web(tmp_path: Path, cluster: ScriptedCluster) -> AsyncIterator[Web]:
    async with web_on(tmp_path / "store", cluster=cluster) as web:
        yield web


async def steer(web: Web, code: str, action: str, **fields: str) -> httpx.Response:
    return await web.presenter.post(f"/present/{code}/cluster", json={"action": action, **fields})


async def snapshots(web: Web, *paths: str) -> list[dict]:
    """The first snapshot of each stream."""
    found = []
    headers = {"authorization": f"Bearer {web.token}"}
    async with listening(web) as url, httpx.AsyncClient(base_url=url, headers=headers) as http:
        for path in paths:
            async with http.stream("GET", path) as stream:
                async for line in stream.aiter_lines():
                    if line.startswith("data: "):
                        found.append(json.loads(line.removeprefix("data: ")))
                        break
    assert len(found) == len(paths)
    return found


async def test_the_stages_stream_carries_the_cluster_and_the_consoles_does_not(web: Web, code: str) -> None:
    stage, console = await snapshots(web, f"/stage/{code}/events", f"/present/{code}/events")
    assert [p["short"] for p in stage["cluster"]["pods"]] == [pod(0).name[-5:], pod(1).name[-5:]]
    assert stage["cluster"]["point"]["ready"] == 2
    assert "cluster" not in console


async def test_history_is_given_in_columns_and_holds_no_secret(web: Web, code: str) -> None:
    web.front.parts.fleet.tick()
    response = await web.client().get(f"/stage/{code}/history")
    columns = response.json()
    assert columns["ready"][-1] == 2
    assert {len(column) for column in columns.values()} == {len(columns["t"])}
    for secret in (web.token, "http://", pod(0).name):
        assert secret not in response.text
    assert (await web.client().get("/stage/ZZZZ/history")).status_code == 404


async def test_the_stage_has_a_place_for_the_cluster_and_shows_what_the_address_asks_for(web: Web, code: str) -> None:
    for query, shown in (("", "both"), ("?show=room", "room"), ("?show=cluster", "cluster"), ("?show=<b>", "both")):
        response = await web.client().get(f"/stage/{code}{query}", headers=HTML)
        check_markup(response.text, query)
        assert f'class="stage show-{shown}"' in response.text
        assert response.text.count('class="slot"') == 10
    assert "strip-again" in (await web.client().get(f"/stage/{code}/screen", headers=HTML)).text


async def test_the_presenter_steers_and_is_told_what_was_done(web: Web, code: str, cluster: ScriptedCluster) -> None:
    response = await steer(web, code, "pin", replicas="7")
    assert response.json() == {"said": "Set to 7 pods, whatever the load."}
    await steer(web, code, "kill")
    await steer(web, code, "interrupt", name="ip-10-0-1-0001")
    await steer(web, code, "deny", name="g6.xlarge")
    panel = (await web.presenter.get(f"/present/{code}/cluster", headers=HX)).text
    assert "Available again" in panel
    assert "No more g6.xlarge can be had." in panel, "what the last action did stays to be read"
    assert "Set to 7" in panel
    assert cluster.done[1:] == [
        ("kill_pod", None),
        ("interrupt_node", "ip-10-0-1-0001"),
        ("set_unavailable", "g6.xlarge", True),
    ]


async def test_a_form_leads_back_and_htmx_gets_the_panel(web: Web, code: str) -> None:
    path = f"/present/{code}/cluster"
    response = await web.presenter.post(path, data={"action": "hold"}, headers=HTML)
    assert (response.status_code, response.headers["location"]) == (303, f"/present/{code}")
    response = await web.presenter.post(path, data={"action": "release"}, headers=HX)
    assert "Scaling goes on." in response.text
    check_markup(response.text, path)


async def test_what_the_cluster_refuses_is_told_in_its_own_words(web: Web, code: str, cluster: ScriptedCluster) -> None:
    cluster.refusal = "Read <only>."
    response = await steer(web, code, "kill")
    assert (response.status_code, response.json()["detail"]) == (409, "Read <only>.")
    response = await web.presenter.post(f"/present/{code}/cluster", data={"action": "kill"}, headers=HX)
    assert (response.status_code, "Read &lt;only&gt;." in response.text) == (200, True)
    console = (await web.presenter.get(f"/present/{code}", headers=HTML)).text
    assert "Read &lt;only&gt;." in console


async def test_the_console_passes_on_what_the_replicas_say(web: Web, code: str, cluster: ScriptedCluster) -> None:
    assert "by Prometheus" not in (await web.presenter.get(f"/present/{code}/cluster")).text
    cluster.telling = Readings(ttft_p50_s=0.12, tokens_per_s=2640.4).sentence()
    shown = (await web.presenter.get(f"/present/{code}/cluster")).text
    assert "All replicas, by Prometheus: first token p50 0.12 s, tokens a second 2,640" in shown


@pytest.mark.parametrize(
    "wrong",
    [
        {"action": "explode"},
        {},
        {"action": "pin"},
        {"action": "pin", "replicas": "-1"},
        {"action": "pin", "replicas": "11"},
        {"action": "pin", "replicas": "²"},
        {"action": "deny"},
        {"action": "allow", "name": ""},
    ],
)
async def test_what_makes_no_sense_is_refused(web: Web, code: str, cluster: ScriptedCluster, wrong: dict) -> None:
    response = await web.presenter.post(f"/present/{code}/cluster", json=wrong)
    assert response.status_code == 400
    assert cluster.done == []


async def test_without_a_cluster_the_stage_is_the_rooms_and_the_console_says_why(tmp_path: Path) -> None:
    async with web_on(tmp_path / "other") as web:
        code = await web.room()
        stage = (await web.client().get(f"/stage/{code}?show=cluster", headers=HTML)).text
        assert 'class="stage show-room"' in stage
        assert 'id="cluster"' not in stage
        assert (await web.client().get(f"/stage/{code}/history")).status_code == 404
        console = (await web.presenter.get(f"/present/{code}", headers=HTML)).text
        assert "neither runs nor watches a cluster" in console
        assert (await steer(web, code, "kill")).status_code == 409
        assert "cluster" not in (await snapshots(web, f"/stage/{code}/events"))[0]
