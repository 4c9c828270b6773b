"""Our part of kustomize: the same objects as `kubectl kustomize` gives, with the line that each came from."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from textwrap import dedent

import pytest
import yaml

from inference.cluster import manifests
from inference.cluster.fields import ManifestError
from inference.cluster.kustomize import Document, build

CROWD_AWARE = manifests.defaults().parent / "overlays" / "crowd-aware"
CONFIG = """
    apiVersion: v1
    kind: ConfigMap
    metadata:
      name: one
    data:
      a: "1"
      b/c: "2"
"""
CUSTOM = """
    apiVersion: example.com/v1
    kind: Thing
    metadata:
      name: thing
    spec:
      size: 1
      colour: red
      items: [a, b]
      empty: {}
"""


def write(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(dedent(text))
    return folder


def data(document: Document) -> dict:
    """The object without line numbers; `safe_load` of what its nodes are written as."""
    return yaml.safe_load(yaml.serialize(document.node))


def by_kind(documents: list[Document]) -> dict[str, dict]:
    return {document.kind: data(document) for document in documents}


def patched(tmp_path: Path, patches: str) -> dict[str, dict]:
    files = {"config": CONFIG, "custom": CUSTOM}
    text = "resources: [config.yaml, custom.yaml]\npatches:\n" + dedent(patches)
    folder = write(tmp_path, **files)
    (folder / "kustomization.yaml").write_text(text)
    return by_kind(build(folder))


def error(folder: Path) -> ManifestError:
    with pytest.raises(ManifestError) as found:
        build(folder)
    return found.value


def overlay_of_ours(folder: Path) -> Path:
    """The one that infra/README.md shows, on a copy of the base."""
    shutil.copytree(manifests.defaults(), folder / "base")
    readme = (manifests.defaults().parents[1] / "README.md").read_text()
    text = readme.split("```yaml\n")[1].split("```")[0].replace("../../base", "../base")
    (folder / "ours").mkdir()
    (folder / "ours" / "kustomization.yaml").write_text(text)
    return folder / "ours"


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl for its own kustomize")
@pytest.mark.parametrize("which", ["base", "crowd-aware", "readme"])
def test_it_builds_what_kubectl_builds(tmp_path: Path, which: str):
    ours_at = {"base": manifests.defaults(), "crowd-aware": CROWD_AWARE}
    folder = ours_at[which] if which in ours_at else overlay_of_ours(tmp_path)
    command = ["kubectl", "kustomize", "--load-restrictor=LoadRestrictionsNone", str(folder)]
    theirs = subprocess.run(command, capture_output=True, check=True, text=True, timeout=60).stdout
    wanted = {(found["kind"], found["metadata"]["name"]): found for found in yaml.safe_load_all(theirs)}
    for found in wanted.values():
        if found["kind"] in ("NodePool", "EC2NodeClass"):  # they have none, which only the API server knows
            found["metadata"].pop("namespace", None)
        for subject in found.get("subjects", ()):  # who may do what is nothing to the local cluster
            subject.pop("namespace", None)
    assert {(found.kind, found.name): data(found) for found in build(folder)} == wanted


def test_the_readmes_overlay_reaches_the_objects(tmp_path: Path):
    found = by_kind(build(overlay_of_ours(tmp_path)))
    arguments = found["Deployment"]["spec"]["template"]["spec"]["containers"][0]["args"]
    assert arguments[0] == "s3://my-bucket/models/mistral-7b-instruct-awq"
    assert found["EC2NodeClass"]["spec"]["role"] == "my-node-role"
    assert found["EC2NodeClass"]["spec"]["instanceStorePolicy"] == "RAID0"
    assert found["ScaledObject"]["metadata"]["namespace"] == "crowdspike"
    assert "namespace" not in found["NodePool"]["metadata"]


def test_each_operation_of_rfc_6902_does_its_part(tmp_path: Path):
    found = patched(
        tmp_path,
        """
        - target: {kind: Thing, name: thing}
          patch: |
            - {op: test, path: /spec/colour, value: red}
            - {op: replace, path: /spec/size, value: 2}
            - {op: remove, path: /spec/colour}
            - {op: add, path: /spec/shape, value: {round: true}}
            - {op: add, path: /spec/items/-, value: last}
            - {op: add, path: /spec/items/0, value: first}
            - {op: remove, path: /spec/items/1}
            - {op: replace, path: /spec/items/1, value: middle}
        - target: {kind: ConfigMap}
          patch: '[{op: replace, path: /data/b~1c, value: "3"}]'
        """,
    )
    assert found["Thing"]["spec"] == {
        "size": 2,
        "items": ["first", "middle", "last"],
        "empty": {},
        "shape": {"round": True},
    }
    assert found["ConfigMap"]["data"] == {"a": "1", "b/c": "3"}


def test_a_merge_patch_merges_groups_replaces_the_rest_and_null_takes_out(tmp_path: Path):
    found = patched(
        tmp_path,
        """
        - patch: |
            apiVersion: example.com/v1
            kind: Thing
            metadata:
              name: thing
            spec:
              size: 3
              colour: null
              items: [c]
              empty: {now: full}
        """,
    )
    assert found["Thing"]["spec"] == {"size": 3, "items": ["c"], "empty": {"now": "full"}}


def test_a_patched_field_knows_the_file_and_line_of_its_patch(tmp_path: Path):
    write(tmp_path, config=CONFIG, custom=CUSTOM, change="- op: replace\n  path: /spec/size\n  value: 9\n")
    (tmp_path / "kustomization.yaml").write_text(
        "resources: [custom.yaml]\npatches:\n"
        "  - path: change.yaml\n    target: {kind: Thing}\n"
        "  - target: {kind: Thing}\n    patch: |\n"
        "      - op: replace\n        path: /spec/colour\n        value: blue\n"
    )
    (thing,) = build(tmp_path)
    places = {name: thing.top.need(f"spec.{name}", "it").node.start_mark for name in ("size", "colour", "items")}
    seen = {name: (Path(mark.name).name, mark.line + 1) for name, mark in places.items()}
    assert seen == {"size": ("change.yaml", 3), "colour": ("kustomization.yaml", 9), "items": ("custom.yaml", 9)}


def test_folders_are_built_first_and_patched_by_whoever_names_them(tmp_path: Path):
    write(tmp_path / "base", kustomization="resources: [custom.yaml]\nnamespace: low", custom=CUSTOM)
    write(
        tmp_path / "over",
        kustomization="""
            resources: [../base]
            namespace: high
            patches:
              - target: {kind: Thing}
                patch: '[{op: replace, path: /spec/size, value: 5}]'
        """,
    )
    (thing,) = build(tmp_path / "over")
    assert data(thing)["spec"]["size"] == 5
    assert data(thing)["metadata"]["namespace"] == "high"
    (untouched,) = build(tmp_path / "base")
    assert data(untouched)["spec"]["size"] == 1


@pytest.mark.parametrize(
    ("kustomization", "line", "words"),
    [
        ("resources: [custom.yaml]\nimages: []", 2, "images: is not known here"),
        ("resource: [custom.yaml]", 1, "did you mean resources?"),
        ("resources: [none.yaml]", 1, "is not there"),
        ("resources: custom.yaml", 1, "a list is wanted"),
        ("resources: [custom.yaml, custom.yaml]", 2, "comes twice"),
        ("resources: [.]", 0, "leads back to itself"),
        ("resources: [custom.yaml]\npatches: [{path: none.yaml}]", 2, "is not there"),
        ("resources: [custom.yaml]\npatches: [{target: {kind: Thing}}]", 2, "either `path` or `patch`"),
        ("resources: [custom.yaml]\npatches: [{patch: '[{op: remove, path: /spec}]'}]", 2, "target is missing"),
        ("resources: [custom.yaml]\npatches: [{patch: '[]', target: {kind: Other}}]", 2, "matches no object"),
        ("resources: [custom.yaml]\npatches: [{patch: '[]', target: {label: x}}]", 2, "label: is not known"),
        ("resources: [custom.yaml\n", 2, "not YAML"),
        ("", 0, "one document is wanted"),
    ],
)
def test_what_is_outside_of_our_part_is_an_error_with_its_line(
    tmp_path: Path, kustomization: str, line: int, words: str
):
    write(tmp_path, custom=CUSTOM)
    (tmp_path / "kustomization.yaml").write_text(kustomization)
    found = error(tmp_path)
    assert words in str(found)
    assert found.line == line


@pytest.mark.parametrize(
    ("operation", "words"),
    [
        ("{op: move, path: /spec/size}", "'move' is not known"),
        ("{op: replace, path: /spec/weight, value: 1}", "there is no 'weight'"),
        ("{op: add, path: /spec/none/deep, value: 1}", "there is no 'none'"),
        ("{op: remove, path: /spec/items/2}", "there is no '2'"),
        ("{op: add, path: /spec/items/7, value: 1}", "no place in a list of 2"),
        ("{op: add, path: /spec/size/deep, value: 1}", "single value"),
        ("{op: add, path: /spec/size}", "value is missing"),
        ("{op: add, path: spec, value: 1}", "is not a path"),
        ("{op: test, path: /spec/size, value: 2}", "test failed"),
        ("{path: /spec/size}", "op is missing"),
    ],
)
def test_an_operation_that_can_not_be_done_is_an_error(tmp_path: Path, operation: str, words: str):
    with pytest.raises(ManifestError) as found:
        patched(tmp_path, f"- target: {{kind: Thing}}\n  patch: '[{operation}]'\n")
    assert words in str(found.value)
    assert found.value.line == 4


def test_a_list_of_a_core_object_is_not_merged_otherwise_than_kustomize_would(tmp_path: Path):
    shutil.copytree(manifests.defaults(), tmp_path / "base")
    write(
        tmp_path / "over",
        kustomization="""
            resources: [../base]
            patches:
              - patch: |
                  apiVersion: apps/v1
                  kind: Deployment
                  metadata: {name: vllm}
                  spec: {template: {spec: {containers: [{name: vllm, image: other}]}}}
        """,
    )
    found = error(tmp_path / "over")
    assert "merges by name" in str(found)
    assert found.field == "spec.template.spec.containers"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- 1", "a group of keys is wanted"),
        ("kind: Thing", "metadata"),
        ("metadata: {name: x}", "kind is missing"),
        ("kind: Thing\nkind: Other\nmetadata: {name: x}", "'kind' comes twice"),
        ("a: b: c", "not YAML"),
        ("a: \x07", "not YAML"),
    ],
)
def test_a_file_that_is_no_object_is_an_error(tmp_path: Path, text: str, words: str):
    write(tmp_path, kustomization="resources: [thing.yaml]")
    (tmp_path / "thing.yaml").write_text(text)
    found = error(tmp_path)
    assert words in str(found)
    assert found.file.endswith("thing.yaml")


def test_a_folder_without_a_kustomization_says_so(tmp_path: Path):
    assert "has no kustomization.yaml" in str(error(tmp_path))
    assert "has no kustomization.yaml" in str(error(tmp_path / "nowhere"))
