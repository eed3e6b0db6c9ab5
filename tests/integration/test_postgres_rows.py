"""What PostgreSQL alone has: its types, schemas and constraints that wait."""

from __future__ import annotations

import enum
import itertools
from contextlib import closing
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING
from uuid import UUID

import psycopg
import pytest
from servers.stores import Process, Store, order, place, postgres_store, row

from streamworker import Delete, PostgresSink
from streamworker.errors import RowFailed
from streamworker.interfaces import Written
from streamworker.record import TopicPartition

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from servers.postgres import Postgres


class Colour(enum.Enum):
    RED = "red"


# Type of a column, a value that is returned, and what is read back.
TYPES: Sequence[tuple[str, object, object]] = [
    ("smallint", 7, 7),
    ("bigint", 2**40, 2**40),
    ("integer", 70_000, 70_000),
    ("double precision", 1.5, 1.5),
    ("double precision", 2, 2.0),
    ("numeric(10,2)", Decimal("1.25"), Decimal("1.25")),
    ("numeric(10,2)", 3, Decimal("3.00")),
    ("boolean", True, True),
    ("text", "ü\n%s", "ü\n%s"),
    ("varchar(5)", "12345", "12345"),
    ("char(3)", "abc", "abc"),
    ("bytea", b"\0\xff", b"\0\xff"),
    ("date", date(2031, 5, 1), date(2031, 5, 1)),
    ("timestamptz", datetime(2031, 5, 1, tzinfo=UTC), datetime(2031, 5, 1, tzinfo=UTC)),
    ("timestamptz", "2031-05-01T00:00:00Z", datetime(2031, 5, 1, tzinfo=UTC)),
    ("timestamp", datetime(2031, 5, 1, 6), datetime(2031, 5, 1, 6)),  # noqa: DTZ001 - of a column without a zone
    ("uuid", UUID(int=7), UUID(int=7)),
    ("uuid", str(UUID(int=7)), UUID(int=7)),
    ("jsonb", {"a": [1, {"b": None}]}, {"a": [1, {"b": None}]}),
    ("json", [1, "x"], [1, "x"]),
    ("text[]", ["a", "b,c"], ["a", "b,c"]),
    ("integer[]", [], []),
    ("colour", Colour.RED, "red"),
    ("positive", 7, 7),
    ("bit(3)", "101", "101"),
    ("integer", None, None),
]


@pytest.fixture
def store(postgres: Postgres) -> Iterator[Store]:
    with postgres_store(postgres, "postgres_rows") as one:
        one.ask("CREATE TYPE colour AS ENUM ('red', 'blue')")
        one.ask("CREATE DOMAIN positive AS integer CHECK (VALUE > 0)")
        yield one


def made(store: Store, **options: object) -> PostgresSink:
    given = {"table": "orders", "key": ("id",), **options}
    sink = PostgresSink("store", **given)  # type: ignore[arg-type]  # as tests give them
    sink.make(store.url, [one.mend for one in sink.lacks(store.url) if one.mend is not None])
    return sink


@pytest.mark.parametrize(("kind", "value", "found"), TYPES, ids=lambda one: str(one)[:20])
def test_values_come_back_as_they_were(store: Store, kind: str, value: object, found: object) -> None:
    """Of a row alone and of several, which go by other statements."""
    for mode, count in itertools.product(["upsert", "insert"], [1, 3]):
        table = f"orders_{mode}_{count}"
        sink = made(store, table=table, mode=mode, columns={"id": "bigint", "value": kind})
        with closing(sink.writer(Process(store.url))) as writer:
            at = place(partition=TopicPartition(table, 0))
            written = writer.write(at, [row(n, {"id": n, "value": value}) for n in range(count)])

        assert written == Written()
        assert store.ask(f"SELECT value FROM {table}") == [(found,)] * count


@pytest.mark.parametrize("guard", ["mark", "row"])
def test_rows_with_arrays_are_guarded_and_counted_too(store: Store, guard: str) -> None:
    sink = made(store, guard=guard, version=True, columns={"id": "bigint", "value": "text[]"})
    rows = [row(n, {"id": n, "value": [str(n)]}) for n in range(3)]
    with closing(sink.writer(Process(store.url))) as writer:
        written = writer.write(place(), rows)
        again = writer.write(place(), rows)

    assert (written.repeated, sorted(written.versions)) == ((), [0, 1, 2])
    assert again == Written(repeated=(0, 1, 2))


@pytest.mark.parametrize(("kind", "value"), [("varchar(5)", "123456"), ("char(3)", "abcd"), ("positive", -1)])
@pytest.mark.parametrize("mode", ["upsert", "insert"])
def test_what_is_too_long_is_refused_and_never_cut(store: Store, kind: str, value: object, mode: str) -> None:
    sink = made(store, mode=mode, columns={"id": "bigint", "value": kind})
    with closing(sink.writer(Process(store.url))) as writer, pytest.raises(RowFailed) as failed:
        writer.write(place(), [row(0, {"id": 0}), row(1, {"id": 1, "value": value}), row(2, {"id": 2})])

    assert failed.value.index == 1
    assert isinstance(failed.value.cause, (psycopg.DataError, psycopg.IntegrityError))
    assert store.ask("SELECT id FROM orders") == [(0,)]


def test_a_constraint_that_waits_for_the_end_names_its_row_too(store: Store) -> None:
    store.ask("CREATE TABLE shops (id bigint PRIMARY KEY)")
    store.ask("INSERT INTO shops VALUES (1)")
    shop = "bigint REFERENCES shops DEFERRABLE INITIALLY DEFERRED"
    sink = made(store, columns={"id": "bigint", "shop": shop})
    with closing(sink.writer(Process(store.url))) as writer, pytest.raises(RowFailed) as failed:
        writer.write(place(), [row(n, {"id": n, "shop": 1 if n < 3 else 2}) for n in range(5)])

    assert failed.value.index == 3
    assert store.ask("SELECT count(*) FROM orders") == [(3,)]


def test_what_a_trigger_raises_is_the_rows_fault(store: Store) -> None:
    store.ask(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF NEW.qty = 0 THEN RAISE 'no quantity'; END IF; RETURN NEW; END $$"
    )
    sink = made(store, columns={"id": "bigint", "qty": "integer", "note": "text"})
    store.ask("CREATE TRIGGER refuse BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION refuse()")
    with closing(sink.writer(Process(store.url))) as writer, pytest.raises(RowFailed, match="no quantity") as failed:
        writer.write(place(), [row(n, order(n, 1 - n)) for n in range(3)])

    assert failed.value.index == 1


def test_names_keep_their_capitals_and_may_be_words_of_the_language(store: Store) -> None:
    store.ask('CREATE TABLE postgres_rows."Order" ("select" bigint PRIMARY KEY, "Qty" integer)')
    sink = made(store, table="postgres_rows.Order", key=("select",), version=True)
    with closing(sink.writer(Process(store.url))) as writer:
        writer.write(place(), [row(n, {"select": n, "Qty": n}) for n in range(3)])
        writer.write(place(), [row(3, Delete({"select": 0})), row(4, Delete({"select": 1}))])

    assert store.ask('SELECT "select", "Qty" FROM "Order"') == [(2, 2)]
    assert sink.lacks(store.url) == []


def test_keys_that_only_the_database_takes_for_one_are_written_one_after_the_other(store: Store) -> None:
    sink = made(store, columns={"id": "text", "qty": "integer"})
    with closing(sink.writer(Process(store.url))) as writer:
        written = writer.write(place(), [row(0, {"id": "1", "qty": 1}), row(1, {"id": 1, "qty": 2})])

    assert written == Written()
    assert store.ask("SELECT id, qty FROM orders") == [("1", 2)]


def test_a_column_that_is_another_type_by_now_is_found_out(store: Store) -> None:
    sink = made(store, columns={"id": "bigint", "qty": "smallint"})
    with closing(sink.writer(Process(store.url))) as writer:
        writer.write(place(), [row(n, {"id": n, "qty": n}) for n in range(3)])
        store.ask("ALTER TABLE orders ALTER qty TYPE bigint")

        written = writer.write(place(), [row(n, {"id": n, "qty": 2**40}) for n in range(3, 6)])

    assert written == Written()
    assert store.ask("SELECT max(qty) FROM orders") == [(2**40,)]
