"""The delay chain, against spikes worked by hand."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.cluster.chain import LABELS, Chain, ChainWatch, Completion, Point, chains
from inference.cluster.snapshot import Happening

OLD, NEW, NEWER = "http://a", "http://b", "http://c"


def point(at_s: float, offered: int = 0, **changed) -> Point:
    """One ready replica with a target of 25, and nothing wrong."""
    values = {"metric": float(offered), "target": 25.0, "desired": 1, "ready": 1, "pods": 1, "ttft_p95_ms": 200.0}
    return Point(**{"at_s": at_s, "in_flight": offered, "waiting": 0, "urls": (OLD,), **values, **changed})


def happened(at_s: float, kind: str, what: str, subject: str = "") -> Happening:
    return Happening(int(at_s * 10), at_s, kind, what, subject, "")


# Seconds of the record: quiet until 100; then 100 requests at once, of which one replica runs 32, so that the metric is
# 32 + 10 x 68 = 712 > 25 x 1 x 1.1 = 27.5. The HPA syncs at 112.4. Two new pods: the first finds no node. Its node is
# ready at 145, it at 170.5, its first answer comes at 173.2. The p95 is above 1 s from 104 to 185.
def spike() -> list[Point]:
    points = [point(float(t)) for t in range(80, 101)]
    points += [point(float(t), 100, metric=712.0, ttft_p95_ms=200.0) for t in range(101, 104)]
    points += [point(float(t), 100, metric=712.0, ttft_p95_ms=4000.0) for t in range(104, 113)]
    grown = {"metric": 712.0, "desired": 3}
    points += [point(float(t), 100, **grown, pods=3, ttft_p95_ms=9000.0) for t in range(113, 171)]
    ready = {**grown, "ready": 2, "pods": 3, "urls": (OLD, NEW)}
    points += [point(float(t), 100, **ready, ttft_p95_ms=5000.0) for t in range(171, 186)]
    points += [point(float(t), 100, **ready, ttft_p95_ms=900.0) for t in range(186, 200)]
    points += [point(float(t), 0, **ready) for t in range(200, 230)]
    return points


HAPPENINGS = [
    happened(20.0, "pod", "made", "pod-a"),
    happened(50.0, "pod", "ready", "pod-a"),
    happened(102.5, "metric", "crossed"),
    happened(112.4, "scale", "up"),
    happened(112.4, "pod", "made", "pod-b"),
    happened(112.4, "pod", "made", "pod-c"),
    happened(114.0, "node", "ordered", "node-b"),
    happened(145.0, "node", "ready", "node-b"),
    happened(150.0, "pod", "ready", "pod-a"),  # an old one that was unready for a while is no relief
    happened(170.5, "pod", "ready", "pod-b"),
]
COMPLETIONS = [Completion(OLD, 103.0), Completion(OLD, 172.0), Completion(NEW, 173.2), Completion(NEW, 173.9)]
# Load rises after 100; the first point above is that of 101, where the metric is above 27.5 as well.
WORKED = {
    "edge": 0.0,
    "crossed": 1.0,
    "decision": 12.4,
    "pending": 12.4,
    "node": 45.0,
    "ready": 70.5,
    "completion": 73.2,
    "recovered": 86.0,
}


def times(chain: Chain) -> dict[str, float | None]:
    return {step.name: step.t_s and round(step.t_s, 3) for step in chain.steps}


def test_every_link_of_a_spike_has_its_time() -> None:
    (chain,) = chains(spike(), HAPPENINGS, COMPLETIONS)
    assert (chain.edge_at_s, times(chain)) == (100.0, WORKED)
    assert [step.label for step in chain.steps] == list(LABELS.values())
    assert chain.over_at_s == 200.0
    assert not any(step.why_not for step in chain.steps)


def test_links_appear_as_they_happen() -> None:
    seen: list[tuple[str, ...]] = []
    for now_s in (100, 102, 113, 160, 171, 174, 190, 191):
        found = chains(
            [p for p in spike() if p.at_s <= now_s],
            [h for h in HAPPENINGS if h.at_s <= now_s],
            [c for c in COMPLETIONS if c.at_s <= now_s],
        )
        seen.append(tuple(step.name for step in found[0].steps if step.t_s is not None) if found else ())
    names = tuple(LABELS)
    assert seen == [(), names[:2], names[:4], names[:5], names[:6], names[:7], names[:7], names]


@given(st.data())
def test_the_chain_does_not_depend_on_how_its_news_came_in(data: st.DataObject) -> None:
    """Points come in order; happenings and completions up to four seconds late."""
    late = st.floats(0, 4)
    told = [(p.at_s, p) for p in spike()]
    told += [(one.at_s + data.draw(late), one) for one in (*HAPPENINGS, *COMPLETIONS)]
    watch = ChainWatch()
    for _, one in sorted(told, key=lambda row: row[0]):
        tell(watch, one)
    assert watch.chain == chains(spike(), HAPPENINGS, COMPLETIONS)[0]


def tell(watch: ChainWatch, one: Point | Happening | Completion) -> None:
    match one:
        case Point():
            watch.point(one)
        case Happening():
            watch.happening(one)
        case Completion():
            watch.completed(one.url, one.at_s)


def test_without_happenings_the_points_tell_what_they_can() -> None:
    (chain,) = chains(spike())
    assert times(chain) == WORKED | {
        "decision": 13.0,
        "pending": 13.0,
        "node": None,
        "ready": 71.0,
        "completion": None,
    }


def test_a_pod_that_found_room_needed_no_node() -> None:
    roomy = [h for h in HAPPENINGS if h.kind != "node"]
    (chain,) = chains(spike(), roomy, COMPLETIONS)
    assert {s.name: s.why_not for s in chain.steps if s.t_s is None} == {"node": "room was left on a node"}
    (waiting,) = chains([p for p in spike() if p.at_s < 160], [h for h in roomy if h.at_s < 160])
    assert {s.name: s.why_not for s in waiting.steps if s.t_s is None}["node"] == ""


def test_a_spike_that_asked_for_nothing_says_so() -> None:
    load = [point(float(t), 40 if 20 <= t < 30 else 0, metric=20.0) for t in range(60)]
    (chain,) = chains(load)
    assert {s.name: s.why_not for s in chain.steps if s.t_s is None} == {
        "crossed": "the metric stayed within its target",
        "decision": "no more pods were asked for",
        "pending": "no pod was needed",
        "node": "no pod was needed",
        "ready": "no pod was needed",
        "completion": "no pod was needed",
        "recovered": "it was met all along",
    }


def test_a_target_that_nothing_was_measured_against_was_not_met() -> None:
    """Answers that are not streamed have no first token."""
    load = [point(float(t), 40 if 20 <= t < 30 else 0, ttft_p95_ms=None) for t in range(60)]
    (chain,) = chains(load)
    assert chain.steps[-1].why_not == "no time to first token was measured"


# The load of each second from 0 on; where edges are.
QUIET = [2, 0, 3, 1, 2] * 4


@pytest.mark.parametrize(
    ("load", "edges"),
    [
        (QUIET * 3, []),
        ([*QUIET, 60, *QUIET], []),  # a second alone is no spike
        (QUIET + [24] * 40, []),  # 24 above the base is less than a target of 25
        (QUIET + [25] * 40, [19]),
        (QUIET + [60] * 40, [19]),
        (QUIET + list(range(0, 60, 3)), [20]),  # at 29 it is 27, at 30 30: two in a row; less than 3 until 20
        (QUIET + [n // 2 for n in range(80)], []),  # 5 in 10 s is too slow
        ([200] * 40, []),  # it was there before the record
        ([200, 230, 190, 250, 210] * 20, []),  # a tenth up or down at a high load
        (QUIET + [60] * 30 + [200] * 30, [19]),  # more on top belongs to the same spike
        (QUIET + [60] * 30 + [0] * 20 + [200] * 30, [19, 69]),
        (QUIET + [60] * 30 + [0] * 5 + [200] * 30, [19]),  # down for less than 10 s
        (QUIET + [200] * 30 + [80] * 20 + [300] * 20, [19, 69]),  # quiet need not be idle
    ],
)
def test_an_edge_is_where_the_load_leaves_its_base(load: list[int], edges: list[int]) -> None:
    found = chains(point(float(t), offered) for t, offered in enumerate(load))
    assert [chain.edge_at_s for chain in found] == edges


def test_each_spike_has_a_chain_of_its_own() -> None:
    def later(points: Iterable[Point]) -> list[Point]:
        return [point(p.at_s + 300, p.offered, metric=p.metric, desired=p.desired, ready=p.ready) for p in points]

    moved = [happened(h.at_s + 300, h.kind, h.what, h.subject) for h in HAPPENINGS if h.at_s > 100]
    first, second = chains([*spike(), *later(spike())], [*HAPPENINGS, *moved], [*COMPLETIONS, Completion(NEWER, 480.0)])
    assert times(first) == WORKED
    assert (second.edge_at_s, second.t_s("node"), second.t_s("completion")) == (400.0, 45.0, 80.0)


def test_a_replica_at_an_address_that_served_before_is_new_all_the_same() -> None:
    """Ports come round: what answers there in the second spike was not there when it began."""
    second = [point(p.at_s + 300, p.offered, metric=p.metric, desired=p.desired) for p in spike()]
    found = chains([*spike(), *second], HAPPENINGS, [*COMPLETIONS, Completion(NEW, 475.0)])
    assert [chain.t_s("completion") for chain in found] == pytest.approx([73.2, 75.0])


def test_a_watch_that_runs_for_hours_keeps_little() -> None:
    watch = ChainWatch()
    for p in spike():
        watch.point(p)
    for t in range(230, 4000):
        watch.point(point(float(t), 10))
        watch.happening(happened(t, "metric", "crossed"))
        watch.completed(OLD, t + 0.5)
    kept = sum(
        len(value) for value in vars(watch).values() if isinstance(value, list | dict) or hasattr(value, "popleft")
    )
    assert kept < 2500
    assert watch.chain.edge_at_s == 100.0


def test_a_clock_that_jumps_back_and_forth_makes_no_spike() -> None:
    watch = ChainWatch()
    for t in (0, 1, 2, 3, 4000, 4001, 1, 2, 4002, 4003):
        watch.point(point(float(t), 50 if t > 3 else 0))
    assert watch.chain is None
