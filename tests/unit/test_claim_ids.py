"""Which records are the same, as far as claims can tell."""

from __future__ import annotations

import pytest

from streamworker.errors import PoisonError
from streamworker.idempotency.claims import Busy, Tokens, busy, chosen_id, default_id
from streamworker.record import Origin

ORIGIN = Origin("orders", 3, 17)


def test_a_record_is_where_it_was_first() -> None:
    assert default_id(ORIGIN, b"whatever") == "orders:3:17"


def test_a_repaired_record_is_another_one_for_each_value() -> None:
    repaired = [default_id(ORIGIN, value, repaired=True) for value in (b"a", b"b", b"a", None)]

    assert repaired[0] == repaired[2]
    assert len({default_id(ORIGIN, b"a"), *repaired}) == 4
    assert all(one.startswith("orders:3:17:") for one in repaired)


def test_what_a_handler_chose_is_its_own_and_no_place_in_a_topic() -> None:
    chosen = [chosen_id("Charge", "7"), chosen_id("Notify", "7"), chosen_id("Charge", "orders:3:17")]

    assert len({*chosen, default_id(ORIGIN, None)}) == 4


def test_a_long_id_is_kept_short_and_stays_itself() -> None:
    long, longer = chosen_id("Charge", "x" * 1000), chosen_id("Charge", "x" * 1001)

    assert max(len(long), len(longer)) < 100
    assert long != longer
    assert long == chosen_id("Charge", "x" * 1000)


@pytest.mark.parametrize("chosen", [None, "", 7, b"7"])
def test_what_is_no_id_is_the_records_fault(chosen: object) -> None:
    with pytest.raises(PoisonError, match=r"Idempotency\.id of Charge: expected a str that is not empty, got"):
        chosen_id("Charge", chosen)


def test_no_token_comes_twice() -> None:
    first, second = Tokens("a"), Tokens("b")

    assert len({one.next() for one in (first, second) for _ in range(100)}) == 200


def test_whoever_is_refused_comes_back_after_the_lease_and_a_chance_of_a_tenth_more() -> None:
    assert (busy(12.0, 30.0, 0.0), busy(12.0, 30.0, 1.0)) == (Busy(12.0), Busy(15.0))
