"""The cluster's half of stage and console in real Chromium, with a cluster that the tests drive."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.cluster_story import TOKEN, Host, Story
from tests.browser.conftest import LAPTOP, PROJECTOR, SMALL_PHONE, Demo, Guest, Room, assert_accessible, picture
from tests.scripted_cluster import T0_S, ScriptedCluster, node, pod
from webapp.talk.samples import sample_talk

SMALL_PROJECTOR = {"width": 1280, "height": 720}


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with Host(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture
def room(host: Host) -> Room:
    return Demo(host.url, "", TOKEN, None, Path()).room()  # type: ignore[arg-type]


@pytest.fixture
def story(host: Host) -> Story:
    """Before the spike."""
    assert host.front is not None
    told = Story(ScriptedCluster())
    told.play(-20)
    host.front.parts.fleet = told.fleet
    return told


def open_stage(guest: Any, room: Room, size: dict, show: str, **options: Any) -> Guest:
    one = guest(size, **options)
    one.page.goto(f"{room.stage_url}?show={show}")
    expect(one.page.locator("[data-cl=ready]")).not_to_have_text("–")
    expect(one.page.locator(".uplot").first).to_be_attached()
    return one


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PROJECTOR, SMALL_PROJECTOR], ids=["1080", "720"])
@pytest.mark.parametrize("show", ["both", "cluster"])
def test_stage_shows_a_spike(guest: Any, room: Room, story: Story, size: dict, show: str, scheme: str) -> None:
    story.play(41)
    one = open_stage(guest, room, size, show, color_scheme=scheme)
    page = one.page
    expect(page.locator(".slot[data-phase=ready]")).to_have_count(4)
    expect(page.locator(".slot[data-phase=pending]")).to_have_count(2)
    expect(page.locator(".slot[data-node=draining]")).to_contain_text("left")
    expect(page.locator("[data-cl=simulated]")).to_have_text("Simulated, cold starts at 10×")
    expect(page.locator("[data-cl=why]")).to_have_text(re.compile(r"^running \d+ \+ 10 × waiting \d+ = \d+ → "))
    expect(page.locator("[data-cl=usd-hour]")).to_have_text("$3.77")
    expect(page.locator("[data-cl=usd-hour-label]")).to_have_text("$/h, list 2026-07-20")
    expect(page.locator("[data-cl=ready-more]")).to_have_text("of 10")
    expect(page.locator(".cl-line").first).to_contain_text("T+34 s No more g5.xlarge can be had")
    expect(page.locator(".cl-step").nth(4)).to_contain_text("T+16 s")
    expect(page.locator(".strip-qr, .lobby-qr").locator("visible=true")).to_have_count(1)
    assert overflow(page) == []
    where = f"cluster-{show}-{size['height']}-{scheme}"
    picture(page, where)
    assert_accessible(page, where)


def overflow(page: Page) -> list[str]:
    """What does not fit its place on the stage, or has been cut."""
    return page.evaluate(
        """() => {
        const html = document.documentElement;
        const found = html.scrollHeight > html.clientHeight ? ["the page"] : [];
        const bounded = ".scene, .cluster, .pod, .node, .pod-word, .node-type, figcaption";
        for (const element of document.querySelectorAll(bounded)) {
            const high = element.scrollHeight - element.clientHeight, wide = element.scrollWidth - element.clientWidth;
            if (element.clientWidth && (high > 2 || wide > 2)) found.push(`${element.className} ${wide} × ${high}`);
        }
        return found;
    }"""
    )


def boxes(page: Page) -> dict[str, list[float]]:
    """Where everything of the cluster's half is."""
    return page.evaluate(
        """() => Object.fromEntries([...document.querySelectorAll(
            "#cluster :is(.cl-figure, .cl-now, .slot, .pod, .node, .cl-plot, .cl-canvas, .cl-key, .cl-feed, .cl-step)"
        )].map((element, number) => {
            const { x, y, width, height } = element.getBoundingClientRect();
            return [`${number} ${element.className}`, [x, y, width, height].map(Math.round)];
        }))"""
    )


def names(page: Page) -> list[str]:
    return page.locator(".pod-name").all_inner_texts()


@pytest.mark.parametrize("show", ["both", "cluster"])
def test_nothing_moves_between_two_ticks(guest: Any, room: Room, story: Story, show: str) -> None:
    page = open_stage(guest, room, PROJECTOR, show).page
    expect(page.locator(".slot[data-phase=ready]")).to_have_count(1)
    before = {name: box for name, box in boxes(page).items() if "cl-key" not in name}
    shown = names(page)
    for until in (12, 27, 41):
        story.play(until)
        expect(page.locator(".cl-line").first).to_contain_text(story.cluster.now.happenings[-1].text)
        after = {name: box for name, box in boxes(page).items() if "cl-key" not in name}
        assert after == before
        assert all(now == was for was, now in zip(shown, names(page), strict=True) if was), "a pod keeps its tile"
        shown = names(page)


def test_tiles_and_plots_are_changed_and_not_made_again(guest: Any, room: Room, story: Story) -> None:
    page = open_stage(guest, room, PROJECTOR, "both").page
    page.evaluate(
        """() => {
        window.made = [];
        new MutationObserver((changes) => {
            for (const change of changes)
                for (const node of change.addedNodes)
                    if (node.nodeType === Node.ELEMENT_NODE) window.made.push(node.outerHTML.slice(0, 80));
        }).observe(document.querySelector("#cluster"), { childList: true, subtree: true });
    }"""
    )
    story.play(27)
    expect(page.locator(".slot[data-phase=ready]")).to_have_count(story.ready)
    assert page.evaluate("window.made") == []


def test_a_pod_that_goes_leaves_its_place_and_the_others_stay(guest: Any, room: Room, story: Story) -> None:
    story.play(41)
    page = open_stage(guest, room, PROJECTOR, "both").page
    expect(page.locator(".slot[data-phase=ready]")).to_have_count(4)
    before = names(page)
    gone = before.index(pod(2).name[-5:])
    now = story.cluster.now
    story.show(replace(now, pods=tuple(p for p in now.pods if p.name != pod(2).name)))
    expect(page.locator(".slot").nth(gone)).to_have_attribute("data-phase", "none")
    after = names(page)
    assert [a for n, a in enumerate(after) if n != gone] == [b for n, b in enumerate(before) if n != gone]
    newcomer = pod(11, created_s=T0_S + 41)
    story.show(replace(story.cluster.now, pods=(*story.cluster.now.pods, replace(newcomer, node=node(2).name))))
    expect(page.locator(".slot").nth(gone)).to_contain_text(newcomer.name[-5:])


def test_key_and_button_choose_what_the_stage_shows_and_it_is_remembered(guest: Any, room: Room, story: Story) -> None:
    page = open_stage(guest, room, PROJECTOR, "both").page
    scene, cluster = page.locator(".scene"), page.locator("#cluster")
    page.goto(room.stage_url)
    for shown in ((True, True), (False, True), (True, False)):
        for part, visible in zip((scene, cluster), shown, strict=True):
            expect(part).to_be_visible(visible=visible)
        expect(page.locator(".lobby-qr, .strip-qr").locator("visible=true")).to_have_count(1)
        if shown != (True, False):
            page.keyboard.press("c")
    picture(page, "cluster-room-only")
    page.reload()
    expect(cluster).to_be_hidden()
    page.get_by_role("button", name="Room, cluster or both").click()
    expect(cluster).to_be_visible()
    expect(page.locator(".uplot").first).to_be_visible()
    page.goto(f"{room.stage_url}?show=cluster")
    expect(scene).to_be_hidden()


def test_plots_know_the_minutes_before_the_page_was_opened(guest: Any, room: Room, story: Story) -> None:
    story.play(41)
    page = open_stage(guest, room, PROJECTOR, "cluster").page
    columns = page.evaluate("fetch(document.querySelector('#cluster').dataset.history).then((a) => a.json())")
    assert len(columns["t"]) == 341
    assert max(columns["metric"]) > 200
    blank = (
        "[...document.querySelectorAll('.uplot canvas')].filter((c) => !c.getContext('2d').getImageData("
        "c.width * 0.3, 0, c.width * 0.4, c.height).data.some((v) => v > 0)).length"
    )
    page.wait_for_function(f"document.querySelectorAll('.uplot canvas').length === 5 && ({blank}) === 0")


def test_summary_is_spoken_politely_and_plots_have_their_values_as_text(guest: Any, room: Room, story: Story) -> None:
    page = open_stage(guest, room, PROJECTOR, "both").page
    expect(page.get_by_role("status").filter(has_text="1 pod ready, 1 asked for")).to_be_attached()
    caption = page.locator(".cl-plot-pods figcaption")
    expect(caption).to_contain_text(re.compile(r"ready\s+1\s+asked for\s+1"))


def test_every_scene_fits_beside_the_cluster(guest: Any, room: Room, story: Story) -> None:
    story.play(41)
    page = open_stage(guest, room, SMALL_PROJECTOR, "both").page
    cut = []

    def look(name: str) -> None:
        page.goto(f"{room.stage_url}?show=both", wait_until="domcontentloaded")
        expect(page.locator(".cl-steps")).to_be_visible()
        cut.extend(f"{name}: {what}" for what in overflow(page))
        picture(page, f"cluster-scene-{name}")

    for activity in sample_talk().activities:
        room.control("goto", activity=activity.id)
        room.control("open")
        if activity.kind in ("quiz", "survey"):
            room.control("close")
            room.control("reveal")
        look(activity.id)
    for scene in ("leaderboard", "podium", "questions"):
        room.control("show", scene=scene)
        look(scene)
    assert cut == []


@pytest.fixture
def presenter(guest: Any, room: Room) -> Any:
    def sign_in(size: dict, **options: Any) -> Page:
        page = guest(size, **options).page
        page.goto(f"{room.demo.url}/present?token={TOKEN}")
        page.goto(room.console_url)
        return page

    return sign_in


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [LAPTOP, SMALL_PHONE], ids=["laptop", "320"])
def test_console_shows_the_cluster(presenter: Any, story: Story, size: dict, scheme: str) -> None:
    story.play(41)
    page = presenter(size, color_scheme=scheme)
    panel = page.locator("#cluster")
    expect(panel).to_contain_text("10 asked for")
    panel.locator("#cluster-chaos > summary").click()
    expect(panel.get_by_role("button", name="Kill a pod")).to_be_visible()
    picture(page, f"cluster-console-{size['width']}-{scheme}")
    assert_accessible(page, f"console {size} {scheme}")


def test_presenter_steers_and_undoes(presenter: Any, story: Story) -> None:
    page = presenter(LAPTOP)
    panel = page.locator("#cluster")
    expect(panel.get_by_role("button", name="Scale by load again")).to_be_disabled()
    panel.get_by_role("spinbutton", name="Pods").fill("7")
    story.play(-15)
    expect(panel).to_contain_text(re.compile("ready"))
    panel.get_by_role("button", name="Pre-warm").click()
    expect(panel).to_contain_text("Set to 7 pods, whatever the load.")
    expect(panel).to_contain_text(re.compile("Set to 7"))
    panel.get_by_role("button", name="Scale by load again").click()
    expect(panel.get_by_role("button", name="Scale by load again")).to_be_disabled()
    panel.get_by_role("button", name="Hold").click()
    expect(panel).to_contain_text("On hold")
    panel.get_by_role("button", name="Go on").click()
    expect(panel.get_by_role("button", name="Go on")).to_be_disabled()
    assert story.cluster.done == [("pin", 7), ("pin", None), ("hold", True), ("hold", False)]


def test_presenter_breaks_things_and_mends_them(presenter: Any, story: Story) -> None:
    story.play(41)
    page = presenter(LAPTOP)
    panel = page.locator("#cluster")
    panel.locator("#cluster-chaos > summary").click()
    panel.get_by_role("button", name="Kill a pod").click()
    expect(panel.get_by_role("status")).to_contain_text("was killed")
    panel.get_by_role("button", name="Interrupt a Spot node").click()
    expect(panel.get_by_role("status")).to_contain_text("two minutes' notice")
    panel.get_by_role("button", name="Make unavailable").click()
    panel.get_by_role("button", name="Available again").click()
    expect(panel.get_by_role("button", name="Make unavailable")).to_be_visible()
    story.cluster.refusal = "The cluster is read only for this account."
    panel.get_by_role("button", name="Kill a pod").click()
    expect(page.get_by_role("alert")).to_contain_text("read only for this account")
    expect(panel.get_by_role("button", name="Kill a pod")).to_be_disabled()
    expect(panel).to_contain_text("read only for this account")
    calls = [call[0] for call in story.cluster.done]
    assert calls == ["kill_pod", "interrupt_node", "set_unavailable", "set_unavailable"]


def test_steering_works_without_javascript(presenter: Any, story: Story) -> None:
    page = presenter(LAPTOP, java_script_enabled=False)
    page.get_by_role("button", name="Hold").click()
    expect(page.locator("#cluster")).to_contain_text("On hold")
