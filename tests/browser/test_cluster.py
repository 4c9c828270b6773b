"""The cluster's half of stage and console in real Chromium, with a cluster that the tests drive."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from playwright.sync_api import Page, expect

from inference.cluster.snapshot import Autoscaler, ClusterSnapshot, Happening
from tests.browser.conftest import LAPTOP, PROJECTOR, SMALL_PHONE, Demo, Guest, Room, assert_accessible, picture
from tests.scripted_cluster import ON_DEMAND, T0_S, ScriptedCluster, node, pod, snapshot
from webapp.app import Front, running_app
from webapp.gateway.record import Record
from webapp.live.fleet import Fleet
from webapp.live.vitals import Vitals
from webapp.server import Server, listen
from webapp.settings import Settings
from webapp.talk.samples import sample_talk

SMALL_PROJECTOR = {"width": 1280, "height": 720}
TOKEN = "presenter-token"


class Host:
    """The program in a thread of its own, with a scripted cluster."""

    def __init__(self, store: Path) -> None:
        self.cluster = ScriptedCluster(snapshot(1, time.time()))
        self.front: Front | None = None
        self.url = ""
        self._store = store
        self._bound = threading.Event()
        self._server: Server | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    async def _serve(self) -> None:
        settings = Settings(store=str(self._store), secret="s" * 32, presenter_token=TOKEN, simulated=True)
        async with running_app(settings, [sample_talk()], self.cluster) as front:
            sock = listen("127.0.0.1", 0)
            config = uvicorn.Config(front, lifespan="off", log_config=None, timeout_graceful_shutdown=1)
            self.front, self._server = front, Server(config)
            self.url = f"http://127.0.0.1:{sock.getsockname()[1]}"
            task = asyncio.create_task(self._server._serve(sockets=[sock]))
            await self._server.bound.wait()
            self._bound.set()
            await task
            sock.close()

    def __enter__(self) -> Host:
        self._thread.start()
        assert self._bound.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.should_exit = True
        self._thread.join(20)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with Host(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture
def room(host: Host) -> Room:
    return Demo(host.url, "", TOKEN, None, Path()).room()  # type: ignore[arg-type]


class Story:
    """A spike, second by second: the load rises at 0, KEDA asks for ten pods, nodes and pods come one after another.
    It goes through the program's own arithmetic, with a clock of its own."""

    def __init__(self, cluster: ScriptedCluster) -> None:
        self.cluster = cluster
        self.second = -300
        self.load = {"audience": 0, "amplified": 0, "k6": 0, "locust": 0, "batch": 0, "api": 0}
        self.vitals = Vitals(self.load, lambda: max(0, sum(self.load.values()) - 32 * self.ready), self.now_s)
        self.fleet = Fleet(cluster, self.vitals, self.now_s, "2026-07-20")

    def now_s(self) -> float:
        return T0_S + self.second

    @property
    def ready(self) -> int:
        return 1 if self.second < 24 else min(4, 1 + (self.second - 22) // 2)

    def play(self, until: int) -> None:
        while self.second < until:
            self.second += 1
            self._requests()
            self.cluster.now = self._snapshot()
            self.fleet.tick()

    def show(self, now: ClusterSnapshot) -> None:
        """Another view of the cluster, a second later."""
        self.second += 1
        self.cluster.now = now

    def _requests(self) -> None:
        t, wave = self.second, abs(self.second % 9 - 4)
        self.load["audience"] = 4 + wave if t < 0 else 44 + wave
        self.load["amplified"] = 0 if t < 2 else 40
        self.load["k6"] = max(0, min(48, 8 * (t - 4)))
        late = 0.0 if t < 0 else max(0.0, min(t, 26) * 0.12 - max(0, t - 28) * 0.35)
        for n in range(2 + 5 * self.ready):
            ttft_s = 0.12 + 0.01 * n + late * (0.6 + 0.02 * n)
            url = f"http://replica-{n % self.ready}"
            ended = Record(f"r{t}.{n}", "/v1", "audience", 200, ttft_s + 1, ttft_s=ttft_s, completion_tokens=120)
            self.fleet.ended(ended._replace(replica=url))
            self.vitals.ended(ended)

    def _snapshot(self) -> ClusterSnapshot:
        t, early, made = self.second, T0_S - 1800, T0_S + 9
        waiting = max(0, sum(self.load.values()) - 32 * self.ready)
        running = min(32 * self.ready, sum(self.load.values()))
        metric = float(running + 10 * waiting)
        desired = 10 if t >= 9 else 1
        pods = [pod(0, created_s=early, running=min(32, running), waiting=waiting, url="http://replica-0")]
        nodes = [node(0, ON_DEMAND, created_s=early)]
        for n in range(1, 9 if t >= 9 else 1):
            url, load = f"http://replica-{n}", max(0, min(32, running - 32 * n))
            if n < self.ready:
                pods.append(pod(n, created_s=made, running=load, url=url))
            elif n < 7:
                steps = {4: "compile", 5: "weights"}
                pods.append(pod(n, "starting" if n in steps else "image", made, step=steps.get(n, "")))
            else:
                pods.append(pod(n, "pending", made))
            if n < 8:
                nodes.append(node(n, phase="ordered" if n == 7 else "ready", created_s=made))
        if t >= 9:
            pods.append(pod(9, "unready", early, running=3, restarts=1))
            nodes.append(node(9, phase="draining", created_s=early, ends_s=T0_S + 134))
        why = f"running {running} + 10 × waiting {waiting} = {metric:.0f} → {metric:.0f}/25 = {metric / 25:.1f}"
        triggers = {"running": float(running), "waiting": float(waiting)}
        scaler = Autoscaler(1, 10, desired, 25.0, metric, "running + waiting * 10", triggers, f"{why} → {desired}")
        told = tuple(h for h in TOLD if h.at_s <= self.now_s())
        return ClusterSnapshot(self.now_s(), self.now_s(), "local", True, tuple(pods), tuple(nodes), scaler, 10.0, told)


def _told(number: int, t_s: float, kind: Any, what: str, subject: str, text: str) -> Happening:
    return Happening(number, T0_S + t_s, kind, what, subject, text)


TOLD = (
    _told(1, 1.4, "metric", "crossed", "", "Load 96 is above the 25 that one ready pod should carry"),
    _told(2, 9.0, "scale", "up", "", "1 → 10 pods: running 32 + 10 × waiting 20 = 232 → 232/25 = 9.3 → 10"),
    _told(3, 9.3, "pod", "made", pod(1).name, "9 pods made; no node has room for them"),
    _told(4, 9.9, "node", "ordered", "ip-10-0-1-0001", "Karpenter buys 8 × g6.xlarge Spot at $0.37/h"),
    _told(5, 14.6, "node", "ready", "ip-10-0-1-0001", "Node 0001 is ready, 5 s after it was ordered"),
    _told(6, 24.2, "pod", "ready", pod(1).name, "Pod 0001x is ready, 15 s after it was asked for"),
    _told(7, 27.1, "interruption", "noticed", "ip-10-0-1-0009", "Spot node 0009 is taken back in two minutes"),
    _told(8, 33.0, "chaos", "unavailable", "g5.xlarge", "No more g5.xlarge can be had: by hand"),
)


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
