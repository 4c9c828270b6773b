"""The files that a run's pods need, as a ConfigMap holds them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from loadgen.spike.kubernetes.cluster import Cluster, Manifest, metadata
from loadgen.spike.plan import BadPlan

MAX_BYTES = 1 << 20
"""Of a ConfigMap's data: https://kubernetes.io/docs/concepts/configuration/configmap/"""
PLAN = "plan.json"
ROOT = Path(__file__).parents[3]
SCRIPTS = ROOT / "loadgen" / "k6"
LOCUSTFILES = ROOT / "loadgen" / "locustfiles"
_LIB_IMPORT = re.compile(r"""(from\s+['"]\./)lib/""")


def scripts(name: str) -> dict[str, str]:
    """A k6 script and its library by file name, all in one folder: the k6-operator mounts one ConfigMap, whose keys
    can't have a slash, and gives its initializer no other volume. So an import of `./lib/x.js` becomes one of `./x.js`.
    """
    found = {path.name: path.read_text(encoding="utf-8") for path in sorted((SCRIPTS / "lib").glob("*.js"))}
    assert name not in found
    return {name: _LIB_IMPORT.sub(r"\1", (SCRIPTS / name).read_text(encoding="utf-8")), **found}


def locustfile(name: str) -> dict[str, str]:
    """A Locust file and all modules of this program that it imports, by their path below the root."""
    paths = sorted(_closure(LOCUSTFILES / name))
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def configmap(name: str, cluster: Cluster, files: Mapping[str, str]) -> Manifest:
    """Raises BadPlan when they are too large for one."""
    size = sum(len(key) + len(text.encode()) for key, text in files.items())
    if size > MAX_BYTES:
        raise BadPlan(
            f"The plan and its scripts are {size / 1e6:.1f} MB, and a ConfigMap holds {MAX_BYTES / 1e6:.1f} MB: "
            "give shorter --prompt-tokens."
        )
    data = {key_of(path): text for path, text in files.items()}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata(name, cluster), "data": data}


def items(files: Mapping[str, str]) -> list[dict[str, str]]:
    """Of a volume: which key of the ConfigMap goes to which path."""
    return [{"key": key_of(path), "path": path} for path in files]


def key_of(path: str) -> str:
    return path.replace("/", "__")


def _closure(path: Path) -> set[Path]:
    found: set[Path] = set()
    left = [path]
    while left:
        one = left.pop()
        if one not in found:
            found.add(one)
            left += _imported(one)
    return found


def _imported(path: Path) -> Iterator[Path]:
    """The packages that it is in, and what it names. This program imports by whole names alone, at the top."""
    yield from (init for folder in path.parents if (init := folder / "__init__.py").exists() and ROOT in folder.parents)
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        match node:
            case ast.Import(names=names):
                modules = [alias.name for alias in names]
            case ast.ImportFrom(module=str(module), names=names):
                modules = [module, *(f"{module}.{alias.name}" for alias in names)]
            case _:
                continue
        for module in modules:
            place = ROOT.joinpath(*module.split("."))
            yield from (one for one in (place.with_suffix(".py"), place / "__init__.py") if one.is_file())
