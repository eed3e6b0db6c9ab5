"""Rows into SQLite, by the module of the standard library: a database in a file, without a server."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import sqlite3
import uuid
from collections.abc import Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import msgspec

from streamworker.errors import ConfigurationError
from streamworker.sinks.database import write_one
from streamworker.sinks.sql import SqlSink
from streamworker.sinks.tables import Dialect, names_ours, quoted

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from streamworker.sinks.changes import Change
    from streamworker.sinks.database import Fate, Session
    from streamworker.sinks.tables import Table

SQLITE = Dialect(
    share="",  # a transaction that writes is the only one
    now_us="CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)",
    text="TEXT",
    integer="INTEGER",
    often_changed=" WITHOUT ROWID",
    adds_once="",
)
_OF_ROW = (
    sqlite3.IntegrityError,
    sqlite3.DataError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
    OverflowError,  # an integer of more than 64 bits
)
# How long a writer waits for another: they take turns, and a turn is a slice.
_BUSY_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class SqliteSink(SqlSink):
    """A `SqlSink` for SQLite, at `sqlite:///path` or, from the root, `sqlite:////path`."""

    @staticmethod
    def dialect() -> Dialect:
        """As of `SqlSink`."""
        return SQLITE

    @staticmethod
    def driver_error() -> type[Exception]:
        """As of `SqlSink`."""
        return sqlite3.Error

    def database(self, url: str) -> SqliteDatabase:
        """As of `SqlSink`."""
        parts = urlsplit(url)
        if parts.scheme != "sqlite" or parts.netloc or len(parts.path) < 2 or parts.query:
            raise ConfigurationError(f"sinks.{self.name}: expected sqlite:///path, got {parts.scheme or 'no'!r} URL")
        return SqliteDatabase(Path(unquote(parts.path[1:])))


class SqliteDatabase:
    """A `Database` in a file. Writers of all threads and processes take turns."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """As `Database.transaction`."""
        connection = self._connected()
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield _SqliteSession(connection)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def of_row(self, error: BaseException) -> bool:
        """As `Database.of_row`."""
        if isinstance(error, sqlite3.OperationalError):
            return "has no column named" in str(error) and not self.of_schema(error)
        return isinstance(
            error,
            (
                sqlite3.IntegrityError,
                sqlite3.DataError,
                sqlite3.InterfaceError,
                sqlite3.ProgrammingError,
                OverflowError,
            ),
        )

    def of_schema(self, error: BaseException) -> bool:
        """As `Database.of_schema`."""
        text = str(error)
        return isinstance(error, sqlite3.OperationalError) and (
            text.startswith(("no such table", "ON CONFLICT clause does not match"))
            or ("column" in text and names_ours(text))
        )

    def columns(self, table: str) -> Mapping[str, str] | None:
        """As `Database.columns`."""
        found = self._about(table, "table_info")
        return {str(row[1]): str(row[2]) for row in found} or None

    def unique_keys(self, table: str) -> Collection[frozenset[str]]:
        """As `Database.unique_keys`."""
        primary = frozenset(str(row[1]) for row in self._about(table, "table_info") if row[5])
        indices = [str(row[1]) for row in self._about(table, "index_list") if row[2] and not row[4]]
        return [primary, *(frozenset(str(row[2]) for row in self._about(one, "index_info")) for one in indices)]

    def close(self) -> None:
        """As `Database.close`."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _about(self, name: str, pragma: str) -> Sequence[tuple[object, ...]]:
        schema, _, name = name.rpartition(".")
        of = f"{quoted(schema)}." if schema else ""
        with closing(self._connected().execute(f"PRAGMA {of}{pragma}({quoted(name)})")) as cursor:
            return cursor.fetchall()

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            # Closed by whoever ends the instance, which may be another thread.
            connection = sqlite3.connect(
                self._path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA foreign_keys = ON")
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection


class _SqliteSession:
    """A `Session` of SQLite."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def rows(self, statement: str, values: Sequence[object] = ()) -> Sequence[tuple[object, ...]]:
        with closing(self._connection.execute(statement, [_taken(one) for one in values])) as cursor:
            return cursor.fetchall()

    def count(self, statement: str, values: Sequence[object] = ()) -> int:
        with closing(self._connection.execute(statement, [_taken(one) for one in values])) as cursor:
            return cursor.rowcount

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        self._connection.execute("SAVEPOINT sw_row")
        try:
            yield
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK TO sw_row")
                self._connection.execute("RELEASE sw_row")
            raise
        self._connection.execute("RELEASE sw_row")

    def check_at_once(self) -> None:
        """Nothing: SQLite has no statement for it."""

    def write(self, table: Table, changes: Sequence[Change]) -> Sequence[Fate]:
        return [write_one(self, table, change) for change in changes]


def _taken(value: object) -> str | int | float | bytes | bytearray | memoryview | None:
    """`value` as one of the types that SQLite has."""
    match value:
        case enum.Enum():
            return _taken(value.value)
        case None | str() | int() | float() | bytes() | bytearray() | memoryview():
            return value
        case Decimal() | uuid.UUID():
            return str(value)
        case dt.date() | dt.time():
            return value.isoformat()
        case Mapping() | list() | tuple() | set() | frozenset() | msgspec.Struct():
            return _as_json(value)
        case _ if dataclasses.is_dataclass(value):
            return _as_json(value)
    raise sqlite3.ProgrammingError(f"SQLite takes no {type(value).__name__}")


def _as_json(value: object) -> str:
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError) as error:
        raise sqlite3.ProgrammingError(f"this cannot be written as JSON: {error}") from error
