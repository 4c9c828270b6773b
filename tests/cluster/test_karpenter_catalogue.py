"""The price table: what the types hold, what they are labelled, and that nothing in it is without a source."""

from __future__ import annotations

import pytest

from inference.cluster.karpenter import catalogue
from inference.cluster.karpenter.catalogue import FILE, CatalogueError
from tests.cluster.plane_harness import POD, with_pod

TEXT = FILE.read_text(encoding="utf-8")
OFFERS = {offer.key: offer for offer in catalogue.load().offers}
TYPES = {offer.type.name: offer.type for offer in catalogue.load().offers}


def test_prices_are_those_of_the_sources() -> None:
    assert OFFERS["g5.xlarge", "use1-az1", "spot"].usd_per_hour == 0.4507
    assert OFFERS["g5.xlarge", "use1-az5", "on-demand"].usd_per_hour == 1.006
    assert OFFERS["g6.xlarge", "use1-az4", "spot"].usd_per_hour == 0.349
    assert ("g6.xlarge", "use1-az5", "spot") not in OFFERS


def test_every_spot_price_is_below_on_demand() -> None:
    for name, zone, capacity_type in OFFERS:
        if capacity_type == "spot":
            assert OFFERS[name, zone, "spot"].usd_per_hour < OFFERS[name, zone, "on-demand"].usd_per_hour


def test_allocatable_is_less_than_the_machine_has() -> None:
    for shape in TYPES.values():
        assert 0.9 * shape.vcpu < shape.cpu < shape.vcpu
        assert 0.8 * shape.capacity_gib < shape.memory_gib < 0.925 * shape.capacity_gib


def test_a_node_holds_as_many_pods_as_its_scarcest_resource_allows() -> None:
    assert TYPES["g5.xlarge"].holds(POD) == 1
    assert TYPES["g5.12xlarge"].holds(POD) == 4
    assert TYPES["g5.xlarge"].holds(with_pod(cpu=4.0).pod) == 0
    assert TYPES["g5.xlarge"].holds(with_pod(memory_gib=24.0).pod) == 0
    assert TYPES["g5.2xlarge"].holds(with_pod(gpus=0).pod) == 2
    assert TYPES["g5.2xlarge"].holds(with_pod(gpus=0, cpu=0.0, memory_gib=0.0).pod) == 58


def test_a_pod_that_takes_all_there_is_fits() -> None:
    shape = TYPES["g5.xlarge"]
    assert shape.holds(with_pod(cpu=shape.cpu, memory_gib=shape.memory_gib).pod) == 1


@pytest.mark.parametrize(
    ("name", "family", "generation"),
    [("g4dn.xlarge", "g4dn", "4"), ("g5.2xlarge", "g5", "5"), ("g6e.xlarge", "g6e", "6")],
)
def test_labels_are_those_that_a_node_pool_asks_for(name: str, family: str, generation: str) -> None:
    labels = OFFERS[name, "use1-az2", "spot"].labels
    assert labels["karpenter.k8s.aws/instance-family"] == family
    assert labels["karpenter.k8s.aws/instance-generation"] == generation
    assert labels["karpenter.k8s.aws/instance-category"] == "g"
    assert labels["karpenter.k8s.aws/instance-gpu-count"] == "1"
    assert labels["node.kubernetes.io/instance-type"] == name
    assert labels["karpenter.sh/capacity-type"] == "spot"
    assert labels["topology.k8s.aws/zone-id"] == "use1-az2"
    assert labels["kubernetes.io/arch"] == "amd64"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("on_demand: 1.006", "on_demand: 0", "g5.xlarge.*above 0"),
        ("gpu_name: l40s, ", "", "g6e.xlarge.*gpu_name"),
        ("use1-az1: 0.4507", "euw1-az1: 0.4507", "g5.xlarge.*euw1-az1"),
        ('  date: "2026-01-19"\n', "", "on_demand: must say source and date"),
    ],
)
def test_a_table_that_is_wrong_is_refused_by_type(old: str, new: str, says: str) -> None:
    assert old in TEXT
    with pytest.raises(CatalogueError, match=says):
        catalogue.parse(TEXT.replace(old, new))
