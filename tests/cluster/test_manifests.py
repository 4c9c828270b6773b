"""Our manifests mean what the program says elsewhere, and every mistake in them has a line and a remedy."""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from inference import vllm
from inference.cluster import manifests
from inference.cluster.autoscaling import promql
from inference.cluster.manifests import ManifestError
from inference.cluster.spec import ClusterSpec, Fallback, Policy, Requirement, Rules

BASE = manifests.defaults()
CROWD_AWARE = BASE.parent / "overlays" / "crowd-aware"
SPEC = manifests.load(BASE)
SCALED, POOL = "vllm-scaledobject.yaml", "karpenter-nodepool.yaml"
DEPLOYMENT, MONITOR = "vllm-deployment.yaml", "vllm-podmonitor.yaml"


def raw(file: str) -> dict[str, Any]:
    return yaml.safe_load((BASE / file).read_text())


def edited(folder: Path, file: str, old: str, new: str) -> Path:
    """A copy of the base with the first `old` in `file` replaced."""
    shutil.copytree(BASE, folder / "copy")
    path = folder / "copy" / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    return folder / "copy"


def first_difference(one: Path, other: Path) -> int:
    """The number of the first line that differs."""
    lines = zip(one.read_text().splitlines(), other.read_text().splitlines(), strict=False)
    return next(number for number, (a, b) in enumerate(lines, 1) if a != b)


def test_the_deployment_says_what_the_module_says():
    pod = raw(DEPLOYMENT)["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert tuple(container["args"]) == vllm.Serving(container["args"][0]).arguments()
    assert container["args"][0].startswith("s3://BUCKET/")
    assert container["ports"] == [{"name": "http", "containerPort": vllm.PORT}]
    assert pod["terminationGracePeriodSeconds"] == vllm.TERMINATION_GRACE_PERIOD_S
    assert container["lifecycle"] == {"preStop": {"sleep": {"seconds": vllm.PRE_STOP_S}}}
    probes = {"startupProbe": vllm.STARTUP, "readinessProbe": vllm.READINESS, "livenessProbe": vllm.LIVENESS}
    for name, probe in probes.items():
        assert container[name] == {
            "httpGet": {"path": probe.path, "port": "http"},
            "periodSeconds": probe.period_s,
            "timeoutSeconds": probe.timeout_s,
            "failureThreshold": probe.failure_threshold,
        }


def test_what_the_pod_needs_is_read():
    pod = SPEC.pod
    assert (pod.cpu, pod.memory_gib, pod.gpus, pod.replicas, pod.port) == (3.0, 12.0, 1, 1, vllm.PORT)
    assert pod.args == vllm.Serving(pod.args[0]).arguments()
    assert (pod.probe_path, pod.probe_period_s, pod.probe_failures) == ("/health", 2.0, 3)
    assert (pod.pre_stop_s, pod.grace_period_s) == (15.0, 90.0)
    assert pod.labels == {"app.kubernetes.io/name": "vllm"}
    assert SPEC.scrape_interval_s == 5.0


def test_the_scaling_is_that_of_the_design():
    scaling = SPEC.scaling
    assert (scaling.min_replicas, scaling.max_replicas) == (1, 10)
    assert (scaling.formula, scaling.target, scaling.metric_type) == ("running + waiting * 10", 25.0, "AverageValue")
    assert scaling.up == Rules((Policy("Percent", 900, 15.0), Policy("Pods", 9, 15.0)), "Max", 0.0)
    assert scaling.down == Rules((Policy("Percent", 50, 60.0),), "Max", 300.0)
    assert scaling.fallback == Fallback(3, 1, "currentReplicasIfHigher")
    assert [(trigger.name, trigger.ignore_null) for trigger in scaling.triggers] == [
        ("running", False),
        ("waiting", False),
    ]


def test_the_queries_ask_for_what_vllm_exports():
    recorded = (Path(__file__).parents[1] / "inference" / "recorded" / "metrics-idle.txt").read_text()
    for trigger in SPEC.scaling.triggers:
        for name in promql.parse(trigger.query).names:
            assert f"\n{name}{{" in recorded
        assert f'model_name="{vllm.SERVED_MODEL_NAME}"' in trigger.query


def test_a_pods_end_fits_a_nodes_end_fits_a_spot_notice():
    grace_s = SPEC.node_pool.termination_grace_period_s
    assert grace_s is not None
    assert SPEC.pod.grace_period_s < grace_s < 120.0


def test_the_nodes_have_one_whole_gpu_each_and_no_more_than_the_pods_may_be():
    pool = SPEC.node_pool
    assert Requirement("karpenter.k8s.aws/instance-gpu-count", "In", ("1",)) in pool.requirements
    assert Requirement("karpenter.k8s.aws/instance-gpu-memory", "Gt", ("20000",)) in pool.requirements
    assert pool.limits == {"nvidia.com/gpu": SPEC.scaling.max_replicas}
    assert (pool.consolidation, pool.consolidate_after_s) == ("WhenEmpty", 60.0)


def test_the_pods_tolerate_the_nodes_and_the_pool_names_its_class():
    node = raw(POOL)["spec"]["template"]["spec"]
    tolerated = {item["key"] for item in raw(DEPLOYMENT)["spec"]["template"]["spec"]["tolerations"]}
    assert {taint["key"] for taint in node["taints"]} <= tolerated
    node_class = raw("karpenter-ec2nodeclass.yaml")
    assert node["nodeClassRef"] == {"group": "karpenter.k8s.aws", "kind": node_class["kind"], "name": "gpu"}
    assert node_class["metadata"]["name"] == "gpu"


def test_the_nodes_user_data_is_toml_with_the_settings_of_bottlerocket():
    settings = tomllib.loads(raw("karpenter-ec2nodeclass.yaml")["spec"]["userData"])["settings"]
    assert settings["container-runtime"] == {"snapshotter": "soci"}
    soci = settings["container-runtime-plugins"]["soci-snapshotter"]
    assert soci["pull-mode"] == "parallel-pull-unpack"
    known = {
        *("max-concurrent-downloads", "max-concurrent-downloads-per-image", "concurrent-download-chunk-size"),
        *("max-concurrent-unpacks", "max-concurrent-unpacks-per-image", "discard-unpacked-layers"),
    }
    assert soci["parallel-pull-unpack"].keys() <= known


def test_crowd_aware_adds_a_trigger_that_may_be_silent_and_changes_nothing_else():
    aware = manifests.load(CROWD_AWARE)
    *same, expected = aware.scaling.triggers
    assert tuple(same) == SPEC.scaling.triggers
    assert (expected.name, expected.ignore_null) == ("expected", True)
    assert promql.parse(expected.query).names == {"crowdspike_expected_requests"}
    assert aware.scaling.formula == "running + waiting * 10 + expected * 2"
    assert (aware.pod, aware.node_pool) == (SPEC.pod, SPEC.node_pool)


@pytest.mark.parametrize(
    ("file", "old", "new", "read", "value"),
    [
        (SCALED, "maxReplicaCount: 10", "maxReplicaCount: 4", lambda s: s.scaling.max_replicas, 4),
        (SCALED, "minReplicaCount: 1", "minReplicaCount: 0", lambda s: s.scaling.min_replicas, 0),
        (SCALED, 'target: "25"', 'target: "12"', lambda s: s.scaling.target, 12.0),
        (SCALED, "waiting * 10", "waiting * 3", lambda s: s.scaling.formula, "running + waiting * 3"),
        (SCALED, "value: 900", "value: 100", lambda s: s.scaling.up.policies[0].value, 100),
        (SCALED, "value: 9,", "value: 2,", lambda s: s.scaling.up.policies[1].value, 2),
        (SCALED, "periodSeconds: 60", "periodSeconds: 30", lambda s: s.scaling.down.policies[0].period_s, 30.0),
        (SCALED, "Seconds: 300", "Seconds: 60", lambda s: s.scaling.down.stabilization_s, 60.0),
        (SCALED, "Policy: Max", "Policy: Min", lambda s: s.scaling.up.select, "Min"),
        (SCALED, "failureThreshold: 3", "failureThreshold: 9", lambda s: s.scaling.fallback.failure_threshold, 9),
        (SCALED, "spec:", "spec:\n  cooldownPeriod: 60", lambda s: s.scaling.cooldown_s, 60.0),
        (SCALED, "spec:", "spec:\n  pollingInterval: 5", lambda s: s.scaling.polling_interval_s, 5.0),
        (SCALED, 'Values: "false"', 'Values: "true"', lambda s: s.scaling.triggers[0].ignore_null, True),
        (MONITOR, "interval: 5s", "interval: 1m30s", lambda s: s.scrape_interval_s, 90.0),
        (DEPLOYMENT, 'cpu: "3"', "cpu: 3500m", lambda s: s.pod.cpu, 3.5),
        (DEPLOYMENT, "memory: 12Gi", "memory: 2048Mi", lambda s: s.pod.memory_gib, 2.0),
        (DEPLOYMENT, "memory: 12Gi", "memory: 13e9", lambda s: round(s.pod.memory_gib, 2), 12.11),
        (DEPLOYMENT, "PeriodSeconds: 90", "PeriodSeconds: 60", lambda s: s.pod.grace_period_s, 60.0),
        (DEPLOYMENT, "seconds: 15", "seconds: 5", lambda s: s.pod.pre_stop_s, 5.0),
        (POOL, "[g5, g6, g6e]", "[g6]", lambda s: s.node_pool.requirements[1].values, ("g6",)),
        (POOL, 'gpu: "10"', 'gpu: "3"', lambda s: s.node_pool.limits["nvidia.com/gpu"], 3.0),
        (POOL, "consolidateAfter: 1m", "consolidateAfter: Never", lambda s: s.node_pool.consolidate_after_s, None),
        (POOL, "Period: 110s", "Period: 2m", lambda s: s.node_pool.termination_grace_period_s, 120.0),
    ],
)
def test_a_changed_number_is_a_changed_cluster(
    tmp_path: Path, file: str, old: str, new: str, read: Callable[[ClusterSpec], Any], value: Any
):
    changed = manifests.load(edited(tmp_path, file, old, new))
    assert read(SPEC) != value
    assert read(changed) == value


@pytest.mark.parametrize(
    ("file", "old", "new", "field", "words"),
    [
        (SCALED, "maxReplicaCount: 10", 'maxReplicaCount: "10"', "spec.maxReplicaCount", "a whole number is wanted"),
        (SCALED, "maxReplicaCount: 10", "maxReplicaCount: 0", "spec.maxReplicaCount", "out of range"),
        (SCALED, "minReplicaCount: 1", "minReplicaCount: 11", "spec.minReplicaCount", "more than maxReplicaCount, 10"),
        (SCALED, "spec:", "spec:\n  poolingInterval: 5", "spec.poolingInterval", "did you mean pollingInterval?"),
        (SCALED, 'target: "25"', "target: 25", "spec.advanced.scalingModifiers.target", "put it in quotes"),
        (SCALED, 'target: "25"', 'target: "many"', "spec.advanced.scalingModifiers.target", "not a number"),
        (SCALED, 'target: "25"', 'target: "25.0"', "spec.advanced.scalingModifiers.target", '"25" works'),
        (SCALED, 'target: "25"', 'target: "0"', "spec.advanced.scalingModifiers.target", "more than 0"),
        (SCALED, "running + waiting * 10", "1 + 1", "spec.advanced.scalingModifiers.formula", "names no trigger"),
        (SCALED, "running + w", "runing + w", "spec.advanced.scalingModifiers.formula", "runing is no trigger"),
        (SCALED, "waiting * 10", "waiting *", "spec.advanced.scalingModifiers.formula", "column 20: the formula ends"),
        (SCALED, "IfHigher", "IfBigger", "spec.fallback.behavior", "currentReplicasIfLower is wanted"),
        (SCALED, "    replicas: 1\n", "", "spec.fallback", "replicas is missing"),
        (SCALED, "metricType: Average", "metricType: Mean", "scalingModifiers.metricType", "AverageValue, Value is"),
        (SCALED, "type: Percent", "type: Share", "behavior.scaleUp.policies[0].type", "Pods, Percent is wanted"),
        (SCALED, "periodSeconds: 15", "periodSeconds: 3600", "behavior.scaleUp.policies[0].periodSeconds", "1800"),
        (SCALED, "Policy: Max", "Policy: Most", "behavior.scaleUp.selectPolicy", "Max, Min, Disabled"),
        (SCALED, "name: waiting", "name: running", "spec.triggers[1].name", "comes twice"),
        (SCALED, "      name: running\n", "", "spec.triggers[0]", "name is missing"),
        (SCALED, "type: prometheus", "type: cron", "spec.triggers[0].type", "'cron' is not known"),
        (SCALED, 'Values: "false"', "Values: false", "spec.triggers[0].metadata.ignoreNullValues", "put it in quotes"),
        (SCALED, 'threshold: "25"', 'treshold: "25"', "spec.triggers[0].metadata.treshold", "did you mean threshold?"),
        (SCALED, "query: sum(", "query: rate(", "spec.triggers[0].metadata.query", "rate() is not known"),
        (
            SCALED,
            "Ref:\n    name: vllm",
            "Ref:\n    name: llama",
            "spec.scaleTargetRef.name",
            "the Deployment is 'vllm'",
        ),
        (MONITOR, "interval: 5s", "interval: 5 seconds", "podMetricsEndpoints[0].interval", "is not a duration"),
        (MONITOR, "port: http", "port: metrics", "podMetricsEndpoints[0].port", "theirs is 'http'"),
        (MONITOR, "Labels:\n      app.kubernetes.io/name: vllm", "Labels:\n      app: x", "matchLabels.app", "no pod"),
        (DEPLOYMENT, "memory: 12Gi", "memory: 12GB", "resources.requests.memory", "is not a quantity"),
        (DEPLOYMENT, 'nvidia.com/gpu: "1"', 'nvidia.com/gpu: "0"', "nvidia.com/gpu", "whole GPUs"),
        (DEPLOYMENT, '- "4096"', "- 4096", "args[14]", "put it in quotes"),
        (DEPLOYMENT, "sleep: {seconds: 15}", "exec: {command: [sleep]}", "lifecycle.preStop.exec", "only `sleep"),
        (POOL, "operator: In", "operator: Is", "requirements[0].operator", "'Is' is not known"),
        (POOL, 'values: ["20000"]', "values: []", "requirements[3].values", "one whole number"),
        (POOL, "values: [amd64]", "values: []", "requirements[0].values", "at least one value"),
        (POOL, "consolidateAfter: 1m", "consolidateAfter: soon", "disruption.consolidateAfter", "is not a duration"),
        (POOL, "Policy: WhenEmpty", "Policy: Always", "disruption.consolidationPolicy", "WhenEmpty"),
        (POOL, "spec:\n  template", "spec:\n  expireAfter: 1h\n  template", "spec.expireAfter", "spec.template.spec"),
    ],
)
def test_a_mistake_has_its_file_line_field_and_remedy(
    tmp_path: Path, file: str, old: str, new: str, field: str, words: str
):
    folder = edited(tmp_path, file, old, new)
    with pytest.raises(ManifestError) as found:
        manifests.load(folder)
    error = found.value
    assert Path(error.file).name == file
    assert error.field.endswith(field)
    assert words in error.message
    assert str(error).startswith(f"{error.file}:{error.line}: {error.field}: ")
    if field not in ("spec.fallback", "spec.triggers[0]"):  # the group that lacks something, or contradicts the change
        assert error.line == first_difference(BASE / file, folder / file)


@pytest.mark.parametrize("file", [SCALED, POOL, DEPLOYMENT, MONITOR])
def test_each_of_the_four_objects_must_be_there(tmp_path: Path, file: str):
    folder = edited(tmp_path, "kustomization.yaml", f"  - {file}\n", "")
    with pytest.raises(ManifestError, match="one is wanted"):
        manifests.load(folder)


def test_without_a_behavior_the_hpas_defaults_hold(tmp_path: Path):
    folder = edited(tmp_path, SCALED, "", "")
    path = folder / SCALED
    manifest = yaml.safe_load(path.read_text())
    del manifest["spec"]["advanced"]["horizontalPodAutoscalerConfig"]
    path.write_text(yaml.safe_dump(manifest))
    scaling = manifests.load(folder).scaling
    assert scaling.up == Rules((Policy("Percent", 100, 15.0), Policy("Pods", 4, 15.0)), "Max", 0.0)
    assert scaling.down == Rules((Policy("Percent", 100, 15.0),), "Max", 300.0)


def test_without_a_formula_the_triggers_stand_alone(tmp_path: Path):
    folder = edited(tmp_path, SCALED, "", "")
    path = folder / SCALED
    manifest = yaml.safe_load(path.read_text())
    del manifest["spec"]["advanced"]["scalingModifiers"]
    manifest["spec"]["triggers"][0]["metadata"]["threshold"] = "30"
    path.write_text(yaml.safe_dump(manifest))
    scaling = manifests.load(folder).scaling
    assert (scaling.formula, scaling.target) == ("", 30.0)
    assert [trigger.threshold for trigger in scaling.triggers] == [30.0, 25.0]
