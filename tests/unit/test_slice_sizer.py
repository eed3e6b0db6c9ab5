"""How many records are handed over at a time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamworker.scheduling.slices import SliceSizer

MEASUREMENTS = st.lists(st.tuples(st.integers(0, 500), st.floats(0, 1000)), max_size=50)


def settled(per_record_s: float, *, slice_s: float = 0.005, max_records: int = 500) -> int:
    sizer = SliceSizer(slice_s=slice_s, max_records=max_records)
    for _ in range(40):
        sizer.measured(sizer.records, sizer.records * per_record_s)
    return sizer.records


@given(MEASUREMENTS, st.integers(1, 500))
def test_a_slice_has_at_least_one_record_and_at_most_twice_the_last_one(
    measurements: list[tuple[int, float]], max_records: int
) -> None:
    sizer = SliceSizer(slice_s=0.005, max_records=max_records)

    for records, seconds in measurements:
        before = sizer.records
        sizer.measured(records, seconds)

        assert 1 <= sizer.records <= min(max_records, 2 * before)


def test_a_handler_of_unknown_speed_gets_one_record() -> None:
    assert SliceSizer(slice_s=0.005, max_records=500).records == 1


@given(st.floats(1e-7, 1e-2))
def test_a_steady_handler_gets_about_the_time_of_a_slice(per_record_s: float) -> None:
    records = settled(per_record_s)

    assert records * per_record_s <= max(0.005, per_record_s) * 1.001
    assert records == 500 or (records + 1) * per_record_s >= 0.005 * 0.999


def test_a_handler_that_takes_no_time_gets_the_most() -> None:
    assert settled(0.0) == 500


def test_a_handler_that_turns_slow_gets_one_record_after_a_few_slices() -> None:
    sizer = SliceSizer(slice_s=0.005, max_records=500)
    for _ in range(20):
        sizer.measured(sizer.records, sizer.records * 1e-6)

    slices = 0
    while sizer.records > 1:
        sizer.measured(sizer.records, sizer.records * 0.05)
        slices += 1

    assert slices <= 3


def test_a_slice_in_which_nothing_was_tried_says_nothing_of_the_speed() -> None:
    sizer = SliceSizer(slice_s=0.005, max_records=500)
    sizer.measured(1, 1e-6)
    before = sizer.records

    sizer.measured(0, 3.0)

    assert sizer.records == before


@pytest.mark.parametrize(("record_s", "slow"), [(51e-6, True), (49e-6, False)])
def test_a_handler_is_slow_from_fifty_microseconds_a_record_on(record_s: float, slow: bool) -> None:
    sizer = SliceSizer(slice_s=0.005, max_records=500)
    before = sizer.slow

    sizer.measured(1, record_s)

    assert (before, sizer.slow) == (True, slow)
