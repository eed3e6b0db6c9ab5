"""What a sink asks of its database, as protocols: transactions, statements, and which errors are a row's fault."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, NamedTuple, Protocol

from streamworker.sinks.tables import delete_one, insert_one, origin_of_one

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from contextlib import AbstractContextManager

    from streamworker.sinks.changes import Change
    from streamworker.sinks.tables import Table


class Effect(enum.Enum):
    """What a change did."""

    WRITTEN = "written"
    REPEATED = "repeated"  # the row was written for the same record before
    SUPERSEDED = "superseded"  # the row was written for a later record


class Fate(NamedTuple):
    """What became of a change, and the version that the row has by it."""

    effect: Effect
    version: int | None = None


WRITTEN = Fate(Effect.WRITTEN)


class Session(Protocol):
    """A transaction in progress, on the thread that began it. Every call raises what the driver raises."""

    def rows(self, statement: str, values: Sequence[object] = ()) -> Sequence[tuple[object, ...]]:
        """What it answers."""

    def count(self, statement: str, values: Sequence[object] = ()) -> int:
        """How many rows it wrote."""

    def savepoint(self) -> AbstractContextManager[None]:
        """What fails inside leaves what was before as it was."""

    def check_at_once(self) -> None:
        """Let no constraint wait for the end."""

    def write(self, table: Table, changes: Sequence[Change]) -> Sequence[Fate]:
        """Make them, as fast as it can; the fates are in the order of `changes`."""


class Database(Protocol):
    """A connection that is made when it is needed first, and anew after it broke. One thread at a time."""

    def transaction(self) -> AbstractContextManager[Session]:
        """Everything inside, or nothing of it. Raises what the driver raises, on commit too."""

    def of_row(self, error: BaseException) -> bool:
        """Whether the statement failed by the values in it, and not by the server, the connection or the schema."""

    def of_schema(self, error: BaseException) -> bool:
        """Whether something is lacking that every row needs: a table, a column of the sink's own, a key, a right."""

    def columns(self, table: str) -> Mapping[str, str] | None:
        """Columns of a table with their types; None if there is no such table."""

    def unique_keys(self, table: str) -> Collection[frozenset[str]]:
        """Sets of columns by which a row of a table is the only one."""

    def close(self) -> None:
        """Let go of the connection. Idempotent."""


def write_one(session: Session, table: Table, change: Change) -> Fate:
    """Make one change by statements of its own."""
    origin = change.origin if table.row_guard else ()
    if change.values is None:
        if session.count(delete_one(table), (*change.key, *origin)) or not table.row_guard:
            return WRITTEN
        return refused(session, table, change)
    statement = insert_one(table, change.columns)
    if not table.answers:
        session.count(statement, change.values)
        return WRITTEN
    found = session.rows(statement, (*change.values, *origin))
    return written(found[0][-1]) if found else refused(session, table, change)


def written(version: object) -> Fate:
    """The fate of a row with this answer."""
    return Fate(Effect.WRITTEN, version if isinstance(version, int) else None)


def refused(session: Session, table: Table, change: Change) -> Fate:
    """Why the row guard let a change have no effect; none was needed where a row to delete is not there."""
    found = session.rows(origin_of_one(table), change.key)
    if not found:
        return WRITTEN
    return Fate(Effect.REPEATED if tuple(found[0]) == tuple(change.origin) else Effect.SUPERSEDED)
