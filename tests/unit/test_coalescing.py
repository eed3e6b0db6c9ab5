"""Leaving out what a later write goes over changes nothing that a sink keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from streamworker.record import Origin
from streamworker.sinks.coalescing import last_of_each_key

if TYPE_CHECKING:
    from collections.abc import Sequence

Write = tuple[str, Origin, int]  # key, origin, value

origins = st.builds(Origin, st.just("t"), st.integers(0, 1), st.integers(0, 4))
writes_of_a_batch = st.lists(st.tuples(st.sampled_from("ab"), origins, st.integers()), max_size=12)
marks = st.dictionaries(st.tuples(st.sampled_from("ab"), st.integers(0, 1)), st.integers(0, 4))


def kept(
    writes: Sequence[Write], marks: dict[tuple[str, int], int]
) -> tuple[dict[str, int], dict[tuple[str, int], int]]:
    """What a sink has that refuses older records of a partition, and those that it had before the batch."""
    values: dict[str, int] = {}
    now = dict(marks)
    for key, origin, value in writes:
        of_key = (key, origin.partition)
        if origin.offset >= now.get(of_key, -1) and origin.offset > marks.get(of_key, -1):
            values[key] = value
            now[of_key] = origin.offset
    return values, now


@given(writes_of_a_batch, marks)
def test_a_sink_keeps_the_same_with_it(writes: list[Write], marks: dict[tuple[str, int], int]) -> None:
    left = [writes[index] for index in last_of_each_key([w[0] for w in writes], [w[1] for w in writes])]

    assert kept(left, marks) == kept(writes, marks)


@given(writes_of_a_batch)
def test_each_record_of_a_key_is_left_at_most_once_and_in_order(writes: list[Write]) -> None:
    indices = last_of_each_key([w[0] for w in writes], [w[1] for w in writes])

    left = [writes[index][:2] for index in indices]
    assert len(set(left)) == len(left)
    assert indices == sorted(indices)


def test_of_records_in_order_the_last_of_each_key_is_left() -> None:
    given_origins = [Origin("t", 0, offset) for offset in range(6)]

    assert last_of_each_key("abaabc", given_origins) == [3, 4, 5]


def test_a_record_that_comes_back_does_not_take_the_place_of_a_newer_one() -> None:
    assert last_of_each_key("aa", [Origin("t", 0, 7), Origin("t", 0, 5)]) == [0, 1]


def test_records_of_two_partitions_do_not_take_each_others_place() -> None:
    assert last_of_each_key("aa", [Origin("t", 0, 1), Origin("t", 1, 1)]) == [0, 1]
