"""A sink in memory for tests, which can be away, refuse a row, or lose its answer.

It keeps the promises of `Writer` that the sinks for databases keep: what comes again has no second effect, and an
owner that has been followed by another writes nothing. It is shared by the threads of one process.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from streamworker.errors import Misuse, OwnershipLost, RowFailed
from streamworker.interfaces import Written

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamworker.interfaces import Row, SinkContext
    from streamworker.record import Origin, TopicPartition
    from streamworker.work import Place


@dataclass(frozen=True, slots=True)
class SinkEffect:
    """A row that was written, once; `place` is that of its write."""

    place: Place
    row: Row


class FakeSink:
    """A `Sink` that keeps what is written to it. Any thread of one process; one child process does not see another's.

    It counts each record once, by group and origin. With `by_key` it also refuses a record if a later one of its
    partition and key is there.
    """

    def __init__(self, name: str = "fake", *, by_key: bool = False) -> None:
        self.name = name
        self.knows_repeats = True
        self.keeps_marks = False
        self.effects: list[SinkEffect] = []
        self.writers: list[FakeWriter] = []  # all that were made
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
        self._refuse_former_owners(place)
        written = self._written(place, rows)
        if self._lost_answers:
            raise self._lost_answers.pop()
        return written

    def _refuse_former_owners(self, place: Place) -> None:
        owners = self._owners[place.group, place.partition]
        if place.owner not in owners:
            owners.append(place.owner)
        if place.owner != owners[-1]:
            raise OwnershipLost(f"{place.partition} belongs to {owners[-1]}, not to {place.owner} any more")

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
