"""Two views, one after the other → what has happened in between, in plain words. Pure.

Comparing views rather than following the watch's events means that nothing is told twice after a relist, and that what
happened while the API server could not be reached is told when it is back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from inference.cluster.kubernetes.nodes import NOTICE_S
from inference.cluster.kubernetes.scaling import TOLERANCE
from inference.cluster.kubernetes.view import View
from inference.cluster.plane_feed import lasted
from inference.cluster.plane_names import short
from inference.cluster.snapshot import Autoscaler, Kind, Node, Pod

# Each word with the phases that a pod is in once it has come so far.
MILESTONES = (
    ("scheduled", ("image", "starting", "ready", "unready")),
    ("started", ("starting", "ready", "unready")),
    ("ready", ("ready",)),
)


@dataclass(frozen=True, slots=True)
class Change:
    """A Happening that has no number yet."""

    at_s: float
    kind: Kind
    what: str
    subject: str
    text: str


def changes(before: View, after: View, now_s: float) -> list[Change]:
    """In the order of their times, none of which is in the future. A part that was not known before brings nothing."""
    found = [*_pods(before, after, now_s), *_nodes(before, after, now_s), *_scaling(before, after, now_s)]
    return sorted(found, key=lambda change: change.at_s)


def _pods(before: View, after: View, now_s: float) -> Iterator[Change]:
    if before.pods is None or after.pods is None:
        return
    for key, pod in after.pods.items():
        was = before.pods.get(key)
        for at_s, what, text in _steps(was, pod, after.last_ends.get(key, "")):
            yield Change(min(at_s, now_s), "pod", what, pod.name, f"Pod {short(pod.name)} {text}")
    for key, pod in before.pods.items():
        if key in after.pods:
            continue
        if key not in after.ended and pod.phase == "terminating":
            yield Change(now_s, "pod", "removed", pod.name, f"Pod {short(pod.name)} is gone")
        else:
            why = after.ended.get(key, "it was deleted without notice")
            yield Change(now_s, "pod", "lost", pod.name, f"Pod {short(pod.name)} is lost: {why}")


def _steps(was: Pod | None, pod: Pod, last_end: str) -> Iterator[tuple[float, str, str]]:
    restarted = was is not None and pod.restarts > was.restarts
    if was is None:
        yield pod.created_s, "made", "was made"
    elif restarted:
        yield pod.since_s, "restarted", f"starts again{f' ({last_end})' if last_end else ''}"
    elif was.phase == "ready" and pod.phase == "unready":
        yield pod.since_s, "unready", "fails its readiness probe and gets no requests"
    if was is None or (was.phase in ("pending", "image", "starting") and not restarted):
        for what, phases in MILESTONES:
            if pod.phase in phases and (was is None or was.phase not in phases):
                yield pod.since_s, what, _milestone(what, pod)
    elif pod.phase == "ready" and was.phase != "ready":
        yield pod.since_s, "ready", "is ready again"


def _milestone(what: str, pod: Pod) -> str:
    if what == "scheduled":
        return f"got room on {pod.node}"
    if what == "started":
        return "has its image and starts"
    return f"is ready, {lasted(pod.since_s - pod.created_s)} after it was made"


def _nodes(before: View, after: View, now_s: float) -> Iterator[Change]:
    # With or without NodeClaims the nodes have other keys.
    if before.nodes is not None and after.nodes is not None and before.ordering == after.ordering:
        for key, node in after.nodes.items():
            for at_s, what, text in _turns(before.nodes.get(key), node):
                yield Change(min(at_s, now_s), "node", what, node.name, text)
        for key, node in before.nodes.items():
            if key not in after.nodes:
                text = "was given up before it came" if node.phase == "ordered" else "is gone"
                yield Change(now_s, "node", "removed", node.name, f"{_called(node)} {text}")
    if before.notices is not None and after.notices is not None:
        yield from _notices(before.notices, after.notices, after.nodes or {}, now_s)
    if before.refusals is not None and after.refusals is not None:
        for key, refusal in after.refusals.items():
            if key not in before.refusals:
                text = f"No node for {refusal.subject}: {_short(refusal.message)}"
                yield Change(min(refusal.at_s, now_s), "node", "refused", refusal.subject, text)


def _turns(was: Node | None, node: Node) -> Iterator[tuple[float, str, str]]:
    if was is None and node.phase == "ordered":
        yield node.created_s, "ordered", f"{_called(node)} is ordered"
    elif was is not None and was.phase == node.phase:
        return
    elif node.phase == "ready":
        took = lasted(node.since_s - node.created_s)
        yield node.since_s, "ready", f"{_called(node)} is ready, {took} after it was ordered"
    elif node.phase == "draining":
        yield node.since_s, "draining", f"{_called(node)} takes no new pods and loses those that it has"


def _notices(
    before: Mapping[str, float], after: Mapping[str, float], nodes: Mapping[str, Node], now_s: float
) -> Iterator[Change]:
    """One for each node, whose claim and whose Node were both given notice."""
    for key, node in nodes.items():
        names = {key, node.name}
        told = [at_s for it, at_s in after.items() if it in names]
        if told and not any(it in names and before[it] in told for it in before):
            text = f"{_called(node)} is taken away in {NOTICE_S:.0f} s (Spot interruption)"
            yield Change(min(*told, now_s), "interruption", "notice", node.name, text)


def _scaling(before: View, after: View, now_s: float) -> Iterator[Change]:
    was, now = before.autoscaler, after.autoscaler
    if was is None or now is None:
        return
    for kind, what, text in (*_by_hand(was, now), *_by_load(was, now, before.ready, after.ready)):
        at_s = after.scaled_s if kind == "scale" and after.scaled_s != before.scaled_s else None
        yield Change(now_s if at_s is None else min(at_s, now_s), kind, what, after.subject, text)


def _by_hand(was: Autoscaler, now: Autoscaler) -> Iterable[tuple[Kind, str, str]]:
    if now.pinned != was.pinned:
        if now.pinned is None:
            yield "hold", "unpinned", "The load decides the number of pods again"
        else:
            yield "hold", "pinned", f"The number of pods is set to {now.pinned} by hand"
    if now.held != was.held and now.pinned is None:
        yield ("hold", "held", "Scaling is held by hand") if now.held else ("hold", "resumed", "Scaling goes on")


def _by_load(was: Autoscaler, now: Autoscaler, ready_before: int, ready: int) -> Iterable[tuple[Kind, str, str]]:
    if now.fallback != was.fallback:
        yield (
            ("metric", "lost", "The metric can't be had: KEDA's fallback decides")
            if now.fallback
            else ("metric", "found", "The metric is back")
        )
    if was.metric is not None and now.metric is not None and _above(now, ready) != _above(was, ready_before):
        load = f"{now.metric:g} for {ready} ready, target {now.target:g} each"
        yield (
            ("metric", "crossed", f"The queue is above KEDA's target: {load}")
            if _above(now, ready)
            else ("metric", "back", f"The queue is within KEDA's target again: {load}")
        )
    if now.desired != was.desired:
        what = "up" if now.desired > was.desired else "down"
        yield "scale", what, f"Scale {what} from {was.desired} to {now.desired}: {now.why}"


def _above(scaling: Autoscaler, ready: int) -> bool:
    return (scaling.metric or 0.0) > scaling.target * max(1, ready) * (1 + TOLERANCE)


def _called(node: Node) -> str:
    facts = [{"spot": "Spot", "on-demand": "on demand"}.get(node.capacity_type, "")]
    facts.append("" if node.usd_per_hour is None else f"${node.usd_per_hour:.2f}/h")
    said = ", ".join(fact for fact in facts if fact)
    return f"{node.instance_type or f'Node {node.name}'}{f' ({said})' if said else ''}"


def _short(message: str, limit: int = 160) -> str:
    """Karpenter hands AWS' whole answer on, which can be pages."""
    line = " ".join(message.split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"
