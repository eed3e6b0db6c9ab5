"""The records at fault in a batch are found with few calls, and nothing else is given up."""

from __future__ import annotations

from math import ceil, log2

from hypothesis import given
from hypothesis import strategies as st

from streamworker.scheduling.parts import Part, Parts


def search(records: int, poisons: set[int]) -> tuple[list[int], list[int], int]:
    """What is given up, what is done, and how many calls it took."""
    parts, at, calls = Parts(Part(records, 3).halves()), 0, 0
    given_up: list[int] = []
    done: list[int] = []
    while parts.parts:
        size, calls = parts.next.records, calls + 1
        if not poisons & set(range(at, at + size)):
            done += range(at, at + size)
            at, parts = at + size, parts.back(0)
        elif size == 1:
            given_up.append(at)
            at, parts = at + 1, parts.back(0)
            parts = parts.found_one() if parts.parts else parts
        else:
            parts = parts.failed(size, 0, parts.next.attempt + 1, split=True)
    return given_up, done, calls


def test_from_the_eighth_on_that_failed_alone_all_go_one_by_one_and_the_count_goes_on() -> None:
    parts = Parts((Part(3, 2), Part(2, 4)), found=6)

    seventh = parts.found_one()
    eighth = seventh.found_one()

    assert seventh == Parts((Part(3, 2), Part(2, 4)), found=7)
    assert eighth == Parts((Part(1, 2),) * 3 + (Part(1, 4),) * 2, found=8)
    assert eighth.without([True, False, False, True, True]) == Parts((Part(1, 2),) * 2, found=8)


@given(st.data(), st.integers(2, 600))
def test_each_record_is_given_up_or_done_exactly_once(data: st.DataObject, records: int) -> None:
    poisons = data.draw(st.sets(st.integers(0, records - 1), min_size=1))

    given_up, done, _ = search(records, poisons)

    assert set(given_up) == poisons
    assert sorted(given_up + done) == list(range(records))


@given(st.data(), st.integers(2, 600))
def test_so_few_records_at_fault_are_found_with_few_calls(data: st.DataObject, records: int) -> None:
    poisons = data.draw(st.sets(st.integers(0, records - 1), min_size=1, max_size=7))

    _, _, calls = search(records, poisons)

    assert calls <= 2 * len(poisons) * ceil(log2(records))


@given(st.integers(16, 600))
def test_where_many_are_at_fault_the_rest_goes_one_by_one(records: int) -> None:
    _, _, calls = search(records, set(range(records)))

    assert calls <= records + 2 * 8 * ceil(log2(records))


def test_what_was_not_tried_of_a_part_goes_next_with_the_calls_that_were_spent_on_it_before() -> None:
    parts = Parts((Part(4, 2), Part(3, 2)))

    assert parts.back(2).parts == (Part(2, 2), Part(3, 2))
    assert parts.failed(1, 2, 3, split=False).parts == (Part(1, 3), Part(2, 2), Part(3, 2))
    assert parts.failed(4, 0, 3, split=True).parts == (Part(2, 3), Part(2, 3), Part(3, 2))


def test_records_that_end_otherwise_leave_their_parts() -> None:
    parts = Parts((Part(2, 3), Part(1, 2), Part(3, 2)))

    assert parts.without([True, True, False, False, True, False]).parts == (Part(1, 2), Part(2, 2))
