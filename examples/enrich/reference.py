"""The two reference tables, asked for many keys at once, in PostgreSQL or SQLite. Any thread.

This is what the caches load from, and what `demo.py` fills before the workers start.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote, urlsplit

import msgspec
from model import Airport, Plane

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

_AIRPORTS = "CREATE TABLE airports (code text PRIMARY KEY, miles integer NOT NULL, carriers integer NOT NULL)"
_TIMEOUT_S = 10.0


class Cursor(Protocol):
    """What a driver's cursor has."""

    def fetchall(self) -> Sequence[tuple[object, ...]]: ...


class Connection(Protocol):
    """What the connections of both drivers have."""

    def execute(self, statement: str, values: Sequence[object], /) -> Cursor: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Dialect:
    """What the two databases say differently."""

    connect: Callable[[str], Connection]
    value: str  # stands for one in a statement
    any_of: str  # the condition that a column is among the keys
    keys: Callable[[Sequence[str]], object]  # as that condition takes them


def _sqlite(url: str) -> Connection:
    path = unquote(urlsplit(url).path[1:])
    connection: Connection = sqlite3.connect(path, _TIMEOUT_S, isolation_level=None, check_same_thread=False)
    return connection


def _postgres(url: str) -> Connection:
    import psycopg  # noqa: PLC0415 - it is not needed with SQLite

    connection: Connection = psycopg.connect(url, autocommit=True)
    return connection


_DIALECTS = {
    "sqlite": Dialect(_sqlite, "?", "IN (SELECT value FROM json_each(?))", json.dumps),
    "postgresql": Dialect(_postgres, "%s", "= ANY(%s)", list),
}


class Reference:
    """The reference tables at a URL. Threads take turns at one connection, which is made anew after an error."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._dialect = _DIALECTS[urlsplit(url).scheme]
        self._lock = threading.Lock()
        self._connection: Connection | None = None

    def airports(self, codes: Sequence[str]) -> dict[str, Airport]:
        """Those of these airports that there are."""
        found = self._among("SELECT code, miles, carriers FROM airports WHERE code", codes)
        return {one.code: one for one in msgspec.convert(_named(Airport, found), list[Airport])}

    def planes(self, tailnums: Sequence[str]) -> dict[str, Plane]:
        """Those of these planes that are registered."""
        found = self._among("SELECT tailnum, operator, base, revision, sw_version FROM planes WHERE tailnum", tailnums)
        return {one.tailnum: one for one in msgspec.convert(_named(Plane, found), list[Plane])}

    def fill(self, airports: Iterable[Airport], planes: Iterable[Plane]) -> None:
        """Make the table of airports, and write what both have at the beginning. That of planes is the sink's."""
        self.rows(_AIRPORTS)
        self._write("airports", airports)
        self._write("planes", planes)

    def rows(self, statement: str, values: Sequence[object] = ()) -> Sequence[tuple[object, ...]]:
        """What a statement returns; nothing of one that asks for nothing. Raises what the driver raises."""
        with self._lock:
            try:
                if self._connection is None:
                    self._connection = self._dialect.connect(self._url)
                cursor = self._connection.execute(statement, values)
                return cursor.fetchall() if statement.startswith("SELECT") else ()
            except BaseException:
                self._close()
                raise

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._close()

    def _among(self, select: str, keys: Sequence[str]) -> Sequence[tuple[object, ...]]:
        return self.rows(f"{select} {self._dialect.any_of}", (self._dialect.keys(keys),))

    def _write(self, table: str, values: Iterable[Airport | Plane]) -> None:
        with self._lock, closing(self._dialect.connect(self._url)) as connection:
            connection.execute("BEGIN", ())
            for one in values:
                columns = one.__struct_fields__
                marks = ", ".join([self._dialect.value] * len(columns))
                insert = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})"  # noqa: S608 - names of ours
                connection.execute(insert, msgspec.structs.astuple(one))
            connection.execute("COMMIT", ())

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _named(kind: type[Airport | Plane], rows: Iterable[tuple[object, ...]]) -> Sequence[Mapping[str, object]]:
    return [dict(zip(kind.__struct_fields__, row, strict=True)) for row in rows]
