"""Reading API objects as they come in JSON: names, times, conditions. Pure; what is absent reads as empty."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

Object = Mapping[str, Any]
NOTHING: Object = {}


def name(it: Object) -> str:
    return it.get("metadata", NOTHING).get("name", "")


def uid(it: Object) -> str:
    """Its identity for as long as it lives; another object of the same name has another one."""
    return it.get("metadata", NOTHING).get("uid") or name(it)


def label(it: Object, *keys: str) -> str:
    """The value of the first of these labels that it has; empty without one."""
    labels = it.get("metadata", NOTHING).get("labels") or NOTHING
    return next((labels[key] for key in keys if labels.get(key)), "")


def annotation(it: Object, key: str) -> str | None:
    return (it.get("metadata", NOTHING).get("annotations") or NOTHING).get(key)


def time_s(text: str | None) -> float | None:
    """Unix seconds of an RFC 3339 time; None for none, or for what is not one."""
    try:
        return datetime.fromisoformat(text).timestamp() if text else None
    except ValueError:
        return None


def created_s(it: Object) -> float:
    return time_s(it.get("metadata", NOTHING).get("creationTimestamp")) or 0.0


def deleted_s(it: Object) -> float | None:
    """When somebody asked for its deletion. The API server notes when the grace period ends instead."""
    metadata = it.get("metadata", NOTHING)
    ends_s = time_s(metadata.get("deletionTimestamp"))
    return None if ends_s is None else ends_s - (metadata.get("deletionGracePeriodSeconds") or 0)


def conditions(it: Object) -> Iterable[Object]:
    return it.get("status", NOTHING).get("conditions") or ()


def condition(it: Object, kind: str) -> Object:
    return next((one for one in conditions(it) if one.get("type") == kind), NOTHING)


def is_true(it: Object, kind: str) -> bool:
    return condition(it, kind).get("status") == "True"


def changed_s(it: Object, kind: str) -> float | None:
    """Since when the condition is as it is."""
    return time_s(condition(it, kind).get("lastTransitionTime"))


def event_s(event: Object) -> float:
    """When an Event last happened. Those made through events.k8s.io carry `eventTime` and no `lastTimestamp`."""
    series = event.get("series") or NOTHING
    told = (event.get("lastTimestamp"), series.get("lastObservedTime"), event.get("eventTime"))
    return next((at_s for text in told if (at_s := time_s(text)) is not None), created_s(event))
