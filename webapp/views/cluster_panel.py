"""The console's cluster panel: what scaling does and why, and what the presenter may do to it now. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from inference.cluster.snapshot import ClusterSnapshot
from webapp.live.controls import ACTIONS

NO_CLUSTER = "This server neither runs nor watches a cluster, so there is nothing to steer or to break."
FEED_ROWS = 5


@dataclass(frozen=True, slots=True)
class Panel:
    """`document` is as in `webapp.views.cluster`, None without a cluster. `why_not` says by action why it can't be done
    now, empty where it can. `types` are instance types, those made unavailable too; `prewarm` is a number of pods to
    offer. `told` is what the replicas say of themselves."""

    document: Mapping[str, Any] | None
    why_not: Mapping[str, str]
    types: tuple[str, ...] = ()
    unavailable: frozenset[str] = frozenset()
    prewarm: int = 1
    said: str = ""
    told: str = ""


def no_panel() -> Panel:
    return Panel(None, dict.fromkeys(ACTIONS, NO_CLUSTER))


def cluster_panel(
    snapshot: ClusterSnapshot,
    document: Mapping[str, Any],
    unavailable: Collection[str],
    refused: Callable[[str], str],
    said: str = "",
    told: str = "",
) -> Panel:
    """`refused` gives the cluster's own words where it has said no to an action. `said` is what the last one did,
    `told` what the replicas say of themselves."""
    scaler = snapshot.autoscaler
    spot = any(node.capacity_type == "spot" and node.phase == "ready" for node in snapshot.nodes)
    why_not = dict.fromkeys(ACTIONS, "")
    if scaler is None:
        why_not |= dict.fromkeys(("pin", "unpin", "hold", "release"), "Nothing scales this cluster.")
    else:
        why_not["unpin"] = "The load decides now." if scaler.pinned is None else ""
        why_not["hold"] = "It is on hold." if scaler.held else ""
        why_not["release"] = "" if scaler.held else "It is not on hold."
    why_not["kill"] = "" if snapshot.ready else "No pod is ready."
    why_not["interrupt"] = "" if spot else "No Spot node is ready."
    return Panel(
        document={**document, "feed": document["feed"][:FEED_ROWS]},
        why_not={action: reason or refused(action) for action, reason in why_not.items()},
        types=tuple(sorted({node.instance_type for node in snapshot.nodes} | set(unavailable))),
        unavailable=frozenset(unavailable),
        prewarm=min(scaler.max_replicas, max(scaler.desired, snapshot.ready) + 2) if scaler else 1,
        said=said,
        told=told,
    )
