"""k6 on a cluster: a TestRun of the k6-operator, the ConfigMap with its script and plan, and a Secret. Pure but for
reading the scripts.

The fields are those of https://github.com/grafana/k6-operator, config/crd/bases/k6.io_testruns.yaml (k6.io/v1alpha1).
Its runners are Jobs that run `k6 run --quiet --execution-segment=… ARGUMENTS /test/SCRIPT --address=… --paused`; when
all of them run, its starter lets them begin.
"""

from __future__ import annotations

import re

from inference.cluster.kubernetes.api import Resource
from loadgen.spike.kubernetes import files
from loadgen.spike.kubernetes.cluster import (
    ANNOTATIONS,
    Cluster,
    Manifest,
    labels,
    metadata,
    secret,
    secret_env,
    spread,
    version_of,
)
from loadgen.spike.tools.k6 import SCRIPT_OF
from loadgen.spike.tools.tool import Job, ToolFailed

IMAGE = "grafana/k6:1.1.0"
CONTAINER = "k6"
FOLDER = "/test"
"""Where the operator mounts the ConfigMap."""
USER = 12345
"""Of the official image."""
REQUESTS = {"cpu": "1", "memory": "512Mi"}
LIMITS = {"memory": "2Gi"}  # none of CPU: a throttled generator is late


def resource(namespace: str) -> Resource:
    return Resource("k6.io/v1alpha1", "testruns", namespace)


def selector(name: str) -> str:
    """Of the runners' pods; the operator's own labels."""
    return f"app=k6,k6_cr={name},runner=true"


def manifests(name: str, job: Job, cluster: Cluster) -> list[Manifest]:
    """The first is what the others are for. Raises BadPlan, ToolFailed."""
    script = SCRIPT_OF.get(job.plan.scenario)
    if script is None:
        raise ToolFailed(f"k6 has no script for the scenario {job.plan.scenario!r}.", "options")
    held = {**files.scripts(script), files.PLAN: job.plan.to_json()}
    run = {
        "apiVersion": "k6.io/v1alpha1",
        "kind": "TestRun",
        "metadata": metadata(name, cluster),
        "spec": {
            "parallelism": cluster.parallelism,
            "script": {"configMap": {"name": name, "file": script}},
            "arguments": arguments(job, cluster),
            "quiet": "true",  # a progress bar would stand among the points
            "paused": "true",
            "separate": False,
            **({} if cluster.keep else {"cleanup": "post"}),
            "runner": _pod(name, job, cluster),
            # A script's error is said by the runners too. An operator that knows no `disabled` runs it all the same.
            "initializer": {"disabled": True, **_pod(name, job, cluster)},
        },
    }
    return [run, files.configmap(name, cluster, held), *secret(name, job, cluster)]


def arguments(job: Job, cluster: Cluster) -> str:
    """The operator splits them at spaces. The output of a runner is its points and its words, in one log; the verdict
    is ours, as each runner's thresholds would be of its own part alone."""
    major = re.match(r"v?(\d+)\.", version_of(cluster.image or IMAGE))
    summary = "--no-summary" if major and int(major[1]) < 2 else "--summary-mode=disabled"
    parts = ["--out json=-", "--system-tags=", "--log-format=json", "--no-usage-report", "--no-thresholds", summary]
    parts += ["--include-system-env-vars"]  # an initializer's `k6 archive` leaves them out, and scripts ask for secrets
    parts += ["--insecure-skip-tls-verify"] if job.insecure else []
    return " ".join([*parts, f"-e TARGET={job.target}", f"-e PLAN={FOLDER}/{files.PLAN}"])


def _pod(name: str, job: Job, cluster: Cluster) -> Manifest:
    return {
        "image": cluster.image or IMAGE,
        "metadata": {"labels": labels(name), "annotations": ANNOTATIONS},
        "env": secret_env(name, job),
        "resources": {"requests": REQUESTS, "limits": LIMITS},
        "automountServiceAccountToken": "false",
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containerSecurityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "topologySpreadConstraints": spread({"app": "k6", "k6_cr": name}),
    }
