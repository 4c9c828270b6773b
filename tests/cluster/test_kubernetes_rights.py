"""The rights that the manifests give are those that the program uses, and no more."""

from __future__ import annotations

from pathlib import Path

import yaml

INFRA = Path(__file__).parents[2] / "infra/kustomize"


def rules(path: str) -> dict[str, set[str]]:
    """By `resource.group`, over the roles of a file."""
    found: dict[str, set[str]] = {}
    for document in yaml.safe_load_all((INFRA / path).read_text()):
        for rule in document.get("rules", ()):
            for group in rule["apiGroups"]:
                for resource in rule["resources"]:
                    found[f"{resource}.{group}".rstrip(".")] = set(rule["verbs"])
    return found


def test_view_may_read_what_it_watches_and_change_nothing() -> None:
    read = {"get", "list", "watch"}
    assert rules("base/crowdspike-rbac.yaml") == {
        "pods": read,
        "events": read,
        "nodes": read,
        "nodeclaims.karpenter.sh": read,
        "horizontalpodautoscalers.autoscaling": read,
        "scaledobjects.keda.sh": read,
    }


def test_operator_may_do_what_the_console_offers() -> None:
    assert rules("components/operator/operator-rbac.yaml") == {"scaledobjects.keda.sh": {"patch"}, "pods": {"delete"}}
