"""What the handlers of `fleet.once` leave in a database, and what must hold of it."""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import psycopg

from streamworker import PostgresSink, SqliteSink

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    Found = Sequence[tuple[int, int, str | None]]  # partition, offset and key of each effect, in order

IN_POSTGRES = PostgresSink("store", table="once", mode="insert")
IN_SQLITE = SqliteSink("store", table="once", mode="insert")

_COLUMNS = {"part": "integer", "at": "bigint", "key": "text"}
_SELECT = "SELECT part, at, key FROM once ORDER BY seq"


def make(url: str) -> None:
    """The user's table with a number for each row, and what the sink needs beside it."""
    columns = ", ".join(f"{name} {kind}" for name, kind in _COLUMNS.items())
    if urlsplit(url).scheme == "sqlite":
        with sqlite3.connect(urlsplit(url).path[1:]) as file:
            file.execute(f"CREATE TABLE once (seq integer PRIMARY KEY AUTOINCREMENT, {columns})")
        file.close()
    else:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"CREATE TABLE once (seq bigserial, {columns})")
    sink = IN_SQLITE if urlsplit(url).scheme == "sqlite" else IN_POSTGRES
    sink.make(url, [one.mend for one in sink.lacks(url) if one.mend is not None])


def found(url: str) -> Found:
    """All effects, in order."""
    if urlsplit(url).scheme == "sqlite":
        file = sqlite3.connect(urlsplit(url).path[1:], timeout=60)
        try:
            return file.execute(_SELECT).fetchall()
        finally:
            file.close()
    with psycopg.connect(url) as connection:
        return connection.execute(_SELECT).fetchall()


def broken(effects: Found, ends: Mapping[int, int], letters: Iterable[tuple[int, int]]) -> list[str]:
    """What is not as it was promised: each record once, and those of a key in order; dead letters need no effect."""
    times = Counter((part, at) for part, at, _ in effects)
    expected = {(part, at) for part, end in ends.items() for at in range(end)}
    wrong = [f"{place} has {count} effects" for place, count in times.items() if count > 1]
    wrong += [f"{place} has no effect" for place in sorted(expected - times.keys() - set(letters))]
    wrong += [f"{place} is in no log" for place in sorted(times.keys() - expected)]
    reached: defaultdict[tuple[int, str], int] = defaultdict(lambda: -1)
    for part, at, key in effects:
        if key is not None:
            if at < reached[part, key]:
                wrong.append(f"{part}@{at} of {key} after {reached[part, key]}")
            reached[part, key] = at
    return wrong
