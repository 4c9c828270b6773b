"""The cluster as stage and console show it. Pure: plain data in, JSON-ready data out. Nothing in it may be a secret."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import Any

from inference.cluster.chain import TTFT_TARGET_MS, Chain
from inference.cluster.snapshot import Autoscaler, ClusterSnapshot, Happening, Node, Pod
from webapp.live.history import point, rounded
from webapp.live.vitals import Reading

TTFT_TARGET_S = TTFT_TARGET_MS / 1000
TOGETHER_S = 20.0
FEED_ROWS = 8
STALE_AFTER_S = 10.0
SHORT_NAME = 4
PHASE_WORDS = {
    "pending": "pending",
    "image": "image",
    "starting": "starting",
    "ready": "ready",
    "unready": "not ready",
    "terminating": "stopping",
}
STEP_SHORTS = {
    "edge": "spike",
    "crossed": "metric over",
    "decision": "more asked",
    "pending": "pod made",
    "node": "node ready",
    "ready": "pod ready",
    "completion": "1st answer",
    "recovered": "TTFT met",
}
NODE_WORDS = {"ordered": "ordered", "ready": "ready", "draining": "draining"}
CAPACITY_WORDS = {"spot": "Spot", "on-demand": "on demand", "": ""}


def cluster_document(
    snapshot: ClusterSnapshot, vitals: Reading, chain: Chain | None, now_s: float, price_date: str = ""
) -> dict[str, Any]:
    """The `cluster` part of the stage's snapshot. Ages in seconds; `t_s` counts from the latest spike's edge."""
    edge_s = chain.edge_at_s if chain else None
    shorts = _short_names([pod.name for pod in snapshot.pods])
    node_shorts = _short_names([node.name for node in snapshot.nodes])
    scaler = snapshot.autoscaler
    age_s = max(0.0, now_s - snapshot.heard_s)
    return {
        "source": snapshot.source,
        "simulated": snapshot.simulated,
        "speed_up": snapshot.speed_up,
        "age_s": round(age_s, 1),
        "stale": age_s > STALE_AFTER_S,
        "pods": [_pod(pod, shorts[pod.name], now_s) for pod in sorted(snapshot.pods, key=_oldest)],
        "nodes": [_node(node, node_shorts[node.name], now_s) for node in sorted(snapshot.nodes, key=_oldest)],
        "scaling": _scaling(scaler, snapshot) if scaler else None,
        "cost": _cost(snapshot.usd_per_hour, vitals.tokens_per_min, price_date),
        "load": {
            **vitals.in_flight,
            "waiting": vitals.waiting,
            "tokens_per_s": round(vitals.tokens_per_s, 1),
            "requests_per_s": round(vitals.requests_per_s, 1),
            "failed_per_min": round(vitals.failed_per_min),
        },
        "latency": {
            "ttft_p50_s": rounded(vitals.ttft_p50_s, 3),
            "ttft_p95_s": rounded(vitals.ttft_p95_s, 3),
            "target_s": TTFT_TARGET_S,
        },
        "feed": [_line(*group, edge_s, now_s) for group in grouped(snapshot.happenings)[:FEED_ROWS]],
        "chain": _chain(chain) if chain else None,
        "since_edge_s": round((chain.over_at_s or now_s) - chain.edge_at_s, 1) if chain else None,
        "point": asdict(point(snapshot, vitals, now_s)),
    }


def _pod(pod: Pod, short: str, now_s: float) -> dict[str, Any]:
    return {
        "name": pod.name,
        "short": short,
        "phase": pod.phase,
        "word": pod.step if pod.phase == "starting" and pod.step else PHASE_WORDS[pod.phase],
        "age_s": _age(now_s, pod.created_s),
        "phase_s": _age(now_s, pod.since_s),
        "node": pod.node,
        "running": pod.running,
        "waiting": pod.waiting,
        "max": pod.max_running,
        "restarts": pod.restarts,
    }


def _node(node: Node, short: str, now_s: float) -> dict[str, Any]:
    return {
        "name": node.name,
        "short": short,
        "phase": node.phase,
        "word": NODE_WORDS[node.phase],
        "age_s": _age(now_s, node.created_s),
        "phase_s": _age(now_s, node.since_s),
        "type": node.instance_type,
        "capacity": CAPACITY_WORDS[node.capacity_type],
        "zone": node.zone,
        "usd_per_hour": rounded(node.usd_per_hour, 3),
        "ends_in_s": None if node.ends_s is None else max(0, round(node.ends_s - now_s)),
    }


def _scaling(scaler: Autoscaler, snapshot: ClusterSnapshot) -> dict[str, Any]:
    return {
        "metric": rounded(scaler.metric),
        "target": scaler.target,
        "goal": rounded(scaler.target * snapshot.ready),
        "desired": scaler.desired,
        "ready": snapshot.ready,
        "pods": len(snapshot.pods),
        "min": scaler.min_replicas,
        "max": scaler.max_replicas,
        "formula": scaler.formula,
        "triggers": {name: rounded(value) for name, value in (scaler.triggers or {}).items()},
        "why": scaler.why,
        "pinned": scaler.pinned,
        "held": scaler.held,
        "fallback": scaler.fallback,
    }


def _cost(usd_per_hour: float | None, tokens_per_min: float, price_date: str) -> dict[str, Any]:
    """$ per million tokens: what an hour costs by the tokens that an hour at the last minute's pace makes."""
    per_million = None
    if usd_per_hour is not None and tokens_per_min > 0:
        per_million = usd_per_hour / (tokens_per_min * 60) * 1e6
    return {
        "usd_per_hour": rounded(usd_per_hour, 3),
        "usd_per_million_tokens": rounded(per_million, 3),
        "basis": f"list {price_date}" if price_date else "list price",
    }


def grouped(happenings: Sequence[Happening]) -> list[tuple[Happening, int]]:
    """The latest first, each with how many it stands for: what pods and nodes do at about the same time is one line, or
    nine that are ready would push the decision off the screen that led to them."""
    groups: list[tuple[Happening, int]] = []
    places: dict[tuple[str, str], int] = {}
    for one in reversed(happenings):
        place = places.get((one.kind, one.what)) if one.kind in ("pod", "node") else None
        if place is not None and groups[place][0].at_s - one.at_s <= TOGETHER_S:
            groups[place] = (groups[place][0], groups[place][1] + 1)
        else:
            places[one.kind, one.what] = len(groups)
            groups.append((one, 1))
    return groups


def _line(happening: Happening, count: int, edge_s: float | None, now_s: float) -> dict[str, Any]:
    return {
        "seq": happening.seq,
        "kind": happening.kind,
        "text": happening.text + (f" (and {count - 1} more)" if count > 1 else ""),
        "t_s": round(happening.at_s - edge_s) if edge_s is not None and happening.at_s >= edge_s else None,
        "ago_s": _age(now_s, happening.at_s),
    }


def _chain(chain: Chain) -> list[dict[str, Any]]:
    return [
        {
            "step": step.name,
            "label": step.label,
            "short": STEP_SHORTS.get(step.name, step.label),
            "t_s": rounded(step.t_s),
            "why_not": step.why_not,
        }
        for step in chain.steps
    ]


def _age(now_s: float, then_s: float) -> int:
    return max(0, int(now_s - then_s))


def _oldest(one: Pod | Node) -> tuple[float, str]:
    return one.created_s, one.name


def _short_names(names: Collection[str]) -> dict[str, str]:
    """What tells them apart on a small tile: the last part of a name, or all of it where that is not enough."""
    tails = {name: name.rsplit("-", 1)[-1] for name in names}
    times = Counter(tails.values())
    return {name: tail if len(tail) >= SHORT_NAME and times[tail] == 1 else name for name, tail in tails.items()}
