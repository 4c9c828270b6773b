"""Locust on a cluster: a Job for the master, one for the workers, the Service between them, the ConfigMap with its
files and plan, and a Secret. Pure but for reading the files.

The master says everything: workers send it what they report by Locust's own messages.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version

from inference.cluster.kubernetes.api import Resource
from loadgen.spike.kubernetes import files
from loadgen.spike.kubernetes.cluster import (
    ANNOTATIONS,
    INSTANCE,
    ROLE,
    START_WITHIN_S,
    Cluster,
    Manifest,
    labels,
    metadata,
    secret,
    secret_env,
    spread,
)
from loadgen.spike.tools.locust import FILE_OF
from loadgen.spike.tools.tool import Job, ToolFailed

IMAGE = "locustio/locust:2.47.0"
CONTAINER = "locust"
MASTER, WORKER = "master", "worker"
PORT = 5557
FOLDER, PACKAGES = "/crowdspike", "/packages"
USER = 1000
"""Of the official image; by its number, as a pod that must not be root can't tell by a name."""
NEEDED = {"httptools": "httptools", "yaml": "PyYAML"}
"""What our files import that the official image has not, by module."""
REQUESTS = {"cpu": "1", "memory": "512Mi"}
LIMITS = {"memory": "2Gi"}  # none of CPU: a throttled generator is late
KEPT_S = 3600
OVER_S = 60


def resource(namespace: str) -> Resource:
    return Resource("batch/v1", "jobs", namespace)


def selector(name: str, role: str = "") -> str:
    return f"{INSTANCE}={name}" + (f",{ROLE}={role}" if role else "")


def manifests(name: str, job: Job, cluster: Cluster) -> list[Manifest]:
    """The first is what the others are for. Raises BadPlan, ToolFailed."""
    file = FILE_OF.get(job.plan.scenario)
    if file is None:
        raise ToolFailed(f"Locust has no file for the scenario {job.plan.scenario!r}.", "options")
    held = {**files.locustfile(file), files.PLAN: job.plan.to_json()}
    common = ["-f", f"{FOLDER}/loadgen/locustfiles/{file}", "--host", job.target, "--plan", f"{FOLDER}/{files.PLAN}"]
    # Requests that fail are ours to judge: an exit status is left for what went wrong in Locust itself.
    common += ["--exit-code-on-error", "0", *(["--insecure"] if job.insecure else [])]
    master = ["--master", "--headless", "--only-summary"]
    master += ["--master-bind-port", str(PORT), "--expect-workers", str(cluster.parallelism)]
    master += ["--expect-workers-max-wait", str(round(START_WITHIN_S))]
    worker = ["--worker", "--master-host", name, "--master-port", str(PORT)]
    return [
        _job(name, MASTER, 1, [*common, *master], held, job, cluster),
        files.configmap(name, cluster, held),
        *secret(name, job, cluster),
        _service(name, cluster),
        _job(name, WORKER, cluster.parallelism, [*common, *worker], held, job, cluster),
    ]


def _service(name: str, cluster: Cluster) -> Manifest:
    """With an address of its own: its name can be looked up before the master runs, which a worker does but once."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(name, cluster),
        "spec": {
            "selector": labels(name, MASTER),
            "ports": [{"name": "locust", "port": PORT, "targetPort": PORT, "protocol": "TCP"}],
            "publishNotReadyAddresses": True,
        },
    }


def _job(
    name: str, role: str, count: int, args: list[str], held: Mapping[str, str], job: Job, cluster: Cluster
) -> Manifest:
    lasts_s = START_WITHIN_S + job.plan.deadline_s + OVER_S
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata(f"{name}-{role}", cluster, role),
        "spec": {
            "parallelism": count,
            "completions": count,
            "backoffLimit": 0,
            "activeDeadlineSeconds": round(lasts_s),
            **({} if cluster.keep else {"ttlSecondsAfterFinished": KEPT_S}),
            "template": {
                "metadata": {"labels": labels(name, role), "annotations": ANNOTATIONS},
                "spec": _pod(name, role, args, held, job, cluster),
            },
        },
    }


def _pod(name: str, role: str, args: list[str], held: Mapping[str, str], job: Job, cluster: Cluster) -> Manifest:
    image = cluster.image or IMAGE
    mounts = [
        {"name": "files", "mountPath": FOLDER, "readOnly": True},
        {"name": "packages", "mountPath": PACKAGES},
    ]
    env = [
        {"name": "PYTHONPATH", "value": f"{FOLDER}:{PACKAGES}"},
        {"name": "PYTHONDONTWRITEBYTECODE", "value": "1"},
        {"name": "PYTHONUNBUFFERED", "value": "1"},
    ]
    may = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 10,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "topologySpreadConstraints": spread(labels(name)),
        "initContainers": [
            {
                "name": "packages",
                "image": image,
                "command": ["sh", "-c", _preparation(name, role)],
                "env": env,
                "volumeMounts": mounts,
                "securityContext": may,
            }
        ],
        "containers": [
            {
                "name": CONTAINER,
                "image": image,
                "command": ["locust"],
                "args": args,
                "env": [*env, {"name": "REPORT", "value": "1"}, *secret_env(name, job)],
                "ports": [{"containerPort": PORT}] if role == MASTER else [],
                "resources": {"requests": REQUESTS, "limits": LIMITS},
                "volumeMounts": mounts,
                "securityContext": may,
            }
        ],
        "volumes": [
            {"name": "files", "configMap": {"name": name, "items": files.items(held)}},
            {"name": "packages", "emptyDir": {}},
        ],
    }


def _preparation(name: str, role: str) -> str:
    """In a shell: the packages that an image lacks are installed, in the versions that are installed here; a worker
    waits until it can look up its master."""
    wanted = " ".join(f"{package}=={version(package)}" for package in NEEDED.values())
    has = f"python -c 'import {', '.join(NEEDED)}' 2>/dev/null"
    script = f"{has} || pip install --no-cache-dir --target {PACKAGES} {wanted}"
    if role == WORKER:
        look = f"""python -c "import socket; socket.getaddrinfo('{name}', {PORT})" 2>/dev/null"""
        script = f"{{ {script}; }} && until {look}; do sleep 1; done"
    return script
