"""How many calls of a dependency are made at once, and how many were refused."""

from __future__ import annotations

import threading

from streamworker.options import Bulkhead
from streamworker.resilience.bulkhead import Seats


def test_a_call_too_many_is_refused_at_once_and_counted_once() -> None:
    seats = Seats(Bulkhead(2))

    taken = [seats.take() for _ in range(5)]

    assert taken == [True, True, False, False, False]
    assert (seats.refused(), seats.refused()) == (3, 0)
    seats.leave()
    assert seats.take()
    assert not seats.take()
    assert seats.refused() == 1


def test_a_call_waits_for_a_seat_if_it_may() -> None:
    seats = Seats(Bulkhead(1, max_wait_s=30.0))
    assert seats.take()
    asked, got = threading.Event(), []

    def ask() -> None:
        asked.set()
        got.append(seats.take())

    caller = threading.Thread(target=ask)
    caller.start()
    asked.wait(10)
    seats.leave()
    caller.join(10)

    assert got == [True]
    assert seats.refused() == 0


def test_who_may_not_wait_is_refused_at_once() -> None:
    seats = Seats(Bulkhead(1, max_wait_s=3600.0))
    assert seats.take(waits=False)

    assert not seats.take(waits=False)
    assert seats.refused() == 1


def test_who_waits_in_vain_is_refused() -> None:
    seats = Seats(Bulkhead(1, max_wait_s=0.01))
    assert seats.take()

    assert not seats.take()
    assert seats.refused() == 1
