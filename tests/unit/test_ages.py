from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streamworker.offsets.ages import Ages

NOW_MS = 1_000_000


def test_the_first_record_of_a_delivery_stands_for_those_that_came_with_it() -> None:
    ages = Ages()

    ages.delivered(0, NOW_MS - 9_000)
    ages.delivered(10, NOW_MS - 4_000)

    assert [ages.open_s(lowest, NOW_MS) for lowest in (0, 9, 10, 15)] == [9.0, 9.0, 4.0, 4.0]


def test_a_record_without_a_timestamp_has_no_known_age() -> None:
    ages = Ages()

    ages.delivered(0, None)

    assert ages.open_s(0, NOW_MS) is None
    assert Ages().open_s(0, NOW_MS) is None


def test_a_producer_whose_clock_is_ahead_makes_no_negative_age() -> None:
    ages = Ages()

    ages.delivered(0, NOW_MS + 60_000)

    assert ages.open_s(0, NOW_MS) == 0


def test_what_was_given_back_counts_as_it_is_delivered_again() -> None:
    ages = Ages()
    ages.delivered(0, NOW_MS - 9_000)
    ages.delivered(10, NOW_MS - 4_000)

    ages.delivered(5, NOW_MS - 6_000)

    assert [ages.open_s(lowest, NOW_MS) for lowest in (4, 5, 12)] == [9.0, 6.0, 6.0]


def test_the_next_record_is_not_older_than_the_last_one_nor_than_the_moment_without_any() -> None:
    ages = Ages()
    unknown = ages.next_s(NOW_MS)
    ages.delivered(0, NOW_MS - 9_000)
    by_the_last = ages.next_s(NOW_MS)
    ages.caught_up(NOW_MS - 3_000)

    assert unknown is None
    assert by_the_last == 9.0
    assert ages.next_s(NOW_MS) == 3.0


def test_nothing_comes_any_more_once_it_was_quiet_for_five_seconds_without_a_pause() -> None:
    ages = Ages()

    told = [
        ages.quiet(7, NOW_MS, paused=False),
        ages.quiet(7, NOW_MS + 4_999, paused=False),
        ages.quiet(7, NOW_MS + 5_000, paused=False),
        ages.quiet(7, NOW_MS + 6_000, paused=True),
        ages.quiet(7, NOW_MS + 10_999, paused=False),
        ages.quiet(8, NOW_MS + 11_000, paused=False),
    ]

    assert told == [False, False, True, False, False, False]


@given(st.lists(st.integers(1, 5), min_size=1, max_size=2_000), st.data())
def test_an_age_is_never_too_low_and_what_is_noted_stays_bounded(sizes: list[int], data: st.DataObject) -> None:
    """A record is as many seconds old as there are records behind it."""
    ages, delivered = Ages(), sum(sizes)
    first = 0
    for size in sizes:
        ages.delivered(first, NOW_MS - 1_000 * (delivered - first))
        first += size

    lowest = data.draw(st.integers(0, delivered - 1))
    found = ages.open_s(lowest, NOW_MS)

    assert found is not None
    assert found >= delivered - lowest
    assert len(ages._notes) <= 128


def test_ages_are_as_exact_as_deliveries_are_small_while_few_are_in_hand() -> None:
    ages = Ages()
    for offset in range(100):
        ages.delivered(offset, NOW_MS - 1_000 * (100 - offset))

    assert [ages.open_s(lowest, NOW_MS) for lowest in range(100)] == [100 - lowest for lowest in range(100)]
