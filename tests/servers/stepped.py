"""A PostgreSQL sink that tells of each step before it takes it, so that a test can do harm there."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from streamworker import PostgresSink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from streamworker.sinks.changes import Change
    from streamworker.sinks.database import Fate, Session
    from streamworker.sinks.postgres import PostgresDatabase
    from streamworker.sinks.tables import Table


@dataclass(frozen=True)
class SteppedSink(PostgresSink):
    """`step` is called with `begin`, a statement's first word, `write`, `commit` or `committed`."""

    step: Callable[[str], None] = lambda _: None

    def database(self, url: str) -> SteppedDatabase:  # type: ignore[override]  # it stands before one
        return SteppedDatabase(super().database(url), self.step)


class SteppedDatabase:
    """A `Database` before another."""

    def __init__(self, database: PostgresDatabase, step: Callable[[str], None]) -> None:
        self._database = database
        self._step = step
        self.of_row = database.of_row
        self.of_schema = database.of_schema
        self.columns = database.columns
        self.unique_keys = database.unique_keys
        self.close = database.close

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        self._step("begin")
        with self._database.transaction() as session:
            yield SteppedSession(session, self._step)
            self._step("commit")
        self._step("committed")


class SteppedSession:
    """A `Session` before another."""

    def __init__(self, session: Session, step: Callable[[str], None]) -> None:
        self._session = session
        self._step = step

    def rows(self, statement: str, values: Sequence[object] = ()) -> Sequence[tuple[object, ...]]:
        self._step(statement.split(maxsplit=1)[0])
        return self._session.rows(statement, values)

    def count(self, statement: str, values: Sequence[object] = ()) -> int:
        self._step(statement.split(maxsplit=1)[0])
        return self._session.count(statement, values)

    def savepoint(self) -> AbstractContextManager[None]:
        return self._session.savepoint()

    def check_at_once(self) -> None:
        self._step("check")
        self._session.check_at_once()

    def write(self, table: Table, changes: Sequence[Change]) -> Sequence[Fate]:
        self._step("write")
        return self._session.write(table, changes)
