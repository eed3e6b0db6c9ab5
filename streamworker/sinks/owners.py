"""Whose a partition is at the database, and the marks of its lanes as this process knows them.

An ownership's first write takes the partition over: it raises the epoch of all its marks, so that what an earlier owner
still has in hand finds none of them. That is waited for, so afterwards nothing of it can come. Every later write names
the epoch and the mark that it expects, hence what is known here may be stale and nothing goes wrong.

Ledgers are shared by the writers of a handler in a process; each child process has one of its own. Any thread.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from streamworker.sinks.marks import LaneOf, Mark, decode_holes, encode_holes, rewound_to
from streamworker.sinks.tables import (
    DROP,
    INHERIT,
    MARKS,
    MOVE,
    NEW_EPOCH,
    PUT,
    REWIND,
    TAKE_OVER,
    begin_lane,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from streamworker.record import TopicPartition
    from streamworker.sinks.database import Session
    from streamworker.sinks.tables import Dialect
    from streamworker.work import Place


@dataclass(frozen=True, slots=True)
class Holding:
    """A partition as it was read: whose it is, since which epoch, and its marks."""

    owner: str
    epoch: int
    marks: Mapping[LaneOf, Mark]


class Ledger:
    """What is known of the partitions that this process writes for. Any thread."""

    def __init__(self) -> None:
        self._holdings: dict[TopicPartition, Holding] = {}
        self._lock = threading.Lock()  # protects _holdings from writers of other lanes

    def of(self, place: Place) -> Holding | None:
        """What is known of the partition; None if its ownership has not written yet."""
        with self._lock:
            found = self._holdings.get(place.partition)
        return found if found is not None and found.owner == place.owner else None

    def learn(self, place: Place, holding: Holding) -> None:
        """It was read anew."""
        with self._lock:
            self._holdings[place.partition] = holding

    def forget(self, place: Place) -> None:
        """The partition is another's, so the next write of `place.owner` takes it over."""
        with self._lock:
            found = self._holdings.get(place.partition)
            if found is not None and found.owner == place.owner:
                del self._holdings[place.partition]

    def moved(self, place: Place, holding: Holding, mark: Mark, dropped: Iterable[LaneOf]) -> None:
        """A write under `holding` has moved the mark of its lane."""
        with self._lock:
            found = self._holdings.get(place.partition)
            if found is None or (found.owner, found.epoch) != (holding.owner, holding.epoch):
                return
            marks = {**found.marks, LaneOf(place.lanes, place.lane): mark}
            for one in dropped:
                marks.pop(one, None)
            self._holdings[place.partition] = Holding(found.owner, found.epoch, marks)


def take_over(session: Session, place: Place) -> Holding:
    """Make the partition that of `place.owner`, unless it is already: by another process of the same worker."""
    if session.count(TAKE_OVER, (*_partition(place), place.owner)):
        session.count(INHERIT, (place.owner, *_partition(place), *_partition(place)))
    found = look(session, place)
    assert found is not None  # its row was written above
    return found


def look(session: Session, place: Place) -> Holding | None:
    """The partition as it is now; None if nobody has ever written of it."""
    marks: dict[LaneOf, Mark] = {}
    owner, epoch = None, 0
    for lanes, lane, next_offset, holes, its_epoch, its_owner, inherited, done_below in session.rows(
        MARKS, _partition(place)
    ):
        if lanes == 0:
            owner, epoch = str(its_owner), cast("int", its_epoch)
            continue
        numbers = cast("tuple[int, int, int, int, int]", (lanes, lane, next_offset, inherited, done_below))
        marks[LaneOf(*numbers[:2])] = Mark(numbers[2], decode_holes(str(holes)), *numbers[3:])
    return None if owner is None else Holding(owner, epoch, marks)


def claim(session: Session, dialect: Dialect, place: Place, holding: Holding, after: Mark) -> bool:
    """Move the mark of the lane to `after`; false if it or the epoch is not as in `holding`.

    The mark is locked from here to the end of the transaction.
    """
    before = holding.marks.get(LaneOf(place.lanes, place.lane))
    position = (after.next_offset, encode_holes(after.holes), after.done_below)
    if before is None:
        values = (*_lane(place), *position, *_partition(place), holding.epoch)
        return session.count(begin_lane(dialect), values) == 1
    expected = (holding.epoch, before.next_offset, encode_holes(before.holes))
    return session.count(MOVE, (*position, *_lane(place), *expected)) == 1


def put(session: Session, place: Place, mark: Mark) -> None:
    """Correct the mark that this transaction has claimed."""
    session.count(PUT, (mark.next_offset, encode_holes(mark.holes), mark.done_below, *_lane(place)))


def drop(session: Session, place: Place, holding: Holding, lanes: Sequence[LaneOf]) -> None:
    """Take marks away that say nothing any more."""
    for one in lanes:
        session.count(DROP, (*_partition(place), *one, holding.epoch))


def rewind(session: Session, place: Place, holding: Holding) -> bool:
    """Let all marks of the partition say nothing of what is not done; false if the epoch is not as in `holding`."""
    if not session.count(NEW_EPOCH, (*_partition(place), holding.epoch)):
        return False
    for lane, mark in holding.marks.items():
        back = rewound_to(mark, place.done_below)
        session.count(REWIND, (back.next_offset, back.inherited, back.done_below, *_partition(place), *lane))
    return True


def _partition(place: Place) -> tuple[str, str, int]:
    return place.group, *place.partition


def _lane(place: Place) -> tuple[str, str, int, int, int]:
    return *_partition(place), place.lanes, place.lane
