from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streamworker.scheduling.occupancy import Occupancy


def test_what_is_out_after_a_step_counts_until_the_next() -> None:
    occupancy = Occupancy(100.0)

    occupancy.look(100.0, 2, 4)
    occupancy.look(101.0, 0, 4)
    occupancy.look(102.0, 4, 4)

    assert occupancy.ratio() == 0.25


def test_nothing_was_possible_before_the_first_step() -> None:
    assert Occupancy(100.0).ratio() == 0


def test_what_is_longer_ago_than_half_a_minute_counts_no_more() -> None:
    occupancy = Occupancy(0.0)
    for second in range(30):
        occupancy.look(float(second), 4, 4)
    occupancy.look(30.0, 0, 4)
    busy = occupancy.ratio()

    for second in range(31, 46):
        occupancy.look(float(second), 0, 4)
    half = occupancy.ratio()
    for second in range(46, 63):
        occupancy.look(float(second), 0, 4)

    assert busy == 1
    assert 0.45 < half < 0.55
    assert occupancy.ratio() == 0


@given(st.lists(st.tuples(st.floats(0, 2), st.integers(0, 9), st.integers(1, 8)), max_size=200))
def test_it_is_a_share_whatever_a_handler_may_have_out_and_few_marks_are_kept(
    steps: list[tuple[float, int, int]],
) -> None:
    """More than is possible may be out, of a handler that adapts."""
    occupancy, now_s = Occupancy(0.0), 0.0
    for passed_s, out, possible in steps:
        now_s += passed_s
        occupancy.look(now_s, out, possible)

    assert 0 <= occupancy.ratio() <= 1
    assert len(occupancy._marks) <= 32
