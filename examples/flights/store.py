"""Flights in one SQLite file that several worker processes write to.

A write may come twice, as every write of an at-least-once worker may: the second is counted and changes nothing else.
`handled` tells in which order writes came, so that the order of each key can be checked afterwards.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import msgspec
from flight import Flight

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

_TABLES = """
PRAGMA journal_mode = WAL;
CREATE TABLE flights (
    topic TEXT NOT NULL, partition INTEGER NOT NULL, offset INTEGER NOT NULL,
    carrier TEXT NOT NULL, distance REAL NOT NULL,
    flight BLOB NOT NULL,  -- all columns of the row, as JSON
    repeats INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (topic, partition, offset)
);
CREATE TABLE handled (
    position INTEGER PRIMARY KEY,
    worker TEXT NOT NULL, tailnum TEXT, partition INTEGER NOT NULL, offset INTEGER NOT NULL
);
"""
_ADD = """
INSERT INTO flights (topic, partition, offset, carrier, distance, flight) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET repeats = repeats + 1
"""
_LOG = "INSERT INTO handled (worker, tailnum, partition, offset) VALUES (?, ?, ?, ?)"
# A record is late if a later one of its key was handled before it was handled for the first time.
_OUT_OF_ORDER = """
WITH firsts AS (
    SELECT tailnum, partition, offset, min(position) AS position FROM handled
    WHERE tailnum IS NOT NULL GROUP BY partition, offset
), furthest AS (
    SELECT offset, max(offset) OVER (
        PARTITION BY tailnum, partition ORDER BY position ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
    ) AS before FROM firsts
)
SELECT count(*) FROM furthest WHERE offset < before
"""
_PER_CARRIER = "SELECT carrier, count(*), sum(distance) FROM flights GROUP BY carrier"
# The other workers' threads write too; after this time the batch is handed back and tried again.
_BUSY_TIMEOUT_S = 1.0
_LOCK_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class Arrival:
    """A flight and the record that it came in."""

    topic: str
    partition: int
    offset: int
    flight: Flight


class FlightStore:
    """A connection; belongs to the thread that made it. Raises sqlite3.OperationalError while others write."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level="IMMEDIATE")
        self._connection.execute("PRAGMA synchronous = NORMAL")

    @staticmethod
    def create(path: Path) -> None:
        """Make the file and its tables, before anybody connects."""
        with closing(sqlite3.connect(path)) as connection:
            connection.executescript(_TABLES)

    def add(self, arrivals: Sequence[Arrival], worker: str) -> None:
        """Store all of them or none, in this order."""
        if not arrivals:
            return
        with self._connection:
            self._connection.executemany(_ADD, map(_row, arrivals))
            self._connection.executemany(
                _LOG, [(worker, one.flight.tailnum, one.partition, one.offset) for one in arrivals]
            )

    def flights(self) -> Sequence[Flight]:
        """All that is stored."""
        rows = self._connection.execute("SELECT flight FROM flights")
        return [msgspec.json.decode(flight, type=Flight) for (flight,) in rows]

    def per_carrier(self) -> Mapping[str, tuple[int, float]]:
        """Number of flights and sum of miles by carrier."""
        return {carrier: (flights, miles) for carrier, flights, miles in self._connection.execute(_PER_CARRIER)}

    def repeats(self) -> int:
        """Writes that had been made before."""
        return self._number("SELECT coalesce(sum(repeats), 0) FROM flights")

    def out_of_order(self) -> int:
        """Records that were handled after a later one of their key."""
        return self._number(_OUT_OF_ORDER)

    def _number(self, query: str) -> int:
        (number,) = self._connection.execute(query).fetchone()
        assert isinstance(number, int)
        return number

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Nobody else can write to the file within the `with` block, as while a program changes all of it."""
    with closing(sqlite3.connect(path, timeout=_LOCK_TIMEOUT_S, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def is_locked(error: BaseException) -> bool:
    """Whether a write failed because others hold the file, which says nothing about what was to be written."""
    # The low byte of the code is the kind; the others say more of it.
    return isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY


def _row(arrival: Arrival) -> tuple[str, int, int, str, float, bytes]:
    flight = arrival.flight
    return (
        arrival.topic,
        arrival.partition,
        arrival.offset,
        flight.carrier,
        flight.distance,
        msgspec.json.encode(flight),
    )
