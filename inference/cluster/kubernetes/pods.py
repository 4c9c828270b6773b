"""A pod as the API server has it → a pod of the view. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from inference.cluster.kubernetes.objects import (
    NOTHING,
    Object,
    changed_s,
    created_s,
    deleted_s,
    is_true,
    name,
    time_s,
    uid,
)
from inference.cluster.snapshot import Pod, PodPhase

DEFAULT_PORT = 8000
DEFAULT_MAX_NUM_SEQS = 32


def view_pod(it: Object, pulling: Mapping[str, bool], gauges: Mapping[str, tuple[int, int]]) -> Pod:
    """`pulling` says by a pod's uid whether its image is being fetched; `gauges` are running and waiting by name."""
    phase, since_s = _phase(it)
    running, waiting = gauges.get(name(it), (None, None))
    return Pod(
        name=name(it),
        phase=phase,
        created_s=created_s(it),
        since_s=since_s,
        node=it.get("spec", NOTHING).get("nodeName"),
        step="pulling" if phase == "image" and pulling.get(uid(it)) else "",
        url=_url(it),
        running=running,
        waiting=waiting,
        max_running=_max_running(_container(it)),
        restarts=_status(it).get("restartCount", 0),
    )


def end_of(it: Object) -> str | None:
    """Why a pod has ended for good (evicted, its node shut down …), though it is still listed; None while it lives."""
    status = it.get("status", NOTHING)
    if status.get("phase") not in ("Failed", "Succeeded"):
        return None
    return status.get("message") or status.get("reason") or f"ended as {status['phase']}"


def last_end(it: Object) -> str:
    """How its container last ended: `OOMKilled, exit status 137`."""
    ended = (_status(it).get("lastState") or NOTHING).get("terminated") or NOTHING
    said = [ended["reason"]] if ended.get("reason") else []
    return ", ".join([*said, f"exit status {ended['exitCode']}"] if "exitCode" in ended else said)


def _phase(it: Object) -> tuple[PodPhase, float]:
    """And since when. Kubernetes' own `phase` is too coarse: `Running` says nothing of readiness."""
    born_s = created_s(it)
    if (asked_s := deleted_s(it)) is not None:
        return "terminating", asked_s
    if not is_true(it, "PodScheduled") and not it.get("spec", NOTHING).get("nodeName"):
        return "pending", born_s
    scheduled_s = changed_s(it, "PodScheduled") or born_s
    if is_true(it, "Ready"):
        return "ready", changed_s(it, "Ready") or scheduled_s
    state = _status(it).get("state") or NOTHING
    if "running" in state:
        started_s = time_s(state["running"].get("startedAt")) or scheduled_s
        turned_s = changed_s(it, "Ready") or 0.0
        # The condition is False from the beginning; only one that has turned False later tells of a pod that was ready.
        was_ready = _status(it).get("started") is not False and turned_s > started_s
        return ("unready", turned_s) if was_ready else ("starting", started_s)
    if _status(it).get("restartCount") or "terminated" in state:
        ended = state.get("terminated") or (_status(it).get("lastState") or NOTHING).get("terminated") or NOTHING
        return "unready", time_s(ended.get("finishedAt")) or changed_s(it, "Ready") or scheduled_s
    return "image", scheduled_s


def _container(it: Object) -> Object:
    """The first one is the server; others are sidecars."""
    containers: Sequence[Object] = it.get("spec", NOTHING).get("containers") or ()
    return containers[0] if containers else NOTHING


def _status(it: Object) -> Object:
    wanted = _container(it).get("name")
    statuses: Sequence[Object] = it.get("status", NOTHING).get("containerStatuses") or ()
    return next((one for one in statuses if one.get("name") == wanted), NOTHING)


def _url(it: Object) -> str | None:
    address = it.get("status", NOTHING).get("podIP")
    if not address:
        return None
    ports: Sequence[Object] = _container(it).get("ports") or ()
    port = next((one.get("containerPort") for one in ports if one.get("name", "http") == "http"), DEFAULT_PORT)
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"


def _max_running(container: Object) -> int:
    words = [str(word) for word in (*(container.get("command") or ()), *(container.get("args") or ()))]
    for word, following in pairwise([*words, ""]):
        option, _, value = word.partition("=")
        if option == "--max-num-seqs" and (value or following).isdigit():
            return int(value or following)
    return DEFAULT_MAX_NUM_SEQS
