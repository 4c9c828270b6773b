"""What stage and console are told of the cluster."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.cluster.chain import LABELS, Chain, Step
from inference.cluster.snapshot import Autoscaler, ClusterSnapshot
from tests.scripted_cluster import ON_DEMAND, T0_S, ScriptedCluster, node, pod, snapshot
from webapp.live.controls import ACTIONS
from webapp.live.vitals import Reading
from webapp.views.cluster import FEED_ROWS, STEP_SHORTS, cluster_document
from webapp.views.cluster_panel import cluster_panel, no_panel


def document(now: ClusterSnapshot, vitals: Reading | None = None, chain: Chain | None = None, now_s: float = T0_S):
    made = cluster_document(now, vitals or Reading(), chain, now_s)
    assert json.loads(json.dumps(made)) == made
    return made


def panel(now: ClusterSnapshot, unavailable: tuple[str, ...] = (), refused: dict[str, str] | None = None):
    return cluster_panel(now, document(now), unavailable, lambda action: (refused or {}).get(action, ""))


def test_a_pod_says_its_phase_its_step_and_since_when() -> None:
    pods = (
        pod(0, running=12, waiting=3, restarts=1),
        replace(pod(1, "starting", T0_S + 10, step="weights"), since_s=T0_S + 25),
        pod(2, "pending", T0_S + 20),
    )
    ready, starting, pending = document(snapshot(pods=pods), now_s=T0_S + 40)["pods"]
    assert (ready["word"], ready["running"], ready["waiting"], ready["max"], ready["restarts"]) == (
        "ready",
        12,
        3,
        32,
        1,
    )
    assert (starting["word"], starting["age_s"], starting["phase_s"], starting["running"]) == ("weights", 30, 15, None)
    assert (pending["word"], pending["node"]) == ("pending", None)


def test_short_names_tell_pods_apart() -> None:
    def shorts(*names: str) -> list[str]:
        pods = tuple(replace(pod(n, created_s=T0_S + n), name=name) for n, name in enumerate(names))
        return [p["short"] for p in document(snapshot(pods=pods))["pods"]]

    assert shorts("vllm-6c9f-x7k2p", "vllm-6c9f-b4d8q") == ["x7k2p", "b4d8q"]
    assert shorts("vllm-1", "vllm-2") == ["vllm-1", "vllm-2"]
    assert shorts("a-x7k2p", "b-x7k2p") == ["a-x7k2p", "b-x7k2p"]


def test_a_node_says_what_it_is_what_it_costs_and_when_it_ends() -> None:
    nodes = (node(0, ON_DEMAND), node(1, phase="draining", ends_s=T0_S + 90.4), node(2, usd_per_hour=None))
    paid, ending, unknown = document(snapshot(nodes=nodes))["nodes"]
    assert (paid["type"], paid["capacity"], paid["usd_per_hour"], paid["zone"]) == (
        "g6.xlarge",
        "on demand",
        0.805,
        "us-east-1a",
    )
    assert (ending["capacity"], ending["word"], ending["ends_in_s"]) == ("Spot", "draining", 90)
    assert unknown["usd_per_hour"] is None


def test_a_million_tokens_cost_what_the_last_minutes_pace_makes_of_an_hour() -> None:
    cost = document(snapshot(2), Reading(tokens_per_min=60_000))["cost"]
    assert cost["usd_per_hour"] == 0.74
    assert cost["usd_per_million_tokens"] == 0.206  # 0.74 $ for 3.6 million tokens
    assert document(snapshot(2), Reading(tokens_per_min=0))["cost"]["usd_per_million_tokens"] is None
    priceless = snapshot(nodes=(node(0, usd_per_hour=None),))
    cost = document(priceless, Reading(tokens_per_min=10))["cost"]
    assert (cost["usd_per_hour"], cost["usd_per_million_tokens"]) == (None, None)


def test_prices_say_of_when_they_are() -> None:
    made = cluster_document(snapshot(), Reading(), None, T0_S, "2026-07-20")
    assert made["cost"]["basis"] == "list 2026-07-20"


def test_scaling_tells_the_formula_and_what_a_person_has_set() -> None:
    scaler = Autoscaler(
        1, 10, 4, 25.0, 93.4, "a + b", {"a": 3.0, "b": None}, "because", pinned=4, held=True, fallback=True
    )
    scaling = document(snapshot(2, autoscaler=scaler))["scaling"]
    assert (scaling["metric"], scaling["goal"], scaling["desired"], scaling["ready"]) == (93.4, 50.0, 4, 2)
    assert (scaling["pinned"], scaling["held"], scaling["fallback"], scaling["why"]) == (4, True, True, "because")
    assert scaling["triggers"] == {"a": 3.0, "b": None}
    assert document(snapshot(autoscaler=None))["scaling"] is None


def test_the_feed_is_the_latest_first_and_counts_from_the_spikes_edge() -> None:
    cluster = ScriptedCluster()
    for second in range(12):
        cluster.tell("scale", "up", f"number {second}", T0_S + second)
    chain = Chain(T0_S + 6, tuple(Step(name, label, None) for name, label in LABELS.items()))
    feed = document(cluster.now, chain=chain, now_s=T0_S + 20)["feed"]
    assert [line["text"] for line in feed] == [f"number {n}" for n in range(11, 11 - FEED_ROWS, -1)]
    assert [line["t_s"] for line in feed] == [5, 4, 3, 2, 1, 0, None, None]
    assert feed[-1]["ago_s"] == 16
    assert {line["t_s"] for line in document(cluster.now)["feed"]} == {None}


def test_nine_pods_that_are_ready_take_one_line_and_leave_the_decision_in_sight() -> None:
    cluster = ScriptedCluster()
    cluster.tell("pod", "ready", "the first pod is ready", T0_S - 60)
    cluster.tell("scale", "up", "10 pods instead of 1", T0_S)
    for second in range(1, 10):
        cluster.tell("node", "ready", f"node {second} is ready", T0_S + second)
        cluster.tell("pod", "ready", f"pod {second} is ready", T0_S + second + 0.5)
    texts = [line["text"] for line in document(cluster.now)["feed"]]
    assert texts == [
        "pod 9 is ready (and 8 more)",
        "node 9 is ready (and 8 more)",
        "10 pods instead of 1",
        "the first pod is ready",
    ]


def test_every_step_of_the_chain_has_a_short_name() -> None:
    assert STEP_SHORTS.keys() == LABELS.keys()
    steps = tuple(Step(name, label, n * 1.04) for n, (name, label) in enumerate(LABELS.items()))
    made = document(snapshot(), chain=Chain(T0_S - 30, steps))
    assert [step["t_s"] for step in made["chain"]] == [0, 1.0, 2.1, 3.1, 4.2, 5.2, 6.2, 7.3]
    assert made["since_edge_s"] == 30
    assert document(snapshot(), chain=Chain(T0_S - 30, steps, T0_S - 20))["since_edge_s"] == 10
    assert document(snapshot())["chain"] is None


@pytest.mark.parametrize(("heard_ago_s", "stale"), [(0, False), (9, False), (11, True), (-3, False)])
def test_a_view_that_is_cut_off_says_how_old_it_is(heard_ago_s: float, stale: bool) -> None:
    made = document(replace(snapshot(), heard_s=T0_S - heard_ago_s))
    assert (made["age_s"], made["stale"]) == (max(0, heard_ago_s), stale)


def test_no_address_of_a_pod_is_on_the_stage() -> None:
    now = snapshot(pods=(pod(0, url="http://10.0.0.7:8000"),))
    assert "10.0.0.7" not in json.dumps(document(now))


@given(st.integers(0, 12), st.floats(-1e6, 1e6), st.floats(0, 1e6), st.integers(0, 500))
def test_no_age_is_negative_and_everything_is_json(pods: int, now_s: float, tokens: float, waiting: int) -> None:
    made = document(snapshot(pods), Reading(waiting=waiting, tokens_per_min=tokens), now_s=T0_S + now_s)
    assert all(one["age_s"] >= 0 and one["phase_s"] >= 0 for one in (*made["pods"], *made["nodes"]))
    assert made["point"]["waiting"] == waiting


def test_without_a_cluster_every_button_says_why_not() -> None:
    assert no_panel().document is None
    assert no_panel().why_not.keys() == set(ACTIONS)
    assert all(no_panel().why_not.values())


def test_undo_can_be_pressed_only_where_there_is_something_to_undo() -> None:
    now = snapshot(1)
    assert now.autoscaler is not None
    at_rest = panel(now).why_not
    assert {a for a in ACTIONS if at_rest[a]} == {"unpin", "release"}
    set_by_hand = panel(replace(now, autoscaler=replace(now.autoscaler, pinned=3, held=True))).why_not
    assert {a for a in ACTIONS if set_by_hand[a]} == {"hold"}


def test_what_can_not_be_broken_says_why() -> None:
    bare = snapshot(1, nodes=(node(0, ON_DEMAND),), pods=(pod(0, "starting"),))
    assert panel(bare).why_not["kill"] == "No pod is ready."
    assert panel(bare).why_not["interrupt"] == "No Spot node is ready."
    assert panel(snapshot(1), refused={"kill": "Read only."}).why_not["kill"] == "Read only."
    unscaled = panel(snapshot(1, autoscaler=None)).why_not
    assert {unscaled[a] for a in ("pin", "unpin", "hold", "release")} == {"Nothing scales this cluster."}


def test_a_type_that_is_out_stays_in_the_list() -> None:
    shown = panel(snapshot(1), unavailable=("g5.xlarge",))
    assert (shown.types, shown.unavailable) == (("g5.xlarge", "g6.xlarge"), frozenset({"g5.xlarge"}))
