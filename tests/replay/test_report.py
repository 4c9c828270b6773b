"""The report: its figures against the bare log, and a page that needs nothing and runs nothing."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from loadgen.plot import Plot, Series, clock, number, svg
from tests.html_reader import Reader
from tests.recordings import CHAIN_S, HAPPENED, NEW, T0_S, lines, store_in, talk
from tests.room.logs import rooms
from tests.sample_room import SURVEY, SampleRoom
from webapp.cli import main
from webapp.log.local import LocalStore
from webapp.log.memory import MemoryStore
from webapp.report.answers import answers
from webapp.report.cluster import cluster_report, spent_usd
from webapp.report.page import page, waterfall
from webapp.room.events import Moderated
from webapp.tape import load
from webapp.templating import environment
from webapp.timeline import decode, fold

TEMPLATES = environment("")


async def report_of(room: SampleRoom, timeline: list[bytes]) -> str:
    store = MemoryStore()
    await store_in(store, room, timeline)
    return page(await load(store, "KWXM"), TEMPLATES)


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


async def test_its_figures_are_those_of_the_bare_log(tmp_path: Path) -> None:
    """Worked out here from the stored JSON alone."""
    store = LocalStore(tmp_path)
    await store_in(store, talk(), lines())
    bare = [json.loads(line) for file in files_in(tmp_path / "rooms/KWXM/timeline") for line in file.open()]
    seconds = [line for line in bare if line["type"] == "second"]
    usd = tokens = requests = 0.0
    nodes, pods, ready = [], [], []
    for this, after in zip(seconds, [*seconds[1:], None], strict=True):
        nodes = this["cluster"]["nodes"] if "cluster" in this else nodes  # a node that came or went is a change
        pods = this["cluster"]["pods"] if "cluster" in this else pods
        ready.append(sum(pod["phase"] == "ready" for pod in pods))
        lasted_s = (after["at_ms"] - this["at_ms"]) / 1000 if after else 0
        usd += sum(node["usd_per_hour"] for node in nodes) / 3600 * lasted_s
        tokens += this["vitals"]["tokens_per_s"] * lasted_s
        requests += this["vitals"]["requests_per_s"] * lasted_s
    slow_s = sum(line["vitals"]["ttft_p95_s"] > 1 for line in seconds)
    log = await load(store, "KWXM")
    read = Reader(page(log, TEMPLATES))
    assert read.figures["Phones"] == "3"
    assert read.figures["Recorded"].startswith("4:59")
    assert read.figures["Requests"].startswith(f"{round(requests):,}".replace(",", "\u202f"))
    assert read.figures["Tokens"].startswith(f"{round(tokens):,}".replace(",", "\u202f"))
    assert read.figures["Most in flight"] == str(max(sum(x["vitals"]["in_flight"].values()) for x in seconds)) == "120"
    assert read.figures["Most pods ready"] == str(max(ready)) == "3"
    assert read.figures["Worst p95 to first token"] == f"6.12 s {clock(slow_s)} above 1 s"
    assert read.figures["Cost"].startswith(f"${usd:.2f} ${usd / tokens * 1e6:.2f} per million tokens")
    # A node of $1.006 for 299 s, and one of $0.434 from 74 to 270.
    assert usd == pytest.approx((1.006 * 299 + 0.434 * 196) / 3600)
    assert spent_usd(log.timeline.moments)[-1] == pytest.approx(usd)
    assert ["g5.2xlarge", "Spot", "1", f"{196 / 3600:.2f}", f"${0.434 * 196 / 3600:.2f}"] in read.rows


async def test_chain_and_decisions_are_those_of_the_record() -> None:
    read = Reader(await report_of(talk(), lines()))
    steps = {row[0]: row[1] for row in read.rows if len(row) == 3 and row[1].endswith(" s")}
    assert list(steps.values()) == [f"{t_s:.1f} s" for t_s in CHAIN_S.values()]
    decisions = [row for row in read.rows if "pods: " in row[-1]]
    told = [text for _, kind, _, _, text in HAPPENED if kind == "scale"]
    assert [row[-1] for row in decisions] == told * 2  # once as decisions, once among everything
    assert decisions[0][:2] == ["22:14:32", "1:12"]


async def test_answers_are_those_of_the_log() -> None:
    room = talk()
    read = Reader(await report_of(room, lines()))
    given = Counter(option for r in room.responses if getattr(r, "activity", "") == "q1" for option in r.choice)
    assert ["Alpha", f"{given['a']} · 50 %", ""] in read.rows
    assert ["Beta ✓ right", f"{given['b']} · 50 %", ""] in read.rows
    assert ["4", "1 · 100 %", ""] in read.rows
    quiz = answers(room.state)[0]
    assert (quiz.answers, quiz.right, quiz.right_share, quiz.median_s) == (2, 1, 50, 9.5)


async def test_only_approved_texts_leave_the_room_and_nobodys_name() -> None:
    room = talk()
    html = await report_of(room, lines())
    assert "What is a pod?" in html
    assert "A pod is a group." in html
    assert "Is this" not in html
    assert "Good pace" not in html
    assert "1 written, 0 approved" in html
    assert "Brave" not in html
    assert room.info.seed not in html
    for participant in ("ann", "ben", "cy"):
        assert not re.search(rf"\b{participant}\b", html)
    form = next(r for r in room.responses if getattr(r, "activity", "") == SURVEY.id)
    room.control.insert(-1, Moderated(id="late", at_ms=room.now_ms, item=f"t:{form.key}:comment", verdict="approved"))
    assert "Good pace" in await report_of(room, lines())


NASTY = '<img src="http://evil.test/x"></style><script>alert(1)</script>{{ 7 * 7 }} & "quotes"'


async def test_texts_of_phones_models_and_clusters_are_no_markup() -> None:
    room = SampleRoom().join("ann").start("ask")
    asked = room.ask("ann", NASTY)
    room.reply(asked, NASTY)
    room.do("approve", item=f"q:{asked.key}")
    told = [json.loads(line) for line in lines()]
    for line in told:
        for happening in line.get("happened", ()):
            happening["text"] = happening["subject"] = NASTY
    html = await report_of(room, [json.dumps(line).encode() for line in told])
    read = Reader(html)
    assert not {"script", "img"} & {tag for tag, _ in read.tags}
    assert html.count("&lt;script&gt;") >= 3
    assert "{{ 7 * 7 }}" in html
    assert "49 &amp;" not in html


async def test_it_fetches_nothing_runs_nothing_and_its_policy_allows_just_its_own_sheet() -> None:
    html = await report_of(talk(), lines())
    read = Reader(html)
    for tag, attributes in read.tags:
        assert tag not in ("script", "link", "iframe", "img", "object", "form", "base"), tag
        assert not {"style", "src", "href", "action"} & attributes.keys(), (tag, attributes)
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
    assert not re.search(r"https?://|//\w|@import|url\(", html)
    assert NEW not in html
    (sheet,) = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(sheet.encode()).digest()).decode()
    (policy,) = [a["content"] for _, a in read.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    ids = [a["id"] for _, a in read.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert {i for _, a in read.tags for i in a.get("aria-labelledby", "").split()} <= set(ids)


async def test_what_was_simulated_is_said() -> None:
    html = await report_of(talk(), lines())
    assert re.search(r"Simulated:</strong>\s+the model and the cluster, with cold starts 10 times as fast", html)
    real = [json.loads(line) for line in lines()]
    for line in real:
        line.pop("simulated")
        if "cluster" in line:
            line["cluster"] |= {"simulated": False, "speed_up": None, "source": "kubernetes"}
    html = await report_of(talk(), [json.dumps(line).encode() for line in real])
    assert "Simulated:" not in html
    assert "Not the model. Not the cluster." in html


async def test_a_room_without_a_timeline_has_its_answers_and_says_what_is_missing() -> None:
    html = await report_of(talk(), [])
    Reader(html)
    assert "Nothing of them was recorded" in html
    assert "Which letter is second?" in html
    assert "<figure>" not in html
    assert "Simulated:" not in html


async def test_a_room_in_which_nothing_happened_has_a_report() -> None:
    assert "No activity was opened." in await report_of(SampleRoom(), [])


@settings(max_examples=40)
@given(rooms())
def test_every_room_has_answers_that_add_up(room: SampleRoom) -> None:
    for activity in answers(room.state):
        if activity.kind == "quiz":
            assert 0 <= activity.right <= activity.answers <= len(room.state.present) + len(room.state.answers)
            assert (activity.median_s is None) == (activity.answers == 0)


def test_a_cost_with_a_price_that_is_not_known_is_not_known() -> None:
    unpriced = [json.loads(line) for line in lines()]
    for line in unpriced:
        for node in line.get("cluster", {}).get("nodes", ()):
            if node["capacity_type"] == "spot":
                node.pop("usd_per_hour")
    totals = cluster_report(fold(decode(json.dumps(line).encode() for line in unpriced))).totals
    assert (totals.usd, totals.usd_per_million_tokens) == (None, None)
    assert [node.usd for node in totals.nodes] == [None, pytest.approx(1.006 * 299 / 3600)]


def test_a_pause_costs_nothing_that_was_not_seen() -> None:
    report = cluster_report(fold(decode([*lines()[:20], *lines()[200:230]])))
    assert report.totals.recorded_s == 19 + 29
    assert report.totals.tokens == 10.0 * (19 + 29)
    assert report.clock.t_s(T0_S + 200) == 20


def test_a_chains_bars_follow_each_other() -> None:
    (chain,) = fold(decode(lines())).chains
    _, rows = waterfall(chain)
    assert [(start, start + length) for _, start, length in rows] == [
        (0, 0),
        (0, 12),
        (12, 140),
        (140, 140),
        (140, 512),
        (512, 814),
        (814, 840),
        (840, 1000),
    ]


# ---- plots


def test_a_plot_draws_what_it_is_given() -> None:
    drawn = svg(Plot("p", "A & B", "pods", [Series("ready", [(0, 0), (2, 2), (4, 4)])]), 4)
    (path,) = re.findall(r'class="line s1" d="(M[^"h]*)"', drawn)
    points = [tuple(map(float, xy)) for xy in re.findall(r"[ML]([\d.]+) ([\d.]+)", path)]
    assert points == [(52.0, 204.0), (381.0, 117.0), (710.0, 30.0)]
    assert '<title id="p-title">A &amp; B</title>' in drawn
    assert "ready: highest 4 pods at 0:04, 4 at the end." in drawn


def test_a_line_stops_where_nothing_was_recorded() -> None:
    points = [(0, 1), (1, 1), (2, None), (3, 1), (4, 1), (20, 1), (21, 1)]
    drawn = svg(Plot("p", "t", "u", [Series("one", points)]), 21)
    (path,) = re.findall(r'class="line s1" d="(M[^"h]*)"', drawn)
    assert path.count("M") == 3


@example([(0, 5e-324)], False, False)
@given(
    st.lists(st.tuples(st.integers(0, 20_000), st.none() | st.floats(0, 1e9)), max_size=80, unique_by=lambda p: p[0]),
    st.booleans(),
    st.booleans(),
)
def test_any_plot_stays_within_its_frame(points: list, steps: bool, stacked: bool) -> None:
    points.sort()
    one, two = Series("one", points, steps), Series("two", points, steps)
    length_s = points[-1][0] if points else 0
    drawn = svg(Plot("p", "t", "u", [one, two], stacked, [(length_s / 2, "spike 1")]), length_s)
    numbers = [float(n) for d in re.findall(r' d="([^"]+)"', drawn) for n in re.findall(r"[A-Z ](-?[\d.]+)", d)]
    assert all(math.isfinite(n) and -0.1 <= n <= 720.1 for n in numbers)
    Reader(drawn)


def test_a_long_record_keeps_its_peaks_in_few_points() -> None:
    values = [(float(t), 99.0 if t == 7777 else 1.0) for t in range(20_000)]
    drawn = svg(Plot("p", "t", "u", [Series("one", values)]), 20_000)
    assert len(drawn) < 20_000
    top = 30 + 174 * (1 - 99 / 100)
    assert f"{top:.1f}" in drawn


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (6.125, "6.12"), (1098.2, "1\u202f098"), (42.0, "42"), (0.044, "0.044")]
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(("t_s", "text"), [(0, "0:00"), (245.2, "4:05"), (3845, "1:04:05")])
def test_times_are_read_as_on_a_clock(t_s: float, text: str) -> None:
    assert clock(t_s) == text


# ---- as a command


@pytest.fixture
async def stored(tmp_path: Path) -> Path:
    await store_in(LocalStore(tmp_path / "store"), talk(), lines())
    return tmp_path


def command(stored: Path, *arguments: str) -> int:
    return main(["report", *arguments, "--store", str(stored / "store")])


def test_the_command_writes_where_it_is_told(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = stored / "talk.html"
    assert command(stored, "kwxm", "-o", str(out)) == 0
    assert capsys.readouterr().out == f"{out}\n"
    assert out.read_text().startswith("<!doctype html>")
    assert command(stored, "KWXM", "-o", "-") == 0
    assert capsys.readouterr().out == out.read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("KWXB",), "no room KWXB"),
        (("hello",), "not a room code"),
        (("KWXM", "-o", "no/such/folder/x.html"), "can't be written: No such file"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(stored: Path, capsys: pytest.CaptureFixture[str], arguments, said) -> None:
    assert command(stored, *arguments) == 2
    assert said in capsys.readouterr().err
