"""Where on a cluster a run's tool is to run, and how many of it. Pure."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from typing import Any

from loadgen.spike.plan import BadPlan, Plan
from loadgen.spike.tools.tool import Job

MAX_PARALLELISM = 64
START_WITHIN_S = 300.0
"""How long pods may take to start: a node may have to be bought, and an image pulled."""
SOURCE = "app.kubernetes.io/part-of"
INSTANCE = "app.kubernetes.io/instance"
ROLE = "app.kubernetes.io/component"
SECRET_KEYS = ("API_KEY", "PRESENTER_TOKEN")
# Someone who lives on Spot nodes consolidates them at any time, and a run without a part of its generator is void.
ANNOTATIONS = {"karpenter.sh/do-not-disrupt": "true"}

Manifest = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Cluster:
    """`namespace` is the kubeconfig's own when empty, `image` the tool's official one. `keep`: what a run has made
    stays when it has ended. `kubeconfig` and `context` are as for kubectl."""

    namespace: str = ""
    parallelism: int = 1
    image: str = ""
    keep: bool = False
    kubeconfig: str | None = None
    context: str | None = None


def name_of(run: str) -> str:
    """A name of its own for all that a run makes, with the run's in it. Operators add to names; 63 characters are the
    most that a label takes."""
    slug = re.sub(r"[^a-z0-9]+", "-", run.lower()).strip("-")[:30].rstrip("-")
    return f"crowdspike-{slug}-{secrets.token_hex(3)}"


def check(plan: Plan, tool: str, parallelism: int) -> None:
    """Raises BadPlan where there is not enough work for so many."""
    if parallelism > MAX_PARALLELISM:
        raise BadPlan(f"--parallelism {parallelism}: give 1 to {MAX_PARALLELISM}.")
    users = max((cell.users for cell in plan.cells), default=plan.peak) if plan.loop == "closed" else plan.max_in_flight
    if tool == "k6" and parallelism > users:
        what = "users" if plan.loop == "closed" else "requests at once"
        raise BadPlan(f"--parallelism {parallelism}: there are only {users:g} {what} to divide among them.")


def metadata(name: str, cluster: Cluster, role: str = "") -> Manifest:
    where = {"namespace": cluster.namespace} if cluster.namespace else {}
    return {"name": name, **where, "labels": labels(name, role)}


def labels(name: str, role: str = "") -> dict[str, str]:
    return {SOURCE: "crowdspike", INSTANCE: name, **({ROLE: role} if role else {})}


def secret(name: str, job: Job, cluster: Cluster) -> list[Manifest]:
    """With what the job has of them; none where it has nothing to hide."""
    values = {key: value for key, value in zip(SECRET_KEYS, (job.api_key, job.presenter_token), strict=True) if value}
    if not values:
        return []
    return [{"apiVersion": "v1", "kind": "Secret", "metadata": metadata(name, cluster), "stringData": values}]


def secret_env(name: str, job: Job) -> list[Manifest]:
    given = zip(SECRET_KEYS, (job.api_key, job.presenter_token), strict=True)
    return [{"name": key, "valueFrom": {"secretKeyRef": {"name": name, "key": key}}} for key, value in given if value]


def spread(selector: dict[str, str]) -> list[Manifest]:
    """One on each node where there are enough of them: two generators on one node measure each other."""
    return [
        {
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": selector},
        }
    ]


def version_of(image: str) -> str:
    """`1.1.0` of `registry:5000/k6:1.1.0@sha256:…`; without a tag what there is."""
    tag = image.partition("@")[0].rpartition("/")[2].partition(":")[2]
    return tag or image
