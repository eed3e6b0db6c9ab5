"""Marks: whatever is parked, tried again, redelivered or moved between lanes, each record has its effect once."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

import pytest
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

KEYS: Sequence[bytes | None] = (b"a", b"b", b"c", b"d", b"e", None)


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

    def take_over(self, owner: str) -> None:
        if self.owner != owner:
            self.owner, self.epoch = owner, self.epoch + 1
            self.marks = {
                lane: Mark(one.next_offset, one.holes, one.next_offset, one.done_below)
                for lane, one in self.marks.items()
            }


@dataclass
class Worker:
    """An owner of the partition: what was delivered to it, what it holds, and what it knows of the database."""

    owner: str
    lanes: int
    committed: int
    delivered: int
    done: set[int] = field(default_factory=set)
    held: set[int] = field(default_factory=set)
    known: tuple[int, dict[LaneOf, Mark]] | None = None

    def lane(self, keys: Sequence[bytes | None], lane: int) -> list[int]:
        """Records of a lane that are not done, in order."""
        found = range(self.committed, self.delivered)
        return [one for one in found if one not in self.done and lane_of(keys[one], one, self.lanes) == lane]

    def blocked(self, keys: Sequence[bytes | None], offset: int) -> bool:
        """Whether an earlier record of its key is held."""
        return keys[offset] is not None and any(one < offset and keys[one] == keys[offset] for one in self.held)


class Partition:
    """One partition, its owner, and one from before that still runs. `chance` decides what happens next."""

    def __init__(self, chance: Random) -> None:
        self.chance = chance
        self.log = chance.choices(KEYS, k=80)
        self.database = Database()
        self.committed = 0
        self.owners = 0
        self.given_up: set[int] = set()
        self.now = self.assign()
        self.zombie: Worker | None = None

    def assign(self) -> Worker:
        self.owners += 1
        return Worker(f"owner {self.owners}", self.chance.randint(1, 4), self.committed, self.committed)

    def step(self) -> None:
        match self.chance.choices(range(6), weights=(60, 15, 3, 10, 8, 4))[0]:
            case 0:
                self.now.delivered = min(len(self.log), self.now.delivered + self.chance.randint(0, 3))
                self.handle_some(self.now, fails=self.chance.random() < 0.3)
            case 1:
                self.try_a_held_record_again()
            case 2:
                self.give_a_held_record_up()
            case 3:
                self.commit()
            case 4 if self.zombie is not None:
                self.handle_some(self.zombie, fails=False)
            case 5:
                self.zombie = self.now if self.chance.random() < 0.7 else None
                self.now = self.assign()
        self.check()

    def handle_some(self, worker: Worker, *, fails: bool) -> None:
        """A run from the front of a lane, the last of which may fail and is then held."""
        waiting = [one for one in worker.lane(self.log, self.chance.randrange(worker.lanes)) if one not in worker.held]
        run = [one for one in waiting if not worker.blocked(self.log, one)][: self.chance.randint(1, 5)]
        failed = {run.pop()} if run and fails else set()
        if not run or self.write(worker, run):
            worker.held |= failed

    def a_held_record(self) -> int | None:
        ready = sorted(one for one in self.now.held if not self.now.blocked(self.log, one))
        return self.chance.choice(ready) if ready else None

    def try_a_held_record_again(self) -> None:
        offset = self.a_held_record()
        if offset is not None:
            self.write(self.now, [offset])

    def give_a_held_record_up(self) -> None:
        offset = self.a_held_record()
        if offset is not None:
            self.now.held.discard(offset)
            self.now.done.add(offset)
            self.given_up.add(offset)

    def commit(self) -> None:
        worker = self.now
        open_ = [one for one in range(worker.committed, worker.delivered) if one not in worker.done]
        self.committed = worker.committed = min(open_, default=worker.delivered)
        worker.done = {one for one in worker.done if one >= worker.committed}

    def write(self, worker: Worker, run: list[int]) -> bool:
        """As the writer does; false if it does not hear what became of it, which happens now and then."""
        lane = lane_of(self.log[run[0]], run[0], worker.lanes)
        open_ = tuple(one for one in worker.lane(self.log, lane) if one < run[-1] and one not in run)
        where = place(worker.owner, lanes=worker.lanes, lane=lane, done_below=worker.committed, open_below=open_)
        at = LaneOf(worker.lanes, lane)
        if worker.known is None:
            self.database.take_over(worker.owner)
            worker.known = self.database.epoch, dict(self.database.marks)
        epoch, marks = worker.known
        if (self.database.epoch, self.database.marks.get(at)) != (epoch, marks.get(at)):
            same = self.database.owner == worker.owner
            worker.known = (epoch, dict(self.database.marks)) if same else None
            if worker.known is None:
                return False  # it has lost the partition, and takes it back next time
            marks = worker.known[1]
        found = plan(marks, where, [row(one, key=self.log[one]) for one in run])
        assert not found.rewound
        gone = spent(marks, where)
        after = {
            **{one: mark for one, mark in marks.items() if one not in gone},
            at: advanced(marks.get(at), where, run),
        }
        self.database.marks = {one: mark for one, mark in self.database.marks.items() if one not in gone}
        self.database.marks[at] = after[at]
        self.database.effects += [run[index] for index in found.fresh]
        if self.chance.random() < 0.15:
            return False
        worker.known = epoch, after
        worker.done.update(run)
        worker.held.difference_update(run)
        return True

    def check(self) -> None:
        effects = self.database.effects
        assert len(set(effects)) == len(effects), "a second effect"
        assert set(range(self.committed)) <= set(effects) | self.given_up, "committed without an effect"
        for key in KEYS[:-1]:
            of_key = [one for one in effects if self.log[one] == key and one not in self.given_up]
            assert of_key == sorted(of_key), "out of order"


@settings(max_examples=100 * SOAK)
@given(st.integers(0, 2**64))
def test_each_record_has_its_effect_once_and_in_the_order_of_its_key(seed: int) -> None:
    partition = Partition(Random(seed))

    for _ in range(300):
        partition.step()

    # What is left is handled without a failure.
    while partition.committed < len(partition.log):
        partition.now.delivered = len(partition.log)
        partition.try_a_held_record_again()
        partition.handle_some(partition.now, fails=False)
        partition.commit()
        partition.check()
