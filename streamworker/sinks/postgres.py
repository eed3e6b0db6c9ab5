"""Rows into PostgreSQL. The door of psycopg.

Rows go in by one statement over arrays, which took 3.5 ms for 500 upserts where a pipeline of single ones took 4.8; new
rows without a version by COPY. Columns that are arrays themselves, and writes that may change a row twice, go by the
pipeline.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import uuid
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from itertools import groupby
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

import msgspec

from streamworker.errors import ConfigurationError
from streamworker.sinks.database import WRITTEN, refused, write_one, written
from streamworker.sinks.sql import SqlSink
from streamworker.sinks.tables import (
    VERSION,
    Dialect,
    delete_one,
    insert,
    insert_one,
    names_ours,
    quoted,
    written_columns,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from psycopg import Connection

    from streamworker.sinks.changes import Change
    from streamworker.sinks.database import Fate, Session
    from streamworker.sinks.tables import Table

POSTGRES = Dialect(
    share="FOR SHARE",
    now_us="(extract(epoch FROM clock_timestamp()) * 1000000)::bigint",
    text="text",
    integer="bigint",
    often_changed=" WITH (fillfactor = 50)",
    adds_once="IF NOT EXISTS",
)
_SCHEMES = ("postgresql", "postgres")
# Where the URL does not say otherwise: a server that is gone without a word is noticed.
_DEFAULTS = {
    "connect_timeout": "10",
    "keepalives_idle": "30",
    "tcp_user_timeout": "30000",
    "application_name": "streamworker",
}
# Of a row's values, though psycopg takes them for errors of the program: SQLSTATE of what a function raises, of names
# and types that do not fit, and of two changes of a row in a statement.
_NO_COLUMN = "42703"
_OF_ROW = frozenset({"P0001", _NO_COLUMN, "42804", "42883", "42846", "428C9", "21000", None})
# There is no table, no schema, no right, or no unique key.
_OF_SCHEMA = frozenset({"42P01", "3F000", "42501", "42P10"})


@dataclass(frozen=True)
class PostgresSink(SqlSink):
    """A `SqlSink` for PostgreSQL, at `postgresql://…`; the options of the URL are libpq's."""

    @staticmethod
    def dialect() -> Dialect:
        """As of `SqlSink`."""
        return POSTGRES

    @staticmethod
    def driver_error() -> type[Exception]:
        """As of `SqlSink`."""
        import psycopg  # noqa: PLC0415 - only who uses PostgreSQL needs the package

        return psycopg.Error

    def database(self, url: str) -> PostgresDatabase:
        """As of `SqlSink`."""
        option = f"sinks.{self.name}"
        try:
            import psycopg  # noqa: PLC0415 - only who uses PostgreSQL needs the package
        except ImportError as error:
            raise ConfigurationError(f"{option}: needs psycopg; install streamworker[postgres]") from error
        parts = urlsplit(url)
        if parts.scheme not in _SCHEMES:
            raise ConfigurationError(f"{option}: expected postgresql://…, got {parts.scheme or 'no'!r} URL")
        try:
            given = psycopg.conninfo.conninfo_to_dict(url)
        except psycopg.Error as error:
            told = str(error).replace(parts.password or "\n", "***").strip()
            raise ConfigurationError(f"{option}: {told}") from None  # the cause may show the password
        options = {name: str(value) for name, value in {**_DEFAULTS, **given}.items() if value is not None}
        return PostgresDatabase(psycopg.conninfo.make_conninfo(**options))


class PostgresDatabase:
    """A `Database` of one connection. Made anew by the first transaction after it broke."""

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._connection: Connection | None = None
        self._types: dict[str, Mapping[str, str]] = {}

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """As `Database.transaction`."""
        connection = self._connected()
        try:
            with connection.transaction():
                yield _PostgresSession(connection, self._types)
        except BaseException:
            if connection.closed:
                self.close()
            raise

    def of_row(self, error: BaseException) -> bool:
        """As `Database.of_row`."""
        import psycopg  # noqa: PLC0415 - as above

        if isinstance(error, psycopg.ProgrammingError):
            return error.sqlstate in _OF_ROW and not self.of_schema(error)
        return isinstance(error, (psycopg.DataError, psycopg.IntegrityError))

    def of_schema(self, error: BaseException) -> bool:
        """As `Database.of_schema`."""
        import psycopg  # noqa: PLC0415 - as above

        if not isinstance(error, psycopg.ProgrammingError):
            return False
        return error.sqlstate in _OF_SCHEMA or (error.sqlstate == _NO_COLUMN and names_ours(str(error)))

    def columns(self, table: str) -> Mapping[str, str] | None:
        """As `Database.columns`."""
        with self.transaction():
            return _types_of(self._connected(), table)

    def unique_keys(self, table: str) -> Collection[frozenset[str]]:
        """As `Database.unique_keys`."""
        with self.transaction() as session:
            found = session.rows(
                "SELECT array_agg(a.attname::text) FROM pg_index i"
                " JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey[0:i.indnkeyatts - 1])"
                " WHERE i.indrelid = to_regclass(?) AND i.indisunique AND i.indisvalid AND i.indimmediate"
                " AND i.indpred IS NULL AND i.indexprs IS NULL GROUP BY i.indexrelid",
                (quoted(table),),
            )
        return [frozenset(cast("list[str]", row[0])) for row in found]

    def close(self) -> None:
        """As `Database.close`."""
        connection, self._connection = self._connection, None
        self._types.clear()  # whoever comes back may find another table
        if connection is not None:
            connection.close()

    def _connected(self) -> Connection:
        import psycopg  # noqa: PLC0415 - as above

        if self._connection is not None and self._connection.closed:
            self.close()
        if self._connection is None:
            connection = psycopg.connect(self._conninfo, autocommit=True)
            # Whoever waited for a mark has to see it as it is then, whatever the server's default.
            connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
            self._connection = connection
        return self._connection


class _PostgresSession:
    """A `Session` of PostgreSQL."""

    def __init__(self, connection: Connection, types: dict[str, Mapping[str, str]]) -> None:
        self._connection = connection
        self._types = types  # of the columns of each table, for as long as the connection lasts

    def rows(self, statement: str, values: Sequence[object] = ()) -> Sequence[tuple[object, ...]]:
        return self._connection.execute(_numbered(statement), values).fetchall()

    def count(self, statement: str, values: Sequence[object] = ()) -> int:
        return self._connection.execute(_numbered(statement), values).rowcount

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        with self._connection.transaction():
            yield

    def check_at_once(self) -> None:
        self._types.clear()  # what failed may have been a column that is another by now
        self._connection.execute("SET CONSTRAINTS ALL IMMEDIATE")

    def write(self, table: Table, changes: Sequence[Change]) -> Sequence[Fate]:
        types = self._types_of(table.name)
        adapted = [_adapted(one, types) for one in changes]
        fates: dict[int, Fate] = {}
        order = sorted(range(len(adapted)), key=lambda at: adapted[at].columns)
        for columns, group in groupby(order, key=lambda at: adapted[at].columns):
            places = list(group)
            found = self._write_alike(table, columns, [adapted[at] for at in places], types)
            fates.update(zip(places, found, strict=True))
        return [fates[at] for at in range(len(adapted))]

    def _write_alike(
        self, table: Table, columns: tuple[str, ...], changes: Sequence[Change], types: Mapping[str, str]
    ) -> Sequence[Fate]:
        """Changes with the same columns; deletions have none."""
        if len(changes) == 1:
            return [write_one(self, table, one) for one in changes]
        if not columns:
            return self._delete(table, changes)
        own = [types.get(one) for one in written_columns(table, columns)]
        if not table.upsert and None not in own:
            return self._copy(table, columns, changes)
        repeats = len({one.key for one in changes}) < len(changes)
        if repeats or any(one is None or one.endswith("[]") for one in own):
            return self._in_pipeline(table, columns, changes)
        return self._over_arrays(table, columns, tuple(map(str, own)), changes)

    def _over_arrays(
        self, table: Table, columns: tuple[str, ...], types: tuple[str, ...], changes: Sequence[Change]
    ) -> Sequence[Fate]:
        arrays = list(map(list, zip(*(_values(table, one) for one in changes), strict=True)))
        cursor = self._connection.execute(_insert_over_arrays(table, columns, types), arrays)
        if not table.answers:
            return [WRITTEN] * len(changes)
        versions: dict[object, object] = dict(cursor.fetchall())
        return [
            written(versions[number]) if number in versions else refused(self, table, change)
            for number, change in enumerate(changes, 1)
        ]

    def _in_pipeline(self, table: Table, columns: tuple[str, ...], changes: Sequence[Change]) -> Sequence[Fate]:
        statement = _numbered(insert_one(table, columns))
        values = [_values(table, one) for one in changes]
        with self._connection.cursor() as cursor:
            cursor.executemany(statement, values, returning=table.answers)
            if not table.answers:
                return [WRITTEN] * len(changes)
            answers = [cursor.fetchone()]
            while cursor.nextset():
                answers.append(cursor.fetchone())
        return [
            refused(self, table, change) if answer is None else written(answer[-1])
            for change, answer in zip(changes, answers, strict=True)
        ]

    def _copy(self, table: Table, columns: tuple[str, ...], changes: Sequence[Change]) -> Sequence[Fate]:
        names = ", ".join(map(quoted, columns))
        with (
            self._connection.cursor() as cursor,
            cursor.copy(f"COPY {quoted(table.name)} ({names}) FROM STDIN".encode()) as copy,
        ):
            for change in changes:
                copy.write_row(_values(table, change))
        return [WRITTEN] * len(changes)

    def _delete(self, table: Table, changes: Sequence[Change]) -> Sequence[Fate]:
        if table.row_guard:
            return [write_one(self, table, one) for one in changes]
        with self._connection.cursor() as cursor:
            cursor.executemany(_numbered(delete_one(table)), [one.key for one in changes])
        return [WRITTEN] * len(changes)

    def _types_of(self, table: str) -> Mapping[str, str]:
        if table not in self._types:
            self._types[table] = _types_of(self._connection, table) or {}
        return self._types[table]


def _types_of(connection: Connection, table: str) -> Mapping[str, str] | None:
    """Types of the columns, without their lengths: a cast to those would cut what is too long."""
    found = connection.execute(
        "SELECT attname::text, format_type(atttypid, -1) FROM pg_attribute"
        " WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped",
        (quoted(table),),
    ).fetchall()
    return dict(found) or None


@lru_cache(maxsize=512)
def _numbered(statement: str) -> bytes:
    """With psycopg's sign for a value."""
    return statement.replace("?", "%s").encode()


@lru_cache(maxsize=256)
def _insert_over_arrays(table: Table, columns: tuple[str, ...], types: tuple[str, ...]) -> bytes:
    """Write rows of which each column is an array; with something to tell, it answers number and version of each."""
    names = ", ".join(map(quoted, written_columns(table, columns)))
    arrays = ", ".join(f"%b::{kind}[]" for kind in types)
    values = f"{names}, {table.dialect.now_us}" if table.version else names
    if not table.answers:
        return insert(table, columns, f"SELECT {values} FROM unnest({arrays}) AS given ({names})").encode()
    key = ", ".join(map(quoted, table.key))
    return (
        f"WITH given AS MATERIALIZED (SELECT * FROM unnest({arrays}) WITH ORDINALITY AS given ({names}, sw_number)),"
        f" done AS ({insert(table, columns, f'SELECT {values} FROM given')})"
        f" SELECT sw_number, done.{VERSION} FROM given JOIN done USING ({key})"
    ).encode()


def _values(table: Table, change: Change) -> tuple[object, ...]:
    assert change.values is not None  # it is no deletion
    return (*change.values, *change.origin) if table.row_guard else change.values


def _adapted(change: Change, types: Mapping[str, str]) -> Change:
    """With values that psycopg takes."""
    if change.values is None:
        return change._replace(key=tuple(map(_taken, change.key)))
    values = [
        one if type(one) in _AS_THEY_ARE else _taken(one, types.get(name, ""))
        for one, name in zip(change.values, change.columns, strict=True)
    ]
    return change._replace(values=tuple(values))


_AS_THEY_ARE = frozenset({str, int, float, bool, bytes, type(None), Decimal, dt.datetime, dt.date, uuid.UUID})


def _taken(value: object, kind: str = "") -> object:
    """`value` as something that psycopg takes for a column of type `kind`."""
    match value:
        case enum.Enum():
            return _taken(value.value, kind)
        case list() | tuple() if kind.endswith("[]"):
            return list(value)
        case Mapping() | list() | tuple() | set() | frozenset() | msgspec.Struct():
            return _as_json(value)
    return _as_json(value) if dataclasses.is_dataclass(value) else value


def _as_json(value: object) -> str:
    import psycopg  # noqa: PLC0415 - as above

    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError) as error:
        raise psycopg.DataError(f"this cannot be written as JSON: {error}") from error
