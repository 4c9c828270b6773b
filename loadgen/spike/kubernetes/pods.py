"""How a pod of a run stands, read from its object: waits, runs or is over, and what is wrong with it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from inference.cluster.kubernetes.objects import NOTHING, Object, condition, name

HOPELESS = frozenset({"ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "CreateContainerError"})
"""Reasons for which a container waits that time does not heal. A first ErrImagePull may be a slip, and a Secret may
be a moment late."""


@dataclass(frozen=True, slots=True)
class Standing:
    """`wrong` is for people; `hopeless`: it will never run. `exit_code` is its container's, None where it never ran or
    nobody knows. `blames` names the other container whose log says why."""

    name: str
    state: Literal["waits", "runs", "over"]
    wrong: str = ""
    hopeless: bool = False
    exit_code: int | None = None
    blames: str = ""


def standing(pod: Object, container: str) -> Standing:
    status = pod.get("status", NOTHING)
    one = _status(status.get("containerStatuses"), container)
    ended, waiting = _state(one, "terminated"), _state(one, "waiting")
    if ended:
        wrong = "ran out of memory" if ended.get("reason") == "OOMKilled" else ""
        return Standing(name(pod), "over", wrong or _evicted(status), exit_code=ended.get("exitCode"))
    if status.get("phase") in ("Failed", "Succeeded"):
        blames = _unprepared(status)
        wrong = f"could not get ready: its container {blames} failed" if blames else "ended before it began"
        return Standing(name(pod), "over", _evicted(status) or wrong, hopeless=True, blames=blames)
    if "running" in one.get("state", NOTHING):
        return Standing(name(pod), "runs")
    waiting = waiting if waiting.get("reason") not in (None, "PodInitializing") else _first_waiting(status)
    if waiting:
        reason = waiting.get("reason", "")
        words = ": ".join(filter(None, (reason, waiting.get("message", ""))))
        return Standing(name(pod), "waits", words, reason in HOPELESS)
    scheduled = condition(pod, "PodScheduled")
    wrong = scheduled.get("message") or scheduled.get("reason", "") if scheduled.get("status") == "False" else ""
    return Standing(name(pod), "waits", wrong and f"no node takes it: {wrong}")


def gone(pod: Standing) -> Standing:
    """One that is no longer there though nobody told it to go."""
    return pod if pod.state == "over" else Standing(pod.name, "over", "was taken away: by somebody, or with its node")


def _status(statuses: Iterable[Object] | None, container: str) -> Object:
    return next((one for one in statuses or () if one.get("name") == container), NOTHING)


def _state(status: Object, state: str) -> Object:
    return status.get("state", NOTHING).get(state) or NOTHING


def _first_waiting(status: Object) -> Object:
    """Of the containers that come before the others."""
    waiting = (_state(one, "waiting") for one in status.get("initContainerStatuses") or ())
    return next((one for one in waiting if one.get("reason") not in (None, "PodInitializing")), NOTHING)


def _evicted(status: Object) -> str:
    return ": ".join(filter(None, (status.get("reason", ""), status.get("message", ""))))


def _unprepared(status: Object) -> str:
    """The container before the others that failed."""
    before = status.get("initContainerStatuses") or ()
    return next((one["name"] for one in before if _state(one, "terminated").get("exitCode")), "")
