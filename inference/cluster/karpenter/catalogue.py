"""What can be bought: instance types, what of them is left for pods, and what they cost in each zone.

Read from prices.yaml, which says where each figure comes from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from inference.cluster.spec import PodSpec

FILE = Path(__file__).parent / "prices.yaml"
CapacityType = Literal["spot", "on-demand"]
ROUNDING = 1e-9


class CatalogueError(ValueError):
    """A price table that can't be used; says which type and field."""


@dataclass(frozen=True, slots=True)
class InstanceType:
    """`cpu` (cores) and `memory_gib` are what pods may use of `vcpu` and `capacity_gib`."""

    name: str
    vcpu: int
    capacity_gib: float
    cpu: float
    memory_gib: float
    max_pods: int
    gpus: int
    gpu_name: str
    gpu_memory_mib: int
    local_nvme_gb: int
    cpu_manufacturer: str

    @property
    def family(self) -> str:
        return self.name.split(".")[0]

    @property
    def generation(self) -> str:
        return "".join(letter for letter in self.family[1:3] if letter.isdigit())

    def holds(self, pod: PodSpec) -> int:
        """How many pods of this kind find room on an empty node; daemons are not counted."""
        rooms = [self.max_pods]
        for have, each in ((self.cpu, pod.cpu), (self.memory_gib, pod.memory_gib), (self.gpus, pod.gpus)):
            if each > 0:
                rooms.append(int(have / each + ROUNDING))
        return min(rooms)


@dataclass(frozen=True, slots=True)
class Offer:
    """A type in a zone, Spot or on-demand. `zone` is its id, which is the same in every account."""

    type: InstanceType
    zone: str
    capacity_type: CapacityType
    usd_per_hour: float
    labels: Mapping[str, str] = field(repr=False, compare=False)

    @property
    def key(self) -> tuple[str, str, str]:
        """Type, zone and capacity type: what Karpenter remembers a lack of capacity by."""
        return self.type.name, self.zone, self.capacity_type

    @property
    def title(self) -> str:
        """For people: `g6.xlarge (Spot, $0.35/h)`."""
        return f"{self.type.name} ({kind(self.capacity_type)}, ${self.usd_per_hour:.2f}/h)"


def kind(capacity_type: CapacityType) -> str:
    """The capacity type as people write it."""
    return "Spot" if capacity_type == "spot" else "on-demand"


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All that is on offer in a region, in the order of the file. `as_of` is of when the prices are, in short."""

    region: str
    offers: tuple[Offer, ...]
    as_of: str = ""

    @property
    def type_names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(offer.type.name for offer in self.offers))


def load(path: Path = FILE) -> Catalogue:
    """The price table that comes along, or another. Raises OSError, CatalogueError."""
    return parse(path.read_text(encoding="utf-8"))


def parse(text: str) -> Catalogue:
    """A catalogue from the text of a file. Raises CatalogueError."""
    data = yaml.safe_load(text)
    for part in ("shapes", "on_demand", "spot"):
        if not all(str(data.get(part, {}).get(key, "")).strip() for key in ("source", "date")):
            raise CatalogueError(f"{part}: must say source and date")
    offers: list[Offer] = []
    for name, entry in data["types"].items():
        try:
            offers += _offers(name, dict(entry), data["region"], data["zones"])
        except (KeyError, TypeError, ValueError) as error:
            raise CatalogueError(f"{name}: {type(error).__name__}: {error}") from error
    return Catalogue(data["region"], tuple(offers), str(data["as_of"]))


def _offers(name: str, entry: dict[str, Any], region: str, letters: Mapping[str, str]) -> list[Offer]:
    on_demand, spot = entry.pop("on_demand"), entry.pop("spot")
    shape = InstanceType(
        name=name,
        capacity_gib=entry.pop("memory_mib") / 1024,
        cpu=entry.pop("allocatable_cpu"),
        memory_gib=entry.pop("allocatable_mib") / 1024,
        **entry,
    )
    if min(on_demand, *spot.values()) <= 0:
        raise ValueError("a price must be above 0")
    return [
        Offer(shape, zone, capacity_type, price, labels(shape, region, zone, letters[zone], capacity_type))
        for zone, spot_price in spot.items()
        for capacity_type, price in (("spot", spot_price), ("on-demand", on_demand))
    ]


def labels(shape: InstanceType, region: str, zone: str, letter: str, capacity_type: str) -> dict[str, str]:
    """The labels that Karpenter gives a node, as far as a NodePool is likely to ask for them."""
    of_instance = {
        "category": shape.name[0],
        "family": shape.family,
        "generation": shape.generation,
        "size": shape.name.split(".")[1],
        "cpu": shape.vcpu,
        "cpu-manufacturer": shape.cpu_manufacturer,
        "memory": round(shape.capacity_gib * 1024),
        "local-nvme": shape.local_nvme_gb,
        "hypervisor": "nitro",
        "gpu-count": shape.gpus,
        "gpu-name": shape.gpu_name,
        "gpu-manufacturer": "nvidia",
        "gpu-memory": shape.gpu_memory_mib,
    }
    return {
        **{f"karpenter.k8s.aws/instance-{key}": str(value) for key, value in of_instance.items()},
        "karpenter.sh/capacity-type": capacity_type,
        "kubernetes.io/arch": "amd64",
        "kubernetes.io/os": "linux",
        "node.kubernetes.io/instance-type": shape.name,
        "topology.kubernetes.io/region": region,
        "topology.kubernetes.io/zone": letter,
        "topology.k8s.aws/zone-id": zone,
    }
