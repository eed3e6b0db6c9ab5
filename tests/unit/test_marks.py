"""Marks: whatever is parked, tried again, redelivered or moved between lanes, each record has its effect once."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

import pytest
from fleet.marked_partition import Partition
from hypothesis import given, settings
from hypothesis import strategies as st
from servers.stores import place, row
from sizes import SOAK

from streamworker.sinks.marks import (
    LaneOf,
    Mark,
    advanced,
    decode_holes,
    encode_holes,
    lane_of,
    plan,
    rewound_to,
    spent,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from streamworker.interfaces import Row
    from streamworker.work import Place


@given(st.sets(st.integers(0, 300)))
def test_holes_come_back_as_they_were(holes: set[int]) -> None:
    ascending = tuple(sorted(holes))

    assert decode_holes(encode_holes(ascending)) == ascending


def test_the_text_of_holes_is_short_for_neighbours() -> None:
    assert encode_holes((5, 6, 7, 9)) == "5+2,1"
    assert encode_holes(()) == ""
    assert len(encode_holes(range(10**9, 10**9 + 16_384))) == len("1000000000+16383")


@pytest.mark.parametrize("text", ["x", "1,", "1+x", "+"])
def test_what_is_no_text_of_holes_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        decode_holes(text)


def test_a_record_that_waits_leaves_a_hole_until_it_is_written() -> None:
    parked = advanced(None, place(open_below=(4,)), [3, 5, 6])
    done = advanced(parked, place(), [4])

    assert parked == Mark(7, (4,))
    assert [offset for offset in range(9) if not parked.applied(offset)] == [4, 7, 8]
    assert done == Mark(7)


def test_what_is_open_beyond_the_last_row_is_no_hole() -> None:
    assert advanced(None, place(open_below=(2, 9)), [3]) == Mark(4, (2,))


def test_what_was_applied_before_becomes_no_hole_when_it_is_open_again() -> None:
    assert advanced(Mark(10, (8,)), place(open_below=(5, 8, 10)), [11]) == Mark(12, (8, 10))


def test_holes_below_what_is_done_close() -> None:
    assert advanced(Mark(10, (5, 8)), place(done_below=7), [10]) == Mark(11, (8,), done_below=7)


def test_a_record_is_applied_if_the_mark_of_any_number_of_lanes_says_so() -> None:
    marks = {LaneOf(2, lane_of(b"a", 0, 2)): Mark(10, (4,)), LaneOf(1, 0): Mark(6, (3,))}

    found = plan(marks, place(lanes=3, lane=lane_of(b"a", 0, 3)), [row(n, key=b"a") for n in (3, 4, 5, 9, 10)])

    assert found.repeated == [0, 1, 2, 3]
    assert found.fresh == [4]


def test_the_lane_is_that_of_the_scheduler() -> None:
    """The numbers are those of crc32: a change would let what was applied be applied again."""
    assert [lane_of(b"order-1", 7, lanes) for lanes in (1, 4, 7)] == [0, 3, 6]
    assert [lane_of(None, 7, lanes) for lanes in (1, 4, 7)] == [0, 2, 0]


def test_marks_of_other_lane_counts_are_spent_once_all_below_them_is_done() -> None:
    marks = {LaneOf(1, 0): Mark(10), LaneOf(4, 0): Mark(11), LaneOf(2, 0): Mark(5)}

    assert spent(marks, place(lanes=2, done_below=10)) == [LaneOf(1, 0)]


def rewound(marks: Mapping[LaneOf, Mark], offset: int, **options: object) -> bool:
    return bool(plan(marks, place(**options), [row(offset)]).rewound)  # type: ignore[arg-type]


def test_a_rewind_is_what_no_crash_explains() -> None:
    marks = {LaneOf(1, 0): Mark(100, (), inherited=100, done_below=60)}

    assert [rewound(marks, offset, max_uncommitted=50) for offset in (49, 50, 99, 100)] == [True, False, False, False]
    assert [rewound(marks, offset, foreign=True) for offset in (0, 99, 100)] == [True, True, False]


def test_a_long_way_back_is_no_rewind_where_nothing_says_that_it_was_done_for_good() -> None:
    """The bound is on records: where the log has gaps, their offsets may lie much further apart."""
    assert not rewound({LaneOf(1, 0): Mark(10**6, (), inherited=10**6, done_below=20)}, 20, max_uncommitted=50)


def test_what_the_same_owner_has_applied_is_never_a_rewind() -> None:
    assert not rewound({LaneOf(1, 0): Mark(100, (), inherited=0, done_below=90)}, 5, foreign=True)


def test_a_mark_that_is_rewound_says_nothing_of_what_follows() -> None:
    assert rewound_to(Mark(10, (3, 7)), 5) == Mark(5, (), inherited=5)
    assert rewound_to(Mark(4, (3,), done_below=2), 5) == Mark(4, (), inherited=4, done_below=2)


@dataclass
class Database:
    """The table of marks and what had its effect: compared and changed at once, as the statements do."""

    owner: str = ""
    epoch: int = 0
    marks: dict[LaneOf, Mark] = field(default_factory=dict)
    effects: list[int] = field(default_factory=list)
    known: dict[str, tuple[int, dict[LaneOf, Mark]]] = field(default_factory=dict)

    def take_over(self, owner: str) -> None:
        if self.owner != owner:
            self.owner, self.epoch = owner, self.epoch + 1
            self.marks = {
                lane: Mark(one.next_offset, one.holes, one.next_offset, one.done_below)
                for lane, one in self.marks.items()
            }

    def apply(self, where: Place, rows: Sequence[Row]) -> bool:
        """As the writer does; each owner knows the table as it was when it looked last."""
        at = LaneOf(where.lanes, where.lane)
        if where.owner not in self.known:
            self.take_over(where.owner)
            self.known[where.owner] = self.epoch, dict(self.marks)
        epoch, marks = self.known[where.owner]
        if (self.epoch, self.marks.get(at)) != (epoch, marks.get(at)):
            if self.owner != where.owner:
                del self.known[where.owner]
                return False  # it has lost the partition, and takes it back next time
            marks = dict(self.marks)
        found = plan(marks, where, rows)
        assert not found.rewound
        gone = spent(marks, where)
        after = advanced(marks.get(at), where, [one.offset for one in rows])
        self.marks = {**{one: mark for one, mark in self.marks.items() if one not in gone}, at: after}
        self.known[where.owner] = epoch, {**{one: mark for one, mark in marks.items() if one not in gone}, at: after}
        self.effects += [rows[index].offset for index in found.fresh]
        return True


@settings(max_examples=100 * SOAK)
@given(st.integers(0, 2**64))
def test_each_record_has_its_effect_once_and_in_the_order_of_its_key(seed: int) -> None:
    database = Database()

    Partition(Random(seed), database.apply, lambda: database.effects).run(steps=300)
