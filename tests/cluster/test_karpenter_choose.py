"""Which machine Karpenter buys, by requirements, room, limits, price and what can't be had; and why none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from inference.cluster.karpenter import catalogue
from inference.cluster.karpenter.batch import Batch
from inference.cluster.karpenter.catalogue import Catalogue, Offer
from inference.cluster.karpenter.choose import Choice, Chooser, NoChoice, allows
from inference.cluster.karpenter.shortage import Shortage
from inference.cluster.spec import NodePoolSpec, PodSpec, Requirement
from tests.cluster.plane_harness import POD, POOL, with_pod

ALL = catalogue.load()
FAMILY = "karpenter.k8s.aws/instance-family"
GPU_COUNT = "karpenter.k8s.aws/instance-gpu-count"
CAPACITY = "karpenter.sh/capacity-type"


def pool(*requirements: Requirement, limits: Mapping[str, float] | None = None) -> NodePoolSpec:
    return replace(POOL, requirements=requirements, limits=limits or {})


def choose(
    pods: int,
    at: NodePoolSpec = POOL,
    *,
    pod: PodSpec = POD,
    offers: Catalogue = ALL,
    used: Mapping[str, float] | None = None,
    refused: Sequence[str] = (),
) -> Choice | NoChoice:
    return Chooser(offers, at, pod).choose(pods, used or {}, lambda offer: offer.type.name in refused)


def priced(**prices: float) -> Catalogue:
    """Only g6.xlarge (1 GPU) and g6.12xlarge (4), Spot, in one zone, at these prices."""
    names = {"one": "g6.xlarge", "four": "g6.12xlarge"}
    offers: list[Offer] = []
    for key, usd in prices.items():
        offer = next(o for o in ALL.offers if (o.type.name, o.capacity_type) == (names[key], "spot"))
        offers.append(replace(offer, usd_per_hour=usd))
    return Catalogue("us-east-1", tuple(offers))


@pytest.mark.parametrize(
    ("operator", "values", "value", "meets"),
    [
        ("In", ("g5", "g6"), "g6", True),
        ("In", ("g5", "g6"), "g6e", False),
        ("In", ("g5",), None, False),
        ("NotIn", ("g5",), "g6", True),
        ("NotIn", ("g5",), "g5", False),
        ("NotIn", ("g5",), None, True),
        ("Exists", (), "g5", True),
        ("Exists", (), None, False),
        ("DoesNotExist", (), None, True),
        ("DoesNotExist", (), "g5", False),
        ("Gt", ("20000",), "22888", True),
        ("Gt", ("22888",), "22888", False),
        ("Gt", ("9",), "10", True),
        ("Gt", ("20000",), None, False),
        ("Lt", ("20000",), "16384", True),
        ("Lt", ("16384",), "16384", False),
        ("Lt", ("20000",), None, False),
    ],
)
def test_requirements_are_met_as_kubernetes_says(operator, values, value, meets) -> None:
    labels = {} if value is None else {"key": value}
    assert allows(Requirement("key", operator, values), labels) is meets


def test_the_cheapest_spot_that_fits_is_chosen() -> None:
    choice = choose(1)
    assert isinstance(choice, Choice)
    assert choice.offer.key == ("g6.xlarge", "use1-az4", "spot")
    assert choice.offer.title == "g6.xlarge (Spot, $0.35/h)"
    assert choice.pods == 1


def test_a_cheaper_type_with_too_little_gpu_memory_is_not() -> None:
    assert choose(1, pool()).offer.type.name == "g4dn.xlarge"
    assert choose(1, pool(Requirement("karpenter.k8s.aws/instance-gpu-memory", "Gt", ("20000",)))).offer.type.name != (
        "g4dn.xlarge"
    )


def test_each_shortage_leads_to_the_next_cheapest() -> None:
    names = ["g6.xlarge", "g5.xlarge", "g6.2xlarge", "g5.2xlarge", "g5.8xlarge", "g6e.xlarge"]
    for i, name in enumerate(names):
        assert choose(1, refused=names[:i]).offer.type.name == name


def test_on_demand_comes_when_it_is_cheaper_than_the_spot_that_is_left() -> None:
    """g6e.xlarge costs $0.92 as Spot; g6.xlarge $0.80 on-demand."""
    chooser = Chooser(ALL, pool(Requirement(FAMILY, "In", ("g6", "g6e")), Requirement(GPU_COUNT, "In", ("1",))), POD)
    choice = chooser.choose(1, {}, lambda o: o.type.family == "g6" and o.capacity_type == "spot")
    assert choice.offer.type.name == "g6.xlarge"
    assert choice.offer.capacity_type == "on-demand"


def test_spot_only_never_buys_on_demand() -> None:
    at = pool(Requirement(CAPACITY, "In", ("spot",)))
    found = Chooser(ALL, at, POD).choose(1, {}, lambda o: o.capacity_type == "spot")
    assert isinstance(found, NoChoice)
    assert "no capacity" in found.why


def test_a_bigger_pod_gets_a_bigger_machine() -> None:
    assert choose(1, pod=with_pod(cpu=4.0, memory_gib=24.0).pod).offer.type.name == "g6.2xlarge"


def test_several_pods_share_a_larger_node_where_that_is_cheaper_per_pod() -> None:
    assert choose(2, pool(), offers=priced(one=0.40, four=0.70)) == Choice(priced(four=0.70).offers[0], 2)
    assert choose(2, pool(), offers=priced(one=0.40, four=0.90)).offer.type.name == "g6.xlarge"
    assert choose(1, pool(), offers=priced(one=0.40, four=0.70)).offer.type.name == "g6.xlarge"
    assert choose(9, pool(), offers=priced(one=0.40, four=0.70)).pods == 4


def test_limits_count_the_whole_machine() -> None:
    at = pool(limits={"cpu": 8})
    assert choose(1, at, used={"cpu": 4}).offer.type.vcpu == 4
    found = choose(1, at, used={"cpu": 5})
    assert found == NoChoice("another node would exceed the NodePool's limits (cpu 5 of 8 in use)", limited=True)


def test_a_limit_of_one_resource_leaves_smaller_types() -> None:
    assert choose(4, pool(limits={"nvidia.com/gpu": 2}), offers=priced(one=0.40, four=0.70)).offer.type.gpus == 1


def test_it_says_why_nothing_fits() -> None:
    nothing = choose(1, pool(Requirement(FAMILY, "In", ("p5",))))
    assert nothing == NoChoice(f"none of {len(ALL.type_names)} known instance types meets the NodePool's requirements")
    too_big = choose(1, pod=with_pod(cpu=64.0, memory_gib=24.0).pod)
    assert "has room for a pod of 64 CPU, 24 GiB and 1 GPU" in too_big.why
    sold_out = choose(1, pool(Requirement(FAMILY, "In", ("g6e",))), refused=["g6e.xlarge"])
    assert sold_out.why == "no capacity is to be had of any type that fits (g6e.xlarge)"


def test_a_batch_closes_a_second_after_the_last_pod_and_ten_after_the_first() -> None:
    batch = Batch()
    assert batch.due_s == float("inf")
    batch.add(100.0)
    assert batch.due_s == 101.0
    batch.add(100.8)
    assert batch.due_s == 101.8
    for at_s in range(101, 112):
        batch.add(float(at_s))
    assert batch.due_s == 110.0
    batch.close()
    assert batch.due_s == float("inf")
    batch.again(112.0)
    assert batch.due_s == 122.0


def test_a_refusal_is_remembered_for_three_minutes_by_type_zone_and_capacity_type() -> None:
    offers = {offer.key: offer for offer in ALL.offers}
    spot = offers["g5.xlarge", "use1-az1", "spot"]
    shortage = Shortage()
    shortage.remember([spot], 1000.0)
    assert shortage.refused(spot, 1179.9)
    assert not shortage.refused(spot, 1180.0)
    assert not shortage.refused(offers["g5.xlarge", "use1-az2", "spot"], 1000.0)
    assert not shortage.refused(offers["g5.xlarge", "use1-az1", "on-demand"], 1000.0)
