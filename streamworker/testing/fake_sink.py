"""A sink in memory for tests, which can be away, refuse a row, or lose its answer.

It keeps the promises of `Writer` that the sinks for databases keep: what comes again has no second effect, and an
owner that has been followed by another writes nothing. By default it knows each record; with `marks` it knows of each
lane what a database knows, and decides by the same rules. It is shared by the threads of one process.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from streamworker.errors import ForeignRewind, Misuse, OwnershipLost, RowFailed
from streamworker.interfaces import Written
from streamworker.sinks.marks import LaneOf, Mark, OnRewind, advanced, plan, rewound_to, spent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamworker.interfaces import Row, SinkContext
    from streamworker.record import Origin, TopicPartition
    from streamworker.sinks.marks import Plan
    from streamworker.work import Place


@dataclass(frozen=True, slots=True)
class SinkEffect:
    """A row that was written, once; `place` is that of its write."""

    place: Place
    row: Row


class FakeSink:
    """A `Sink` that keeps what is written to it. Any thread of one process; one child process does not see another's.

    It counts each record once, by group and origin. With `by_key` it also refuses a record if a later one of its
    partition and key is there. With `marks` it goes by the marks of lanes instead, as `PostgresSink` does with
    `guard="mark"`; what it does not recognise then is there twice. `on_rewind` is as of that sink.
    """

    def __init__(
        self, name: str = "fake", *, by_key: bool = False, marks: bool = False, on_rewind: OnRewind | str = "stop"
    ) -> None:
        self.name = name
        self.knows_repeats = True
        self.keeps_marks = marks
        self.effects: list[SinkEffect] = []
        self.writers: list[FakeWriter] = []  # all that were made
        self._marks = _Marks(OnRewind(on_rewind)) if marks else None
        self._lock = threading.Lock()  # protects the marks from threads that write other lanes
        self._by_key = by_key
        self._applied: dict[tuple[str, Origin], SinkEffect] = {}
        self._owners: dict[tuple[str, TopicPartition], list[str]] = defaultdict(list)
        self._refusals: dict[int, list[BaseException]] = defaultdict(list)
        self._away: BaseException | None = None
        self._lost_answers: list[BaseException] = []

    @property
    def values(self) -> Sequence[object]:
        """All values that were written, in order."""
        return [value for effect in self.effects for value in effect.row.values]

    def refuse(self, offset: int, error: BaseException, *, times: int = 1) -> None:
        """Fail the row that was delivered from `offset` with `error`, so many times."""
        self._refusals[offset] += [error] * times

    def go_away(self, error: BaseException | None = None) -> None:
        """Raise `error`, or else a ConnectionError, for each write from now on, which has no effect."""
        self._away = error or ConnectionError(f"{self.name} is away")

    def come_back(self) -> None:
        """Write again what comes."""
        self._away = None

    def lose_answers(self, times: int = 1) -> None:
        """Raise ConnectionError for the next `times` writes, which have their effect."""
        self._lost_answers += [ConnectionError(f"{self.name}: the answer was lost") for _ in range(times)]

    def writer(self, context: SinkContext) -> FakeWriter:  # noqa: ARG002 - it needs no connection
        """A writer for one instance."""
        writer = FakeWriter(self)
        self.writers.append(writer)
        return writer

    def write(self, place: Place, rows: Sequence[Row]) -> Written:
        """As `Writer.write`; raises Misuse for rows that are not in offset order."""
        offsets = [row.offset for row in rows]
        if offsets != sorted(set(offsets)):
            raise Misuse(f"expected rows in offset order, got {offsets}")
        if self._away is not None:
            raise self._away
        if self._marks is None:
            self._refuse_former_owners(place)
            written = self._written(place, rows)
        elif not rows:
            return Written()
        else:
            with self._lock:
                written = self._written_by_marks(self._marks, place, rows)
        if self._lost_answers:
            raise self._lost_answers.pop()
        return written

    def _refuse_former_owners(self, place: Place) -> None:
        owners = self._owners[place.group, place.partition]
        if place.owner not in owners:
            owners.append(place.owner)
        if place.owner != owners[-1]:
            raise OwnershipLost(f"{place.partition} belongs to {owners[-1]}, not to {place.owner} any more")

    def _written_by_marks(self, marks: _Marks, place: Place, rows: Sequence[Row]) -> Written:
        found = marks.plan(place, rows)
        fresh = set(found.fresh)
        for index, row in enumerate(rows):
            if index in fresh and self._refusals[row.offset]:
                error = self._refusals[row.offset].pop()
                marks.move(place, rows[:index])
                before = Written(tuple(one for one in found.repeated if one < index))
                raise RowFailed(index, error, before) from error
            if index in fresh:
                self.effects.append(SinkEffect(place, row))
        marks.move(place, rows)
        return Written(tuple(found.repeated))

    def _written(self, place: Place, rows: Sequence[Row]) -> Written:
        repeated: list[int] = []
        superseded: list[int] = []
        for index, row in enumerate(rows):
            if self._refusals[row.offset]:
                error = self._refusals[row.offset].pop()
                raise RowFailed(index, error, Written(tuple(repeated), tuple(superseded))) from error
            if (place.group, row.origin) in self._applied:
                repeated.append(index)
            elif self._by_key and self._has_later(place.group, row):
                superseded.append(index)
            else:
                self._apply(SinkEffect(place, row))
        return Written(tuple(repeated), tuple(superseded))

    def _apply(self, effect: SinkEffect) -> None:
        self._applied[effect.place.group, effect.row.origin] = effect
        self.effects.append(effect)

    def _has_later(self, group: str, row: Row) -> bool:
        return row.key is not None and any(
            of_group == group
            and effect.row.key == row.key
            and origin[:2] == row.origin[:2]
            and origin.offset > row.origin.offset
            for (of_group, origin), effect in self._applied.copy().items()  # other threads write meanwhile
        )


class _Marks:
    """Of each partition its owner and the marks of its lanes. Under the sink's lock.

    An owner that has been followed learns it from its next write. If it writes after that, it takes over.
    """

    def __init__(self, on_rewind: OnRewind) -> None:
        self._on_rewind = on_rewind
        self._owners: dict[tuple[str, TopicPartition], str] = {}
        self._thinks_it_owns: set[tuple[str, TopicPartition, str]] = set()
        self._marks: dict[tuple[str, TopicPartition], dict[LaneOf, Mark]] = defaultdict(dict)

    def plan(self, place: Place, rows: Sequence[Row]) -> Plan:
        """As of `sinks.marks`, for who owns the partition; raises OwnershipLost and ForeignRewind."""
        self._take_over(place)
        marks = self._marks[place.group, place.partition]
        found = plan(marks, place, rows)
        if found.rewound and self._on_rewind is OnRewind.STOP:
            raise ForeignRewind(f"{place.partition}@{rows[found.rewound[0]].offset} comes again")
        if found.rewound and self._on_rewind is OnRewind.APPLY:
            marks.update({lane: rewound_to(mark, place.done_below) for lane, mark in marks.items()})
            found = plan(marks, place, rows)
        return found

    def move(self, place: Place, rows: Sequence[Row]) -> None:
        """All `rows` are written, of which there may be none."""
        marks, lane = self._marks[place.group, place.partition], LaneOf(place.lanes, place.lane)
        if rows:
            marks[lane] = advanced(marks.get(lane), place, [row.offset for row in rows])
            for one in spent(marks, place):
                del marks[one]

    def _take_over(self, place: Place) -> None:
        partition, claim = (place.group, place.partition), (place.group, place.partition, place.owner)
        owner = self._owners.get(partition)
        if owner == place.owner:
            return
        if claim in self._thinks_it_owns:
            self._thinks_it_owns.discard(claim)
            raise OwnershipLost(f"{place.partition} belongs to {owner}, not to {place.owner} any more")
        self._thinks_it_owns.add(claim)
        self._owners[partition] = place.owner
        marks = self._marks[partition]
        marks.update({lane: replace(mark, inherited=mark.next_offset) for lane, mark in marks.items()})


class FakeWriter:
    """A `Writer` of one instance, which writes to its sink."""

    def __init__(self, sink: FakeSink) -> None:
        self._sink = sink
        self.closed = False

    def write(self, place: Place, rows: Sequence[Row]) -> Written:
        """As `FakeSink.write`; raises Misuse after `close`."""
        if self.closed:
            raise Misuse(f"{self._sink.name}: the writer is closed")
        return self._sink.write(place, rows)

    def close(self) -> None:
        """Write no more. Idempotent."""
        self.closed = True
