"""The flight: its schema, its type, and the rows of the file that it comes from."""

from __future__ import annotations

import csv
import lzma
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from streamworker.serde import Avro

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEMA = Path(__file__).parents[2] / "schemas" / "flight.avsc"
SOURCE = Path(__file__).with_name("flights.csv.xz")
MISSING = "NA"


class Flight(msgspec.Struct, frozen=True):
    """One row. Times are local, hhmm; delays and air_time are minutes, distance is miles."""

    year: int
    month: int
    day: int
    dep_time: float | None
    sched_dep_time: int
    dep_delay: float | None
    arr_time: float | None
    sched_arr_time: int
    arr_delay: float | None
    carrier: str
    flight: int
    tailnum: str | None
    origin: str
    dest: str
    air_time: float | None
    distance: float
    hour: int
    minute: int
    time_hour: str


AVRO = Avro(SCHEMA, into=Flight)


def source_rows(count: int) -> Iterator[dict[str, str]]:
    """The first `count` rows of the file, as text."""
    with lzma.open(SOURCE, "rt", encoding="utf-8", newline="") as lines:
        yield from islice(csv.DictReader(lines), count)


def as_flight(row: dict[str, str]) -> Flight:
    """The flight that `row` of the file tells of."""
    present = {name: None if text == MISSING else text for name, text in row.items()}
    return msgspec.convert(present, Flight, strict=False)
