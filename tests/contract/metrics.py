"""Reads `/metrics`: what is exported in which form, and what it says now."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

Labels = frozenset[tuple[str, str]]
INFO = "vllm:cache_config_info"  # its label values describe the machine
_SAMPLE = re.compile(r"^(?P<name>[\w:]+)(?:\{(?P<labels>.*)\})? (?P<value>\S+)$")
_LABEL = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True, slots=True)
class Form:
    """A family's type and its samples: buckets too, as they are samples with a label `le`."""

    type: str
    samples: frozenset[tuple[str, Labels]]


def forms(text: str) -> dict[str, Form]:
    """The form of each `vllm:` family."""
    types: dict[str, str] = {}
    samples: defaultdict[str, set[tuple[str, Labels]]] = defaultdict(set)
    family = ""
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, family, types[family] = line.split()
        elif found := _SAMPLE.match(line):
            labels = _LABEL.findall(found["labels"] or "")
            samples[family].add((found["name"], frozenset((k, "" if family == INFO else v) for k, v in labels)))
    return {name: Form(types[name], frozenset(samples[name])) for name in types if name.startswith("vllm:")}


def values(text: str) -> Mapping[str, float]:
    """The figures of `vllm:` samples other than buckets, by name, and by name and reason where there is one."""
    found: defaultdict[str, float] = defaultdict(float)
    for sample in map(_SAMPLE.match, text.splitlines()):
        if sample and sample["name"].startswith("vllm:") and not sample["name"].endswith(("_bucket", "_created")):
            name = sample["name"].removeprefix("vllm:")
            labels = dict(_LABEL.findall(sample["labels"] or ""))
            found[name] += float(sample["value"])
            for label in ("reason", "finished_reason", "source"):
                if label in labels:
                    found[f"{name} {labels[label]}"] += float(sample["value"])
    return found
