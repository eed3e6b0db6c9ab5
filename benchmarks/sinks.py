"""`python -m benchmarks.sinks`: what it costs to write rows to PostgreSQL so that each has its effect once.

Batches of 500 upserts into a table of 100,000 rows, on a PostgreSQL of its own or that of STREAMWORKER_TEST_POSTGRES.
In each round every way writes one batch, in shuffled order; ratios are taken within a round, to the same rows without a
guard. A server that is started here does not wait for its disk, so a commit costs little and what a guard adds shows at
its most.
"""

from __future__ import annotations

import os
import random
import statistics
import sys
import time
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

import click
import psycopg
from rich.console import Console

from streamworker import PostgresSink
from streamworker.interfaces import Place, Row
from streamworker.record import Origin, TopicPartition
from streamworker.sinks.changes import changes_of, coalesced, in_lock_order

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Write = Callable[[int, Sequence[Row]], None]

S = TypeVar("S")

BATCH = 500
ROWS = 100_000
TARGET = 1.10  # of the time without a guard, for the mark
COLUMNS = {"id": "bigint", "customer": "text", "qty": "int", "amount": "numeric", "at": "timestamptz", "note": "text"}
NO_GUARD = "no guard"
MARK = "a mark per lane"


class Context:
    """Of a process with one database."""

    group = "bench"
    handler = "Bench"

    def __init__(self, url: str) -> None:
        self._url = url
        self._shared: dict[str, object] = {}

    def connection(self, name: str) -> str:
        return self._url

    def shared(self, name: str, factory: Callable[[], S]) -> S:
        return cast("S", self._shared.setdefault(name, factory()))


def batch(first: int) -> Sequence[Row]:
    """Rows with different keys, that are there."""
    now = datetime.now(UTC)
    keys = random.sample(range(ROWS), BATCH)
    orders = [
        {"id": key, "customer": f"customer {key}", "qty": 5, "amount": Decimal("12.50"), "at": now, "note": "x" * 100}
        for key in keys
    ]
    return [
        Row(first + number, Origin("orders", 0, first + number), b"key", [order]) for number, order in enumerate(orders)
    ]


def made(url: str, table: str, **options: object) -> PostgresSink:
    """A sink, whose table has all its rows."""
    sink = PostgresSink("bench", table=table, key=("id",), columns=COLUMNS, **options)  # type: ignore[arg-type]  # as given
    sink.make(url, sink.statements())
    fill = f"INSERT INTO {table} (id, customer, qty) SELECT n, 'customer', 1 FROM generate_series(0, {ROWS - 1}) n"
    sink.make(url, [fill])
    return sink


def by_sink(url: str, table: str, **options: object) -> Write:
    """By a sink with a table of its own."""
    writer = made(url, table, **options).writer(Context(url))

    def write(first: int, rows: Sequence[Row]) -> None:
        at = TopicPartition(table, 0)
        place = Place(group="bench", partition=at, lanes=1, lane=0, owner="bench", done_below=first)
        assert not writer.write(place, rows).repeated

    return write


def by_known_messages(url: str, table: str) -> Write:
    """As one does by hand: a row for each message in another table, in the same transaction."""
    sink = made(url, table, guard=None)
    sink.make(url, ["CREATE TABLE known (topic text, part int, off bigint, PRIMARY KEY (topic, part, off))"])
    database, of = sink.database(url), sink._table  # noqa: SLF001 - the same statement for the rows
    know = "INSERT INTO known SELECT 'orders', 0, off FROM unnest(?::bigint[]) off ON CONFLICT DO NOTHING RETURNING off"

    def write(_first: int, rows: Sequence[Row]) -> None:
        with database.transaction() as session:
            new = {off for (off,) in session.rows(know, ([row.offset for row in rows],))}
            changes = [one for n, row in enumerate(rows) if row.offset in new for one in changes_of(of, n, row)]
            session.write(of, in_lock_order(coalesced(changes)))

    return write


@click.command(help=__doc__)
@click.option("--rounds", default=60, show_default=True)
def main(rounds: int) -> None:
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from servers.postgres import obtain_postgres  # noqa: PLC0415 - found there

    server = obtain_postgres(os.environ.get("STREAMWORKER_TEST_POSTGRES"))
    try:
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute("DROP SCHEMA IF EXISTS bench_sinks CASCADE; CREATE SCHEMA bench_sinks")
        measure(f"{server.url}?options=-csearch_path%3Dbench_sinks", rounds)
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute("DROP SCHEMA bench_sinks CASCADE")
    finally:
        server.close()


def measure(url: str, rounds: int) -> None:
    ways = {
        NO_GUARD: by_sink(url, "plain", guard=None),
        MARK: by_sink(url, "marked"),
        "a guard per row": by_sink(url, "guarded", guard="row"),
        "a mark and versions": by_sink(url, "counted", version=True),
        "a row per message": by_known_messages(url, "deduped"),
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 5):
        for name in random.sample(list(ways), len(ways)):
            rows = batch(number * BATCH)
            start_s = time.perf_counter()
            ways[name](number * BATCH, rows)
            if number >= 5:  # statements are prepared, and caches warm
                taken[name].append(time.perf_counter() - start_s)
    say = Console(highlight=False, soft_wrap=True).print
    say(f"\n| {BATCH} upserts with | ms | Beside no guard |\n|---|---:|---:|")
    for name, seconds in taken.items():
        ratio = statistics.median(mine / plain for mine, plain in zip(seconds, taken[NO_GUARD], strict=True))
        say(f"| {name} | {statistics.median(seconds) * 1000:.1f} | {ratio:.2f} |")
        if name == MARK:
            met = ratio <= TARGET
            mark = ratio
    say(f"\n{MARK}: {mark:.2f} of no guard, at most {TARGET:.2f} was wanted: {'met' if met else 'missed'}")


if __name__ == "__main__":
    main()
