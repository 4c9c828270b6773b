"""A whole talk against the simulated cluster, with the real manifests: what is promised of every run."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import pytest

from inference.cluster import manifests
from inference.cluster.spec import ClusterSpec
from inference.engine import profile as profiles
from tests.sample_room import TALK
from webapp.gateway.line import Limits
from webapp.rehearse.figures import Figures, figures
from webapp.rehearse.rehearsal import COOL_DOWN_S, Run, rehearse
from webapp.rehearse.script import Pace, script
from webapp.talk.samples import sample_talk

BASE = manifests.defaults()
CROWD_AWARE = BASE.parent / "overlays" / "crowd-aware"
PROFILE = profiles.load("a10g-mistral-7b-awq")
SHORT = Pace(minutes=15, lobby_minutes=5)


def play(phones: int, spec: ClusterSpec | None = None, seed: int = 1, pace: Pace = SHORT, tokens: int = 60) -> Run:
    return rehearse(script(TALK, phones, pace, seed, tokens), spec or manifests.load(BASE), PROFILE, seed)


def of(run: Run) -> tuple:
    return run.points, [(c.came_s, c.first_s, c.ended_s, c.outcome) for c in run.calls], run.usd, run.gpu_hours


def test_the_same_seed_gives_the_same_run_and_another_a_different_one() -> None:
    assert of(play(150)) == of(play(150))
    assert of(play(150)) != of(play(150, seed=2))


def test_every_request_ends_once_answered_or_refused() -> None:
    run = play(400)
    assert len(run.calls) == sum(step.request is not None for step in run.script.steps)
    assert set(Counter(call.outcome for call in run.calls)) <= {"answered", "refused"}
    for call in run.calls:
        if call.outcome == "answered":
            assert call.came_s < call.first_s < call.ended_s
            assert call.seq.generated == call.request.output_tokens
        else:
            assert call.first_s is None
            assert call.ended_s - call.came_s <= Limits().max_wait_s + 1e-6
    found = figures(run)
    assert found.answered + found.refused + found.broken == found.requests == len(run.calls)
    assert run.points[-1].running == run.points[-1].queue == 0


def test_an_empty_room_costs_the_least_that_the_manifests_allow() -> None:
    run = play(0)
    found = figures(run)
    assert (found.requests, found.peak_pods, found.short_s) == (0, 1, 0)
    assert found.gpu_hours == pytest.approx((run.script.ends_s + COOL_DOWN_S) / 3600, rel=1e-3)
    assert found.ttft_p95_s is None
    assert {point.ready for point in run.points} == {1}


def test_a_crowd_makes_the_cluster_grow_and_it_shrinks_again() -> None:
    run = play(400)
    assert max(point.desired for point in run.points) > 1
    assert max(point.ready for point in run.points) > 1
    assert run.points[-1].pods == 1
    assert figures(run).short_s > 0


def test_pods_that_are_expected_are_there_before_the_first_question() -> None:
    spec = manifests.load(CROWD_AWARE)
    run = play(1000, spec)
    opens_s = run.script.slots[0].opens_s
    before = [point for point in run.points if point.at_s < opens_s]
    assert max(point.queue for point in before) == 0
    assert max(point.ready for point in before) > 1
    blind = play(1000)
    assert max(point.ready for point in blind.points if point.at_s < opens_s) == 1


def test_the_shipped_talk_with_400_phones_is_no_slower_when_it_is_crowd_aware() -> None:
    written = script(sample_talk(), 400, seed=1)
    base, aware = (figures(rehearse(written, manifests.load(f), PROFILE, 1)) for f in (BASE, CROWD_AWARE))
    assert aware.requests == base.requests
    assert aware.ttft_p95_s <= base.ttft_p95_s
    assert aware.over_target <= base.over_target


@pytest.mark.parametrize(
    ("file", "said", "instead", "differs"),
    [
        ("vllm-scaledobject.yaml", "maxReplicaCount: 10", "maxReplicaCount: 3", "peak_pods"),
        ("vllm-scaledobject.yaml", "waiting * 10", "waiting * 1", "usd"),
        ("vllm-deployment.yaml", '"32"', '"8"', "ttft_p95_s"),
        ("vllm-podmonitor.yaml", "interval: 5s", "interval: 60s", "short_s"),
        ("karpenter-nodepool.yaml", "values: [spot, on-demand]", "values: [on-demand]", "usd"),
    ],
)
def test_changing_a_manifest_changes_the_result(
    tmp_path: Path, unchanged: Figures, file: str, said: str, instead: str, differs: str
) -> None:
    folder = shutil.copytree(BASE, tmp_path / "changed")
    text = (folder / file).read_text(encoding="utf-8")
    assert said in text
    (folder / file).write_text(text.replace(said, instead), encoding="utf-8")
    found = figures(play(400, manifests.load(folder)))
    assert asdict(found)[differs] != asdict(unchanged)[differs]


@pytest.fixture(scope="module")
def unchanged() -> Figures:
    return figures(play(400))


def test_without_any_node_to_be_had_requests_are_refused_in_time(tmp_path: Path) -> None:
    folder = shutil.copytree(BASE, tmp_path / "nowhere")
    pool = folder / "karpenter-nodepool.yaml"
    pool.write_text(pool.read_text(encoding="utf-8").replace("[g5, g6, g6e]", "[p5]"), encoding="utf-8")
    found = figures(play(50, manifests.load(folder)))
    assert found.refused == found.requests == found.over_target > 0
    assert (found.usd, found.enough_s) == (0, None)
