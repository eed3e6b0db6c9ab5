"""What flies where: a flight as it comes, a plane and an airport as they are looked up, and the rows they come from."""

from __future__ import annotations

import csv
import lzma
import re
from collections import Counter, defaultdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

SOURCE = Path(__file__).parents[1] / "flights" / "flights.csv.xz"
_MISSING = "NA"
# What is no registration, but a carrier's own number of its fleet. The register does not know these planes.
_FLEET_NUMBER = re.compile(r"N\d[A-Z]+MQ|D\w+")


class Flight(msgspec.Struct, frozen=True):
    """A flight as it is sent; `id` is the number of its row."""

    id: int
    carrier: str
    flight: int
    tailnum: str | None
    origin: str
    dest: str
    time_hour: str
    miles: int


class Airport(msgspec.Struct, frozen=True):
    """An airport; `miles` are those of the shortest flight to it or, of an origin, 0."""

    code: str
    miles: int
    carriers: int


class Plane(msgspec.Struct, frozen=True):
    """A plane as it is cached. `sw_version` is counted by the database, so one that was not read from it has none."""

    tailnum: str
    operator: str
    base: str
    revision: int
    sw_version: int = 0


class PlaneChange(msgspec.Struct, frozen=True):
    """What a plane is from now on: a record of topic planes, and the row that it becomes."""

    tailnum: str
    operator: str
    base: str
    revision: int


class Enriched(msgspec.Struct, frozen=True):
    """A flight with what is known of its airports and of its plane."""

    id: int
    carrier: str
    flight: int
    tailnum: str
    origin: str
    origin_carriers: int
    dest: str
    dest_miles: int
    dest_carriers: int
    operator: str
    base: str
    revision: int


def enriched(flight: Flight, origin: Airport, dest: Airport, plane: Plane) -> Enriched:
    """All of it in one row."""
    return Enriched(
        id=flight.id,
        carrier=flight.carrier,
        flight=flight.flight,
        tailnum=plane.tailnum,
        origin=origin.code,
        origin_carriers=origin.carriers,
        dest=dest.code,
        dest_miles=dest.miles,
        dest_carriers=dest.carriers,
        operator=plane.operator,
        base=plane.base,
        revision=plane.revision,
    )


def flights(count: int | None = None) -> Iterator[Flight]:
    """The first `count` flights of the file, or all."""
    with lzma.open(SOURCE, "rt", encoding="utf-8", newline="") as lines:
        for number, row in enumerate(islice(csv.DictReader(lines), count)):
            yield Flight(
                id=number,
                carrier=row["carrier"],
                flight=int(row["flight"]),
                tailnum=None if row["tailnum"] == _MISSING else row["tailnum"],
                origin=row["origin"],
                dest=row["dest"],
                time_hour=row["time_hour"],
                miles=int(row["distance"]),
            )


def airports_of(source: Iterable[Flight]) -> Sequence[Airport]:
    """All airports that these flights leave from or go to."""
    miles: dict[str, int] = {}
    carriers: defaultdict[str, set[str]] = defaultdict(set)
    for one in source:
        miles[one.origin] = 0
        miles[one.dest] = min(one.miles, miles.get(one.dest, one.miles))
        carriers[one.origin].add(one.carrier)
        carriers[one.dest].add(one.carrier)
    return [Airport(code, miles[code], len(carriers[code])) for code in sorted(miles)]


def planes_of(source: Iterable[Flight]) -> Sequence[Plane]:
    """All registered planes of these flights: who flies each most often, and from where."""
    operators: defaultdict[str, Counter[str]] = defaultdict(Counter)
    bases: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for one in source:
        if one.tailnum is not None and not _FLEET_NUMBER.fullmatch(one.tailnum):
            operators[one.tailnum][one.carrier] += 1
            bases[one.tailnum][one.origin] += 1
    return [Plane(tailnum, _most(operators[tailnum]), _most(bases[tailnum]), 0) for tailnum in sorted(operators)]


def _most(counts: Counter[str]) -> str:
    return counts.most_common(1)[0][0]
