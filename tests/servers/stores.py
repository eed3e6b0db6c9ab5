"""Databases for the tests of sinks: an empty one of each kind, and a context as a handler's process has it."""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar, cast

import psycopg

from streamworker import PostgresSink, SqliteSink
from streamworker.interfaces import Row
from streamworker.record import Origin, TopicPartition
from streamworker.work import Place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from servers.postgres import Postgres

    from streamworker.sinks.sql import SqlSink

S = TypeVar("S")

AT = TopicPartition("orders", 3)
COLUMNS = {"id": "bigint", "qty": "integer", "note": "text"}


@dataclass
class Process:
    """A `SinkContext`: what the writers of one process share."""

    url: str
    group: str = "shop"
    handler: str = "StoreOrders"
    _shared: dict[str, object] = field(default_factory=dict)

    def connection(self, name: str) -> str:
        return self.url

    def shared(self, name: str, factory: Callable[[], S]) -> S:
        return cast("S", self._shared.setdefault(name, factory()))


@dataclass(frozen=True)
class Store:
    """An empty database."""

    kind: type[SqlSink]
    url: str

    def sink(self, **options: object) -> SqlSink:
        """One for the table `orders`, which is made with what the sink needs; columns `id`, `qty` and `note`."""
        given = {"table": "orders", "key": ("id",), "columns": COLUMNS, **options}
        sink = self.kind("store", **given)  # type: ignore[arg-type]  # as tests give them
        sink.make(self.url, sink.statements())
        return sink

    def ask(self, statement: str) -> list[tuple[object, ...]]:
        """The answer to a question by a connection of its own, or the end of a change."""
        if self.kind is SqliteSink:
            with closing(sqlite3.connect(self.url.removeprefix("sqlite:///"), isolation_level=None)) as connection:
                return connection.execute(statement).fetchall()
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []


@contextmanager
def postgres_store(server: Postgres, name: str) -> Iterator[Store]:
    """A schema of its own in a shared server."""
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(f"DROP SCHEMA IF EXISTS {name} CASCADE; CREATE SCHEMA {name}".encode())
    yield Store(PostgresSink, f"{server.url}?options=-csearch_path%3D{name}")
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(f"DROP SCHEMA {name} CASCADE".encode())


def sqlite_store(folder: Path) -> Store:
    """A file."""
    return Store(SqliteSink, f"sqlite:///{folder / 'store.db'}")


def place(
    owner: str = "first",
    *,
    lanes: int = 1,
    lane: int = 0,
    done_below: int = 0,
    open_below: Sequence[int] = (),
    foreign: bool = False,
    max_uncommitted: int = 16_384,
    partition: TopicPartition = AT,
) -> Place:
    """Where rows come from."""
    return Place(
        group="shop",
        partition=partition,
        lanes=lanes,
        lane=lane,
        owner=owner,
        done_below=done_below,
        open_below=open_below,
        foreign=foreign,
        max_uncommitted=max_uncommitted,
    )


def row(offset: int, *values: object, key: bytes | None = b"k", origin: Origin | None = None) -> Row:
    """What a handler returned for the record at `offset`."""
    return Row(offset, origin or Origin(AT.topic, AT.partition, offset), key, values)


def order(number: int, qty: object, note: str = "") -> dict[str, object]:
    """A row of the table."""
    return {"id": number, "qty": qty, "note": note}
