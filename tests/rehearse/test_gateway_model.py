"""The gateway's line on a fast clock: who is served, who waits, who is refused."""

from __future__ import annotations

from inference.engine import profile as profiles
from inference.engine.core import Core
from webapp.gateway.line import Limits
from webapp.rehearse.gateway import Call, Gateway, Replica
from webapp.rehearse.script import Request

PROFILE = profiles.load("instant")


class Fleet:
    """A gateway with replicas that take what they are given and answer when they are told."""

    def __init__(self, replicas: int, **limits: float) -> None:
        self.sent: list[tuple[Call, Replica]] = []
        self.gateway = Gateway(lambda *sent: self.sent.append(sent), seed=1, limits=Limits(**limits))
        self.replicas = [Replica(f"pod{n}", Core(PROFILE.capacity, PROFILE.step_s), open=True) for n in range(replicas)]
        self.gateway.replicas.extend(self.replicas)

    def come(self, count: int, now_s: float = 0.0) -> list[Call]:
        calls = [Call(Request("q1", 10, 10), now_s) for _ in range(count)]
        for call in calls:
            self.gateway.came(call, now_s)
        return calls


def test_the_least_loaded_replica_takes_the_next_request_up_to_its_bound() -> None:
    fleet = Fleet(3, max_in_flight_per_replica=4)
    fleet.come(13)
    assert [len(replica.calls) for replica in fleet.replicas] == [4, 4, 4]
    assert fleet.gateway.waiting == 1


def test_those_who_wait_are_served_in_order_of_arrival() -> None:
    fleet = Fleet(1, max_in_flight_per_replica=1)
    calls = fleet.come(4)
    for call in calls:
        assert fleet.sent[-1][0] is call
        fleet.gateway.ended(call, "answered", 1.0)
    assert [call.outcome for call in calls] == ["answered"] * 4


def test_a_full_line_refuses_and_waiting_ends() -> None:
    fleet = Fleet(1, max_in_flight_per_replica=1, max_waiting=2)
    first, second, third, fourth = fleet.come(4)
    assert fourth.outcome == "refused"
    fleet.gateway.tired(second, 120.0)
    assert second.outcome == "refused"
    fleet.gateway.tired(first, 120.0)
    assert first.outcome is None, "it is being answered"
    fleet.gateway.ended(first, "answered", 121.0)
    assert third.replica is fleet.replicas[0]


def test_a_replica_that_opens_takes_those_who_wait() -> None:
    fleet = Fleet(1, max_in_flight_per_replica=1)
    fleet.replicas[0].open = False
    calls = fleet.come(2)
    assert not fleet.sent
    fleet.replicas[0].open = True
    fleet.gateway.serve()
    assert [call for call, _ in fleet.sent] == calls[:1]


def test_who_loses_its_replica_goes_first_unless_it_had_a_token() -> None:
    fleet = Fleet(1, max_in_flight_per_replica=2)
    begun, fresh, waits = fleet.come(3)
    begun.first_s = 0.5
    fleet.gateway.lost(fleet.replicas[0], 1.0)
    assert begun.outcome == "broken"
    other = Replica("pod9", fleet.replicas[0].core, open=True)
    fleet.gateway.replicas.append(other)
    fleet.gateway.serve()
    assert [call for call, replica in fleet.sent if replica is other] == [fresh, waits]
    fleet.gateway.lost(other, 200.0)
    assert fresh.outcome == waits.outcome == "refused", "they have waited too long already"
