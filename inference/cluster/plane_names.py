"""Names like those that Kubernetes and EC2 make, from a seed."""

from __future__ import annotations

import random

SAFE = "bcdfghjklmnpqrstvwxz2456789"
"""The letters of k8s.io/apimachinery/pkg/util/rand: no vowels, so no words."""


class Names:
    """Names of one Deployment's pods and of nodes; none comes twice."""

    def __init__(self, seed: int, deployment: str = "vllm") -> None:
        self._rng = random.Random(f"names {seed}")
        self._given: set[str] = set()
        self._replica_set = f"{deployment}-{self._letters(10)}"

    def pod(self) -> str:
        return self._new(lambda: f"{self._replica_set}-{self._letters(5)}")

    def node(self) -> str:
        octet = self._rng.randrange
        return self._new(lambda: f"ip-10-0-{octet(256)}-{octet(4, 255)}.ec2.internal")

    def _letters(self, count: int) -> str:
        return "".join(self._rng.choice(SAFE) for _ in range(count))

    def _new(self, make) -> str:
        while (name := make()) in self._given:
            pass
        self._given.add(name)
        return name


def short(name: str) -> str:
    """A pod's or node's name for a sentence: `vllm-…-k2x9p`, `ip-10-0-3-7`."""
    first, *_, last = name.split(".")[0].split("-")
    return name.split(".")[0] if first == "ip" else f"{first}-…-{last}"
