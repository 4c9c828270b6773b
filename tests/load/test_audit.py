"""The audit must see what it is there to see, and the generator must say when it was the bottleneck."""

from __future__ import annotations

from collections import Counter

from loadgen.audit import audit
from loadgen.machine import Watch, at, quantiles
from loadgen.phone import Sent


def sent(id: str, **more) -> Sent:
    return Sent(id, "cost", first_at=1.0, acked_at=1.1, status=200, **more)


def record(id: str, participant: str, **more) -> dict:
    facts = {"type": "answered", "activity": "cost", "counts": True, "reply": None}
    return {**facts, "id": id, "participant": participant, **more}


def test_an_answer_that_was_acknowledged_and_is_missing_is_lost() -> None:
    found = audit([sent("here"), sent("gone")], [record("here", "ann")])
    assert (found.acknowledged, found.lost, found.clean) == (2, ("gone",), False)


def test_an_answer_that_the_export_has_but_no_file_is_lost() -> None:
    assert audit([sent("here")], [record("here", "ann")], Counter()).lost == ("here",)


def test_an_answer_that_was_never_acknowledged_is_not_lost() -> None:
    assert audit([Sent("late", "cost", 1.0, status=409)], []).clean


def test_two_answers_of_one_phone_that_both_count_are_doubled() -> None:
    assert audit([], [record("one", "ann"), record("two", "ann")]).doubled == ("one", "two")
    assert audit([], [record("one", "ann"), record("two", "ann", counts=False)]).clean


def test_one_answer_that_counts_twice_is_doubled() -> None:
    assert audit([], [record("one", "ann"), record("one", "ben")]).doubled == ("one",)


def test_a_reply_that_differs_from_the_stored_one_is_reported() -> None:
    export = [record("one", "ann", reply="You chose well.")]
    assert audit([sent("one", reply="You chose well. ", reply_done_at=2.0)], export).clean
    assert audit([sent("one", reply="You chose", reply_done_at=2.0)], export).wrong_replies == ("one",)


def test_quantiles_are_values_that_were_measured() -> None:
    ordered = [float(n) for n in range(1, 101)]
    assert (at(ordered, 0.5), at(ordered, 0.99), at(ordered, 1.0), at([7.0], 0.99)) == (50, 99, 100, 7)
    assert quantiles([]) == "none"


def test_a_generator_that_woke_late_says_that_latencies_are_upper_bounds() -> None:
    quick, late = Watch(lag_ms=[1.0] * 100), Watch(lag_ms=[1.0] * 90 + [150.0] * 10)
    assert "upper bounds" not in quick.report()
    assert "generator saturated: latencies are upper bounds" in late.report()
