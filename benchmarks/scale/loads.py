"""What is measured: for each table, the sizes and what a process of that size has to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Load:
    """What one process measures."""

    topics: int = 1
    partitions: int = 4  # of each topic
    keys: int = 1000
    lanes: int = 1  # of each partition; more than one: in key order
    inflight: int = 10_000
    records: int = 1_000_000


@dataclass(frozen=True, slots=True)
class Table:
    """What grows, and the load of each of its sizes."""

    what: str
    sizes: Mapping[int, Load]


# So many that what is done once for each partition, and once a second, has the weight that it has in a worker's day.
_MANY = 4_000_000
TABLES: Mapping[str, Table] = {
    "partitions": Table("partitions", {one: Load(partitions=one, records=_MANY) for one in (1, 10, 100, 1000)}),
    "topics": Table(
        "topics of one partition", {one: Load(topics=one, partitions=1, records=_MANY) for one in (1, 10, 100, 1000)}
    ),
    "lanes": Table("lanes of each of 4 partitions", {one: Load(lanes=one) for one in (16, 64, 256, 1024)}),
    "in-flight": Table(
        "records in flight, each of another key, 16 lanes of each of 16 partitions",
        {one: Load(partitions=16, lanes=16, keys=one, inflight=one) for one in (1000, 10_000, 100_000)},
    ),
    "keys": Table(
        "distinct keys, 16 lanes of each of 4 partitions",
        {one: Load(lanes=16, keys=one, records=max(1_000_000, one)) for one in (1000, 100_000, 1_000_000, 5_000_000)},
    ),
}
