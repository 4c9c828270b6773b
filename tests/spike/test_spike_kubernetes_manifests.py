"""The manifests of a run: fields that the API server knows, files that the tools can read where they are mounted."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from inference.cluster.fields import ManifestError, Place
from loadgen.spike.kubernetes import files, jobs, testrun
from loadgen.spike.kubernetes.cluster import Cluster, check, name_of, version_of
from loadgen.spike.kubernetes.printing import HIDDEN, printed
from loadgen.spike.plan import BadPlan, Cell, Plan, Prompt, Stage
from loadgen.spike.tools.k6 import SCRIPT_OF
from loadgen.spike.tools.locust import FILE_OF
from loadgen.spike.tools.tool import Job, ToolFailed
from tests.spike.spike_cluster import BIN, mounted

PLAN = Plan(
    "spike",
    "open",
    5,
    (Stage(5, 1), Stage(40, 1)),
    "k6",
    model="m",
    work=(Prompt("héllo: {x}\n- 'y'", 10),),
    room="KWXM",
)
CELLS = (Cell("m", 2, 1, 0, 1), Cell("m", 8, 2, 1, 2))
JOB = Job(PLAN, "http://vllm.talk.svc:8000", Path("spikes/20261121T190000Z-spike-k6"), api_key="sk-very-secret")
CLUSTER = Cluster(parallelism=3, namespace="talk")
TOOLS = pytest.mark.parametrize("tool", ["k6", "locust"])

# What is used of the fields, by their types in the TestRun's definition (grafana/k6-operator,
# config/crd/bases/k6.io_testruns.yaml; api/v1alpha1/testrun_types.go) and in Kubernetes' own reference.
TEXT, WHOLE, SWITCH, WORDS = "text", "whole", "switch", "words"
META = {"name": TEXT, "namespace": TEXT, "labels": WORDS, "annotations": WORDS}
RESOURCES = {"requests": WORDS, "limits": WORDS}
POD_SECURITY = {"runAsNonRoot": SWITCH, "runAsUser": WHOLE, "seccompProfile": {"type": TEXT}}
SECURITY = {"allowPrivilegeEscalation": SWITCH, "capabilities": {"drop": [TEXT]}}
SPREAD = {"maxSkew": WHOLE, "topologyKey": TEXT, "whenUnsatisfiable": TEXT, "labelSelector": {"matchLabels": WORDS}}
ENV = {"name": TEXT, "value": TEXT, "valueFrom": {"secretKeyRef": {"name": TEXT, "key": TEXT}}}
RUNNER = {
    "disabled": SWITCH,
    "image": TEXT,
    "metadata": {"labels": WORDS, "annotations": WORDS},
    "env": [ENV],
    "resources": RESOURCES,
    "automountServiceAccountToken": TEXT,
    "securityContext": POD_SECURITY,
    "containerSecurityContext": SECURITY,
    "topologySpreadConstraints": [SPREAD],
}
CONTAINER = {
    "name": TEXT,
    "image": TEXT,
    "command": [TEXT],
    "args": [TEXT],
    "env": [ENV],
    "ports": [{"containerPort": WHOLE}],
    "resources": RESOURCES,
    "volumeMounts": [{"name": TEXT, "mountPath": TEXT, "readOnly": SWITCH}],
    "securityContext": SECURITY,
}
VOLUME = {"name": TEXT, "configMap": {"name": TEXT, "items": [{"key": TEXT, "path": TEXT}]}, "emptyDir": {}}
POD = {
    "restartPolicy": TEXT,
    "automountServiceAccountToken": SWITCH,
    "terminationGracePeriodSeconds": WHOLE,
    "securityContext": POD_SECURITY,
    "topologySpreadConstraints": [SPREAD],
    "initContainers": [CONTAINER],
    "containers": [CONTAINER],
    "volumes": [VOLUME],
}
TEST_RUN = {
    "parallelism": WHOLE,
    "script": {"configMap": {"name": TEXT, "file": TEXT}},
    "arguments": TEXT,
    "quiet": TEXT,
    "paused": TEXT,
    "separate": SWITCH,
    "cleanup": TEXT,
    "runner": RUNNER,
    "initializer": RUNNER,
}
JOB_SPEC = {
    "parallelism": WHOLE,
    "completions": WHOLE,
    "backoffLimit": WHOLE,
    "activeDeadlineSeconds": WHOLE,
    "ttlSecondsAfterFinished": WHOLE,
    "template": {"metadata": META, "spec": POD},
}
SERVICE = {
    "selector": WORDS,
    "ports": [{"name": TEXT, "port": WHOLE, "targetPort": WHOLE, "protocol": TEXT}],
    "publishNotReadyAddresses": SWITCH,
}
KINDS = {
    ("k6.io/v1alpha1", "TestRun"): {"spec": TEST_RUN},
    ("batch/v1", "Job"): {"spec": JOB_SPEC},
    ("v1", "Service"): {"spec": SERVICE},
    ("v1", "ConfigMap"): {"data": WORDS},
    ("v1", "Secret"): {"stringData": WORDS},
}


def conform(place: Place, kind: Any) -> None:
    """Raises ManifestError for an unknown field or a value of another type."""
    match kind:
        case "text":
            place.text()
        case "whole":
            place.whole(0)
        case "switch":
            assert place.node.tag == "tag:yaml.org,2002:bool", place.wrong("is not true or false")
        case "words":
            for value in place.entries().values():
                value.text()
        case [one]:
            for value in place.items():
                conform(value, one)
        case dict():
            place.only(tuple(kind))
            for key, value in place.entries().items():
                conform(value, kind[key])


def checked(text: str) -> list[tuple[str, str]]:
    found = []
    for node in yaml.compose_all(text, Loader=yaml.SafeLoader):
        place = Place(node)
        kind = place.need("apiVersion", "text").text(), place.need("kind", "text").text()
        conform(place, {"apiVersion": TEXT, "kind": TEXT, "metadata": META, **KINDS[kind]})
        found.append(kind)
    return found


@TOOLS
@pytest.mark.parametrize(
    "cluster", [CLUSTER, Cluster(keep=True, image="registry.example:5000/tool:9")], ids=["", "kept"]
)
def test_every_field_is_one_that_the_api_server_knows(tool, cluster) -> None:
    found = checked(printed(tool, JOB, cluster))
    wanted = {"k6": ["ConfigMap", "Secret", "TestRun"], "locust": ["ConfigMap", "Secret", "Service", "Job", "Job"]}
    assert [kind for _, kind in found] == wanted[tool]


def test_the_check_finds_a_field_that_is_wrong() -> None:
    text = printed("k6", JOB, CLUSTER)
    with pytest.raises(ManifestError, match="did you mean parallelism"):
        checked(text.replace("  parallelism:", "  paralelism:"))
    with pytest.raises(ManifestError, match="whole number"):
        checked(text.replace("  parallelism: 3", "  parallelism: '3'"))


@TOOLS
def test_what_is_printed_is_what_is_made_and_tells_no_secret(tool) -> None:
    text = printed(tool, JOB, CLUSTER)
    objects = list(yaml.safe_load_all(text))
    assert "sk-very-secret" not in text
    assert [it["stringData"] for it in objects if it["kind"] == "Secret"] == [{"API_KEY": HIDDEN}]
    data = next(it for it in objects if it["kind"] == "ConfigMap")["data"]
    assert Plan.from_json(data[files.PLAN]) == PLAN
    assert {it["metadata"]["namespace"] for it in objects} == {"talk"}


@TOOLS
def test_without_a_key_there_is_no_secret(tool) -> None:
    objects = list(yaml.safe_load_all(printed(tool, replace(JOB, api_key=""), CLUSTER)))
    assert "Secret" not in {it["kind"] for it in objects}
    assert "secretKeyRef" not in json.dumps(objects)


@pytest.mark.parametrize("scenario", SCRIPT_OF)
def test_k6_can_read_each_script_where_the_operator_mounts_it(scenario, tmp_path) -> None:
    """`k6 archive` is also what an operator's initializer does, with the arguments of the runners."""
    job = replace(JOB, plan=replace(PLAN, scenario=scenario, cells=CELLS, source="amplified", copies=3))
    run, held = testrun.manifests("x", job, CLUSTER)[:2]
    mount = mounted(tmp_path / "test", held["data"])
    script = run["spec"]["script"]["configMap"]["file"]
    arguments = run["spec"]["arguments"].replace("--out json=- ", "").replace("--no-usage-report ", "")
    command = [BIN / "k6", "archive", mount / script, "-O", tmp_path / "a.tar", *arguments.split(" ")]
    told = subprocess.run(
        [str(part).replace("/test/", f"{mount}/") if "PLAN=" in str(part) else part for part in command],
        env={"HOME": str(tmp_path), "PRESENTER_TOKEN": "t"},
        capture_output=True,
        text=True,
    )
    assert told.returncode == 0, told.stderr


@pytest.mark.parametrize("file", sorted(set(FILE_OF.values())))
def test_a_locust_file_imports_nothing_of_this_program_but_what_it_brings(file, tmp_path) -> None:
    held = files.locustfile(file)
    objects = files.configmap("x", CLUSTER, held)
    mount = mounted(tmp_path / "files", objects["data"], files.items(held))
    code = f"import sys; sys.path[:0] = [{str(mount)!r}]; import loadgen.locustfiles.{file[:-3]};"
    code += (
        "print(*(m.__file__ for n, m in sys.modules.items() if n.split('.')[0] in ('loadgen', 'inference', 'webapp')))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {str(mount) in path for path in done.stdout.split()} == {True}


def test_a_plan_that_a_configmap_does_not_hold_is_refused() -> None:
    large = replace(PLAN, work=tuple(Prompt("word " * 400, 10) for _ in range(512)))
    with pytest.raises(BadPlan, match="shorter --prompt-tokens"):
        testrun.manifests("x", replace(JOB, plan=large), CLUSTER)


@pytest.mark.parametrize("manifests", [testrun.manifests, jobs.manifests], ids=["k6", "locust"])
def test_a_scenario_that_a_tool_has_not_is_refused(manifests) -> None:
    with pytest.raises(ToolFailed, match="'other'"):
        manifests("x", replace(JOB, plan=replace(PLAN, scenario="other")), CLUSTER)


@pytest.mark.parametrize(
    ("image", "summary"),
    [
        ("grafana/k6:1.1.0", "--no-summary"),
        ("grafana/k6:2.0.1", "--summary-mode=disabled"),
        ("grafana/k6:latest", "--summary-mode=disabled"),
        ("r.example:5000/k6:1.3.0@sha256:abc", "--no-summary"),
    ],
)
def test_arguments_are_those_of_the_images_version(image, summary) -> None:
    found = testrun.arguments(replace(JOB, insecure=True), Cluster(image=image))
    assert summary in found.split(" ")
    assert "--insecure-skip-tls-verify" in found


def test_versions_are_the_images_tags() -> None:
    assert [version_of(image) for image in ("grafana/k6:1.1.0", "r:5000/k6:2@sha256:ab", "k6")] == ["1.1.0", "2", "k6"]


def test_names_are_labels_and_never_the_same() -> None:
    long = name_of("20261121T190000Z-" + "spike " * 20 + "_")
    assert len(f"{long}-initializer") <= 63
    assert long == long.lower()
    assert name_of("a") != name_of("a")
    assert name_of("").startswith("crowdspike-")


@pytest.mark.parametrize(
    ("plan", "tool", "parallelism", "told"),
    [
        (PLAN, "k6", 65, "give 1 to 64"),
        (replace(PLAN, max_in_flight=2), "k6", 3, "only 2 requests at once"),
        (replace(PLAN, loop="closed", stages=(Stage(2, 1),), start=1), "k6", 3, "only 2 users"),
        (replace(PLAN, loop="closed", cells=CELLS), "k6", 9, "only 8 users"),
    ],
)
def test_more_runners_than_there_is_work_are_refused(plan, tool, parallelism, told) -> None:
    with pytest.raises(BadPlan, match=told):
        check(plan, tool, parallelism)
    check(plan, tool, 2)
