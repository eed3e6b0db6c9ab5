"""How rows come into a database: READ FIRST of this room.

One transaction for the rows of a slice. It passes the fence, if there is one; it moves the mark of the lane, which
fails if another has moved it; it makes the changes; it commits. What fails by a row's values is done again one row
after the other, so that what stands before that row is kept, with its mark, and the row is named. Everything else comes
through as the driver raises it, and nothing is repeated here: the mark tells the next call what became of this one.

The thread or process of the handler's instance.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from streamworker.errors import FatalError, ForeignRewind, OwnershipLost, RowFailed
from streamworker.interfaces import Written
from streamworker.sinks.changes import changes_of, coalesced, in_lock_order
from streamworker.sinks.database import Effect
from streamworker.sinks.marks import LaneOf, Mark, OnRewind, Plan, advanced, plan, spent
from streamworker.sinks.owners import claim, drop, look, put, rewind, take_over
from streamworker.sinks.tables import FENCED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamworker.interfaces import Row
    from streamworker.sinks.changes import Change
    from streamworker.sinks.database import Database, Fate, Session
    from streamworker.sinks.fences import HeldFence
    from streamworker.sinks.owners import Holding, Ledger
    from streamworker.sinks.tables import Table
    from streamworker.work import Place

# Each time somebody else has moved the mark of a lane of which one slice is out at a time.
_TRIES = 10


@dataclass(frozen=True, slots=True)
class Fence:
    """The fence that every write passes."""

    name: str
    held: HeldFence


class _Moved(Exception):
    """The mark or the epoch is not as it was known."""


class SqlWriter:
    """A `Writer` for one table. With a `ledger` it keeps marks there."""

    def __init__(
        self,
        table: Table,
        database: Database,
        *,
        ledger: Ledger | None,
        on_rewind: OnRewind,
        coalesce: bool,
        fence: Fence | None,
    ) -> None:
        self._table = table
        self._database = database
        self._ledger = ledger
        self._on_rewind = on_rewind
        self._coalesce = coalesce
        self._fence = fence

    def write(self, place: Place, rows: Sequence[Row]) -> Written:
        """As `Writer.write`. Raises FatalError, too: for what is lacking in the database, no record is to blame."""
        if not rows:
            return Written()
        try:
            if self._ledger is None:
                return self._attempt(_Step(place, rows, Plan(range(len(rows)), (), ())))
            return self._write_marked(self._ledger, place, rows)
        except Exception as error:  # the driver's, which the database tells apart
            if not self._database.of_schema(error):
                raise
            raise FatalError(
                f"{self._table.name}: {error}; `streamworker sinks check` tells what is lacking"
            ) from error

    def close(self) -> None:
        """As `Writer.close`."""
        self._database.close()

    def _write_marked(self, ledger: Ledger, place: Place, rows: Sequence[Row]) -> Written:
        for _ in range(_TRIES):
            holding = ledger.of(place) or self._take_over(ledger, place)
            found = plan(holding.marks, place, rows)
            if found.rewound and self._on_rewind is OnRewind.STOP:
                raise ForeignRewind(_rewound(place, holding, rows[found.rewound[0]].offset))
            if found.rewound and self._on_rewind is OnRewind.APPLY:
                self._rewind(place, holding)
            else:
                with suppress(_Moved):
                    return self._attempt(_Step(place, rows, found, ledger, holding))
            self._look_again(ledger, place)
        raise OwnershipLost(f"{place.partition}: another writer keeps moving the mark of lane {place.lane}")

    def _take_over(self, ledger: Ledger, place: Place) -> Holding:
        with self._database.transaction() as session:
            self._pass_fence(session)  # first: whoever has lost it must not take the partition from its owner
            holding = take_over(session, place)
        ledger.learn(place, holding)
        return holding

    def _rewind(self, place: Place, holding: Holding) -> None:
        with self._database.transaction() as session:
            self._pass_fence(session)
            rewind(session, place, holding)

    def _look_again(self, ledger: Ledger, place: Place) -> None:
        with self._database.transaction() as session:
            holding = look(session, place)
        if holding is None or holding.owner != place.owner:
            ledger.forget(place)
            raise OwnershipLost(f"{place.partition}: another owner writes to {self._table.name} now")
        ledger.learn(place, holding)

    def _attempt(self, step: _Step) -> Written:
        """All rows, or those before the one that cannot be written. Raises _Moved if another was faster."""
        changes: list[Change] = []
        for index in step.found.fresh:
            try:
                changes += changes_of(self._table, index, step.rows[index])
            except (TypeError, ValueError) as error:
                raise RowFailed(index, error, self.write(step.place, step.rows[:index])) from error
        if step.idle:
            return Written(repeated=tuple(step.found.repeated))
        try:
            with self._database.transaction() as session:
                self._begin(session, step)
                fates = self._change(session, changes)
                step.end(session)
        except Exception as error:  # as above
            if not self._database.of_row(error):
                raise
            return self._one_by_one(step, changes)
        step.learn()
        return step.written(fates)

    def _begin(self, session: Session, step: _Step) -> None:
        self._pass_fence(session)
        if not step.claim(session, self._table):
            raise _Moved

    def _pass_fence(self, session: Session) -> None:
        if self._fence is None:
            return
        held = self._fence.held.held
        if held is None:
            raise OwnershipLost(f"fence {self._fence.name!r}: this process does not hold it")
        if not session.count(FENCED, (self._fence.name, *held)):
            raise OwnershipLost(f"fence {self._fence.name!r}: a later holder than number {held[0]} has written")

    def _change(self, session: Session, changes: Sequence[Change]) -> dict[int, list[Fate]]:
        fates: dict[int, list[Fate]] = {}
        if self._table.upsert:
            changes = in_lock_order(coalesced(changes)) if self._coalesce else changes
        if changes:
            for change, fate in zip(changes, session.write(self._table, changes), strict=True):
                fates.setdefault(change.row, []).append(fate)
        return fates

    def _one_by_one(self, step: _Step, changes: Sequence[Change]) -> Written:
        """All rows again, each by itself; raises RowFailed for the first that cannot be written."""
        of_row: dict[int, list[Change]] = {}
        for change in changes:
            of_row.setdefault(change.row, []).append(change)
        fates: dict[int, list[Fate]] = {}
        failed: tuple[int, BaseException] | None = None
        with self._database.transaction() as session:
            self._begin(session, step)
            session.check_at_once()
            for index, own in of_row.items():
                try:
                    with session.savepoint():
                        kept = coalesced(own) if self._coalesce and self._table.upsert else own
                        fates[index] = list(session.write(self._table, kept))
                except Exception as error:  # as above
                    if not self._database.of_row(error):
                        raise
                    failed = index, error
                    break
            if failed is not None and failed[0] == 0:
                raise RowFailed(0, failed[1], Written()) from failed[1]
            if failed is not None:
                step.stop_before(failed[0], session)
            step.end(session)
        step.learn()
        if failed is None:
            return step.written(fates)
        index, cause = failed
        raise RowFailed(index, cause, step.written(fates)) from cause


@dataclass(slots=True)
class _Step:
    """One run of rows on its way, and the mark that goes with it. Without a ledger there is none."""

    place: Place
    rows: Sequence[Row]
    found: Plan
    ledger: Ledger | None = None
    holding: Holding | None = None
    after: Mark | None = None
    dropped: Sequence[LaneOf] = ()
    _before: Mark | None = field(init=False, default=None)
    _upto: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self._upto = len(self.rows)
        if self.holding is not None:
            self._before = self.holding.marks.get(LaneOf(self.place.lanes, self.place.lane))
            self.after = self._mark_of(self._upto)
            self.dropped = spent(self.holding.marks, self.place)

    @property
    def idle(self) -> bool:
        """Whether neither a row nor the mark has anything new."""
        return not self.found.fresh and self.after == self._before and not self.dropped

    def claim(self, session: Session, table: Table) -> bool:
        """Move the mark; false if it is another by now."""
        if self.holding is None or self.after is None:
            return True
        return claim(session, table.dialect, self.place, self.holding, self.after)

    def stop_before(self, index: int, session: Session) -> None:
        """Only the rows before `index`, of which there are some, were written."""
        self._upto = index
        if self.holding is None:
            return
        self.after = self._mark_of(index)
        put(session, self.place, self.after)

    def end(self, session: Session) -> None:
        """Take away what the marks of other lane counts say no more."""
        if self.holding is not None:
            drop(session, self.place, self.holding, self.dropped)

    def learn(self) -> None:
        """The transaction is committed."""
        if self.ledger is not None and self.holding is not None and self.after is not None:
            self.ledger.moved(self.place, self.holding, self.after, self.dropped)

    def written(self, fates: dict[int, list[Fate]]) -> Written:
        """What became of the rows, by the fates of their changes."""
        repeated = [index for index in self.found.repeated if index < self._upto]
        repeated += [index for index, own in fates.items() if _all(own, Effect.REPEATED)]
        superseded = [index for index, own in fates.items() if _all(own, Effect.SUPERSEDED)]
        versions = {
            index: own[0].version
            for index, own in sorted(fates.items())
            if len(own) == 1 and own[0].version is not None
        }
        return Written(repeated=tuple(sorted(repeated)), superseded=tuple(sorted(superseded)), versions=versions)

    def _mark_of(self, count: int) -> Mark:
        """The mark after so many of the rows."""
        return advanced(self._before, self.place, [row.offset for row in self.rows[:count]])


def _all(fates: Sequence[Fate], effect: Effect) -> bool:
    return bool(fates) and all(fate.effect is effect for fate in fates)


def _rewound(place: Place, holding: Holding, offset: int) -> str:
    furthest = max(mark.inherited for mark in holding.marks.values())
    return (
        f"{place.partition}@{offset} comes again, and records up to {furthest} were applied: the group's offset was"
        f" moved back; `streamworker marks reset` lets them have their effect again, on_rewind='skip' leaves them out"
    )
