"""What `kustomize build` makes of a folder, for the part of kustomize that our manifests use.

`resources` (files and folders), `namespace`, and `patches` (JSON 6902 lists and merge patches, inline or in a file, by
target kind and name). Anything else is an error rather than a difference from what the cluster gets.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from inference.cluster.fields import ManifestError, Place

NAMES = ("kustomization.yaml", "kustomization.yml", "Kustomization")
KNOWN = ("apiVersion", "kind", "metadata", "resources", "namespace", "patches")
CLUSTER_WIDE = frozenset(("Namespace", "NodePool", "EC2NodeClass", "ClusterRole", "ClusterRoleBinding"))
MAX_FOLDERS = 20
NULL = "tag:yaml.org,2002:null"


@dataclass(frozen=True, slots=True)
class Document:
    """One object. Its nodes know the file and the line that they come from."""

    file: Path
    node: yaml.MappingNode

    @property
    def top(self) -> Place:
        return Place(self.node)

    @property
    def kind(self) -> str:
        return self.top.need("kind", "the kind of object").text()

    @property
    def name(self) -> str:
        return self.top.need("metadata.name", "a name").text()


def build(folder: Path) -> list[Document]:
    """The objects of a kustomization, in its order, patched. Raises ManifestError."""
    return _build(folder, ())


def read(file: Path) -> list[Document]:
    """The objects in a file. Raises ManifestError for what is no YAML or no object."""
    documents = []
    for node in _nodes(file):
        document = Document(file, _mapping(Place(node)))
        assert document.kind and document.name, "both raise where they are missing"
        documents.append(document)
    return documents


def _build(folder: Path, within: tuple[Path, ...]) -> list[Document]:
    if folder.resolve() in within or len(within) >= MAX_FOLDERS:
        raise ManifestError(str(folder), 0, "resources", "a folder that leads back to itself")
    top = _kustomization(folder)
    top.only(KNOWN)
    documents: list[Document] = []
    for resource in _items(top, "resources"):
        path = folder / resource.text()
        if path.is_dir():
            found = _build(path, (*within, folder.resolve()))
        elif path.is_file():
            found = read(path)
        else:
            raise resource.wrong(f"{resource.text()!r} is not there; a file or folder beside this one is wanted")
        for document in found:
            if any((document.kind, document.name) == (other.kind, other.name) for other in documents):
                raise document.top.wrong(f"{document.kind} {document.name!r} comes twice")
            documents.append(document)
    for patch in _items(top, "patches"):
        _patch(documents, patch, folder)
    if namespace := top.get("namespace"):
        namespace.text()
        for document in documents:
            if document.kind not in CLUSTER_WIDE:
                _set(_mapping(document.top.need("metadata", "a name")), "namespace", namespace.node)
    return documents


def _kustomization(folder: Path) -> Place:
    for name in NAMES:
        if (folder / name).is_file():
            nodes = _nodes(folder / name)
            if len(nodes) != 1:
                raise ManifestError(str(folder / name), 0, "", "one document is wanted, with `resources:`")
            return Place(nodes[0])
    raise ManifestError(str(folder), 0, "", f"has no {NAMES[0]}; give a folder made for kustomize")


def _nodes(file: Path) -> list[yaml.Node]:
    try:
        return _compose(file.read_text(encoding="utf-8"), str(file))
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(str(file), 0, "", f"can't be read: {error}") from None


def _compose(text: str, name: str) -> list[yaml.Node]:
    try:
        loader = yaml.SafeLoader(text)
        loader.name = name  # nodes take their file from here
        found = []
        while loader.check_node():
            if (node := loader.get_node()) is not None and node.tag != NULL:
                found.append(node)
        return found
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise ManifestError(name, line, "", f"not YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise ManifestError(name, 0, "", f"not YAML: {error}") from None


def _items(top: Place, key: str) -> list[Place]:
    place = top.get(key)
    return place.items() if place else []


def _patch(documents: list[Document], patch: Place, folder: Path) -> None:
    patch.only(("path", "patch", "target"))
    path, inline = patch.get("path"), patch.get("patch")
    if (path is None) == (inline is None):
        raise patch.wrong("either `path` or `patch` is wanted")
    if path is not None:
        if not (folder / path.text()).is_file():
            raise path.wrong(f"{path.text()!r} is not there; a file beside this one is wanted")
        nodes = _nodes(folder / path.text())
    else:
        assert inline is not None
        nodes = _inline(inline)
    for node in nodes:
        content = Place(node)
        chosen = list(_targets(documents, patch, content))
        if not chosen:
            raise patch.wrong("matches no object; give `target` with the kind and name of one in resources")
        for document in chosen:
            if isinstance(node, yaml.SequenceNode):
                for operation in content.items():
                    _operate(document, operation)
            else:
                _merge(document, document.node, copy.deepcopy(content), top=True)


def _inline(patch: Place) -> list[yaml.Node]:
    """The text of a block begins on the line after its key, so that lines can be counted on."""
    mark = patch.node.start_mark
    block = isinstance(patch.node, yaml.ScalarNode) and patch.node.style in ("|", ">")
    return _compose("\n" * (mark.line + block) + patch.text(), mark.name)


def _targets(documents: list[Document], patch: Place, content: Place) -> Iterator[Document]:
    target = patch.get("target")
    if target is not None:
        target.only(("kind", "name"))
        kind, name = target.get("kind"), target.get("name")
    elif isinstance(content.node, yaml.MappingNode):
        kind, name = content.need("kind", "the kind to patch"), content.need("metadata.name", "the name to patch")
    else:
        raise patch.wrong("target is missing; a list of operations needs the kind and name that it is for")
    for document in documents:
        if (kind is None or kind.text() == document.kind) and (name is None or name.text() == document.name):
            yield document


def _operate(document: Document, operation: Place) -> None:
    """One operation of RFC 6902 on the nodes of `document`."""
    operation.only(("op", "path", "value"))
    what = operation.need("op", "add, replace, remove or test").one_of(("add", "replace", "remove", "test"))
    path = operation.need("path", "where, such as /spec/maxReplicaCount")
    steps = [step.replace("~1", "/").replace("~0", "~") for step in path.text().split("/")]
    if len(steps) < 2 or steps[0]:
        raise path.wrong(f"{path.text()!r} is not a path; for instance /spec/maxReplicaCount is wanted")
    given = operation.entries().get("value")
    value = copy.deepcopy(given.node) if given else None
    if value is None and what != "remove":
        raise operation.wrong(f"value is missing; give what to {what}")
    parent: yaml.Node = document.node
    for step in steps[1:-1]:
        parent = _child(parent, step, path)
    last = steps[-1]
    if what in ("replace", "remove", "test"):
        there = _child(parent, last, path)
        if what == "test" and yaml.serialize(there) != yaml.serialize(value):
            raise operation.wrong(f"test failed: {path.text()} has another value")
    if what == "test":
        return
    if isinstance(parent, yaml.MappingNode):
        _set(parent, last, value if what != "remove" else None)
    elif isinstance(parent, yaml.SequenceNode):
        _set_item(parent, last, what, value, path)
    else:
        raise path.wrong(f"{path.text()} leads into a single value")


def _child(node: yaml.Node, step: str, path: Place) -> yaml.Node:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == step:
                return value
    if isinstance(node, yaml.SequenceNode) and step.isdecimal() and int(step) < len(node.value):
        return node.value[int(step)]
    raise path.wrong(f"{path.text()} leads nowhere: there is no {step!r}")


def _set(mapping: yaml.MappingNode, key: str, value: yaml.Node | None) -> None:
    """Put `value` at `key`, or take the key out with None."""
    for index, (there, _) in enumerate(mapping.value):
        if there.value == key:
            mapping.value[index : index + 1] = [] if value is None else [(there, value)]
            return
    if value is not None:
        mark = value.start_mark
        mapping.value.append((yaml.ScalarNode("tag:yaml.org,2002:str", key, mark, mark), value))


def _set_item(parent: yaml.SequenceNode, step: str, what: str, value: yaml.Node | None, path: Place) -> None:
    if what == "remove":
        del parent.value[int(step)]
    elif what == "replace":
        parent.value[int(step)] = value
    elif step == "-":
        parent.value.append(value)
    elif step.isdecimal() and int(step) <= len(parent.value):
        parent.value.insert(int(step), value)
    else:
        raise path.wrong(f"{path.text()} leads nowhere: {step!r} is no place in a list of {len(parent.value)}")


def _merge(document: Document, mapping: yaml.MappingNode, patch: Place, top: bool = False) -> None:
    """A merge patch: groups of keys merge, `null` takes a key out, all else takes the place of what is there."""
    there = {key.value: value for key, value in mapping.value}
    for key, inner in patch.entries().items():
        node, old = inner.node, there.get(key)
        if top and key in ("apiVersion", "kind"):
            continue
        if isinstance(node, yaml.MappingNode) and isinstance(old, yaml.MappingNode):
            _merge(document, old, inner)
        elif isinstance(node, yaml.SequenceNode) and _core(document):
            raise inner.wrong("is a list of a core object, which kustomize merges by name; give a list of operations")
        else:
            _set(mapping, key, None if node.tag == NULL else node)


def _core(document: Document) -> bool:
    """Whether kustomize knows the type's schema, and so merges its lists item by item."""
    group = document.top.need("apiVersion", "the API's version").text().rpartition("/")[0]
    return "." not in group or group.endswith(".k8s.io")


def _mapping(place: Place) -> yaml.MappingNode:
    place.entries()
    assert isinstance(place.node, yaml.MappingNode)
    return place.node
