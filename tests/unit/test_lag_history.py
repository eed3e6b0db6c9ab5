"""What is remembered of a partition between looks, and what follows from it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamworker.interfaces import OffsetMark
from streamworker.lag.group_lag import data_loss_s
from streamworker.lag.history import History, Seen


def seen(offset: int | None, end: int, *, start: int = 0, owned: bool = False, metadata: str = "") -> Seen:
    mark = None if offset is None else OffsetMark(offset, metadata)
    return Seen(mark, start, end, None if offset is None else end - offset, owned=owned)


def history(*looks: Seen, wanted: int = 10) -> History:
    """Of looks a second apart."""
    found = History(wanted)
    for now_s, one in enumerate(looks):
        found.note(one, float(now_s))
    return found


def times(of: History) -> list[float]:
    return [one.at_s for one in of.window.commits]


def test_a_look_is_a_commit_if_the_offset_or_what_lies_beside_it_has_changed() -> None:
    found = history(seen(1, 9), seen(1, 9), seen(2, 9), seen(2, 9, metadata="again"), seen(2, 9, metadata="again"))

    assert times(found) == [0, 2, 3]


def test_a_look_at_a_group_that_is_caught_up_is_a_commit() -> None:
    """Else a group that is idle, and commits nothing for that, would have stopped with the next record."""
    assert times(history(seen(9, 9), seen(9, 9), seen(9, 10))) == [0, 1]


def test_a_look_at_a_partition_that_a_member_has_is_a_commit() -> None:
    assert times(history(seen(1, 9, owned=True), seen(1, 9, owned=True), seen(1, 9))) == [0, 1]


def test_without_an_offset_there_is_no_commit() -> None:
    assert times(history(seen(None, 9, owned=True), seen(None, 9, owned=True))) == []


def test_as_many_looks_and_commits_count_as_are_wanted() -> None:
    found = history(*(seen(number, 20) for number in range(5)), wanted=4)

    assert [one.offset for one in found.window.commits] == [1, 2, 3, 4]
    assert list(found.window.ends) == [20] * 4
    assert history(seen(1, 9), wanted=4).window.complete == 0.25
    assert found.window.complete == 1


def test_a_log_that_was_cut_or_made_anew_is_another_one() -> None:
    found = history(seen(50, 60), seen(55, 60), seen(55, 3))

    assert (times(found), list(found.window.ends), found.window.complete) == ([2], [3], 0.1)


def test_a_record_was_written_when_the_end_of_the_log_passed_it() -> None:
    found = history(seen(0, 10), seen(0, 10), seen(0, 10), seen(0, 20), seen(0, 30))

    assert found.written_s(10) == 2  # behind a log that stood still until then
    assert found.written_s(15) == 2.5
    assert found.written_s(25) == 3.5


def test_of_records_from_before_the_first_look_and_of_those_that_are_not_there_no_time_is_known() -> None:
    found = history(seen(0, 10), seen(0, 20))

    assert found.written_s(9) is None
    assert found.written_s(20) is None


@given(st.lists(st.integers(0, 9), min_size=2, max_size=150), st.data())
def test_estimated_times_keep_the_order_of_the_log(steps: list[int], data: st.DataObject) -> None:
    ends = [sum(steps[: index + 1]) for index in range(len(steps))]
    found = history(*(seen(0, end) for end in ends))

    one, other = sorted(data.draw(st.tuples(st.integers(0, ends[-1] + 1), st.integers(0, ends[-1] + 1))))
    times_ = found.written_s(one), found.written_s(other)

    if None not in times_:
        assert 0 <= times_[0] <= times_[1] <= len(steps)  # type: ignore[operator]  # none is None here


def test_how_fast_the_start_of_the_log_moves_is_known_from_its_second_move() -> None:
    once = history(seen(0, 99), seen(0, 99, start=30))
    twice = history(seen(0, 99), seen(0, 99, start=10), seen(0, 99, start=10), seen(0, 99, start=30))

    assert once.starts_per_s(9.0) == 0
    assert twice.starts_per_s(3.0) == 10
    assert twice.starts_per_s(5.0) == 5


@pytest.mark.parametrize(
    ("committed", "lag", "per_s", "age_s", "retention_s", "left_s"),
    [
        (5, 9, 0.0, None, None, 0.0),  # it has happened
        (50, 0, 9.0, 0.0, 60.0, None),
        (50, 9, 0.0, 20.0, 60.0, 40.0),
        (50, 9, 0.0, 90.0, 60.0, 0.0),  # segments are deleted a little later
        (50, 9, 2.0, None, 60.0, 20.0),
        (50, 9, 2.0, 20.0, 60.0, 20.0),
        (50, 9, 0.5, 20.0, 60.0, 40.0),
        (50, 9, 0.0, 20.0, None, None),
    ],
)
def test_time_until_data_are_lost(
    committed: int, lag: int, per_s: float, age_s: float | None, retention_s: float | None, left_s: float | None
) -> None:
    found = data_loss_s(
        committed=committed, start=10, lag=lag, starts_per_s=per_s, age_s=age_s, retention_s=retention_s
    )

    assert found == left_s
