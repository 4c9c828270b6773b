"""The answers in recorded_kubernetes, and views made of them with something changed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from inference.cluster.kubernetes.view import Scope, View, World, look
from tests.cluster.kube_server import merged

FOLDER = Path(__file__).parent / "recorded_kubernetes"
SCOPE = Scope(namespace="talk")
PRICES = {("g5.xlarge", "spot"): 0.43, ("g6.xlarge", "on-demand"): 0.805}
NOW_S = datetime.fromisoformat("2026-11-21T10:11:40Z").timestamp()


def price(instance_type: str, capacity_type: str, _zone: str) -> float | None:
    return PRICES.get((instance_type, capacity_type))


def at(clock: str) -> float:
    """Unix seconds of a time of that day: `10:11:40`."""
    return datetime.fromisoformat(f"2026-11-21T{clock}Z").timestamp()


def items(name: str) -> list[dict[str, Any]]:
    return json.loads((FOLDER / f"handmade-{name}.json").read_text())["items"]


def item(name: str, ending: str) -> dict[str, Any]:
    return next(it for it in items(name) if it["metadata"]["name"].endswith(ending))


WORLD = World(
    pods=items("pods"),
    nodes=items("nodes"),
    claims=items("nodeclaims"),
    hpas=items("hpas"),
    scaled_objects=items("scaledobjects"),
    events=[*items("events"), *items("node-events")],
)


def edited(world: World, part: str, ending: str, change: Mapping[str, Any] | None) -> World:
    """With a merge patch applied to the object whose name ends so, or, with None, without it."""
    found = []
    for it in getattr(world, part):
        if not it["metadata"]["name"].endswith(ending):
            found.append(it)
        elif change is not None:
            found.append(merged(it, change))
    assert found != list(getattr(world, part)), f"nothing in {part} was changed"
    return replace(world, **{part: found})


def added(world: World, part: str, it: Mapping[str, Any]) -> World:
    return replace(world, **{part: [*getattr(world, part), it]})


def seen(world: World = WORLD, scope: Scope = SCOPE) -> View:
    return look(world, scope, price)


def conditions(it: Mapping[str, Any], **statuses: tuple[str, str]) -> list[dict[str, Any]]:
    """An object's conditions with those named having another status and time (`10:11:00`)."""
    return [
        {**one, "status": statuses[one["type"]][0], "lastTransitionTime": f"2026-11-21T{statuses[one['type']][1]}Z"}
        if one["type"] in statuses
        else one
        for one in it["status"]["conditions"]
    ]
