"""That a draw can be checked, and cannot be bent."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sample_room import RAFFLE, SEED, SampleRoom
from webapp.room import raffle
from webapp.room.commands import CommandRefused

tickets = st.sets(st.text("0123456789abcdef", min_size=12, max_size=12), max_size=20)


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def order_by_the_docstring(seed: str, tickets: list[str]) -> list[str]:
    digest = sha256("\n".join(tickets))
    return sorted(tickets, key=lambda ticket: sha256(f"{seed}:{digest}:{ticket}"))


def entered(*people: str) -> SampleRoom:
    room = SampleRoom().join(*people).start(RAFFLE.id)
    room.do("close")
    return room


def test_the_commitment_is_the_seeds_sha256() -> None:
    assert raffle.commitment(SEED) == sha256(SEED)


@given(tickets)
def test_the_published_lines_give_the_same_order(tickets: set[str]) -> None:
    assert raffle.order(SEED, tickets) == order_by_the_docstring(SEED, sorted(tickets))


@given(tickets)
def test_another_seed_or_another_ticket_makes_another_draw(tickets: set[str]) -> None:
    drawn = raffle.order(SEED, tickets)
    assert sorted(drawn) == sorted(tickets)
    assert raffle.order(SEED, [*reversed(drawn), *drawn]) == drawn


def test_a_ticket_is_a_function_of_room_and_participant_and_names_neither() -> None:
    ticket = raffle.ticket("KWXM", "ann")
    assert ticket == sha256("KWXM:ann")[:12]
    assert ticket != raffle.ticket("KWXN", "ann")


def test_closing_freezes_the_tickets_of_everybody_present_in_byte_order() -> None:
    room = SampleRoom().join("ann", "ben", "cy").start(RAFFLE.id)
    room.do("remove", participant="ben")
    closed = room.do("close")
    assert closed.entrants == tuple(sorted(raffle.ticket("KWXM", who) for who in ("ann", "cy")))
    room.join("late")
    assert room.state.of(RAFFLE.id).entrants == closed.entrants


def test_prizes_go_down_the_published_order() -> None:
    room = entered("ann", "ben", "cy", "dee")
    order = order_by_the_docstring(SEED, list(room.state.of(RAFFLE.id).entrants))
    first, second = room.do("draw", prize=1), room.do("draw", prize=0)
    assert [first.ticket, second.ticket] == order[:2]
    assert first.seed == SEED
    assert raffle.ticket("KWXM", first.participant) == first.ticket


def test_a_redraw_replaces_an_absent_winner_with_the_next_ticket() -> None:
    room = entered("ann", "ben", "cy")
    order = order_by_the_docstring(SEED, list(room.state.of(RAFFLE.id).entrants))
    room.do("draw", prize=0)
    room.do("draw", prize=1)
    room.do("redraw", prize=0)
    winners = room.state.of(RAFFLE.id).winners
    assert {prize: draw.ticket for prize, draw in winners.items()} == {0: order[2], 1: order[1]}
    with pytest.raises(CommandRefused, match="Every ticket"):
        room.do("redraw", prize=1)


def test_who_was_removed_is_passed_over() -> None:
    room = entered("ann", "ben", "cy")
    owners = {raffle.ticket("KWXM", who): who for who in ("ann", "ben", "cy")}
    order = order_by_the_docstring(SEED, sorted(owners))
    room.do("remove", participant=owners[order[0]])
    assert room.do("draw").ticket == order[1]


def test_a_prize_is_drawn_once_and_redrawn_only_after_that() -> None:
    room = entered("ann", "ben")
    with pytest.raises(CommandRefused, match="not been drawn"):
        room.do("redraw", prize=0)
    room.do("draw", prize=0)
    with pytest.raises(CommandRefused, match="redraw"):
        room.do("draw", prize=0)
    for prize in (-1, 2, 99):
        with pytest.raises(CommandRefused, match="no prize"):
            room.do("draw", prize=prize)


def test_after_a_draw_the_tickets_stay_frozen() -> None:
    room = entered("ann", "ben")
    room.do("draw")
    with pytest.raises(CommandRefused, match="frozen"):
        room.do("reopen")


def test_nothing_is_drawn_where_nobody_entered() -> None:
    with pytest.raises(CommandRefused, match="no tickets"):
        entered().do("draw")


def test_a_raffle_that_was_left_open_says_how_to_freeze_its_tickets() -> None:
    room = SampleRoom().join("ann").start(RAFFLE.id)
    room.do("back")
    room.do("next")
    with pytest.raises(CommandRefused, match="Reopen"):
        room.do("draw")
    room.do("reopen")
    room.do("close")
    assert room.do("draw").participant == "ann"
