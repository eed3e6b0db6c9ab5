"""The rows: what each measures, the row beside it that does the same work by hand, and what it is to reach.

Pure, and without any client.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Source(enum.Enum):
    """What a row reads: how many records, of how many keys."""

    PLAIN = (1_200_000, 1000)  # JSON of 200 bytes
    POISONED = (400_000, 1000)  # the same, and every hundredth is poison
    HOT = (20_000, 100)
    FEW = (8_000, 100)
    AVRO = (150_000, 1000)  # 1 KiB
    FORWARDED = (100_000, 1000)  # JSON of 200 bytes
    KEYS = (5_000_000, 1_000_000)
    STEADY = (6_000, 100)  # sent while it is read, 500 a second
    ONE = (1, 1)

    @property
    def records(self) -> int:
        """How many there are."""
        return self.value[0]

    @property
    def filled(self) -> int:
        """How many the topic has: where batches are made, more than are read, because the last ones wait to be full."""
        batched = self in (Source.PLAIN, Source.AVRO, Source.FORWARDED)
        return self.records + self.records // 10 if batched else self.records

    @property
    def keys(self) -> int:
        """How many keys they have, in turn."""
        return self.value[1]


class Figure(enum.Enum):
    """What is compared with the row beside it."""

    RATE = "rate"  # records/s, as a ratio
    LATENCY = "latency"  # ms, as a difference
    MEMORY = "memory"  # MiB, as a difference
    START = "start"  # s, as a difference


@dataclass(frozen=True, slots=True)
class Row:
    """A measurement. `must` and `aim` are ratios, or of differences the most that they may be."""

    name: str
    source: Source
    beside: str | None = None
    must: float | None = None
    aim: float | None = None
    figure: Figure = Figure.RATE

    @property
    def by_hand(self) -> bool:
        """Whether it is written on the bare client."""
        return self.name.startswith("raw")


ROWS: Sequence[Row] = (
    Row("raw", Source.PLAIN),
    Row("batch", Source.PLAIN, "raw", 0.70, 0.90),
    Row("single", Source.PLAIN, "raw", 0.50, 0.65),
    Row("key", Source.PLAIN, "raw", 0.34, 0.45),
    Row("inline", Source.PLAIN, "raw"),
    Row("raw json", Source.PLAIN),
    Row("json", Source.PLAIN, "raw json", 0.75, 0.88),
    Row("raw avro", Source.AVRO),
    Row("avro", Source.AVRO, "raw avro", 0.92, 0.98),
    Row("raw redis", Source.FORWARDED),
    Row("redis", Source.FORWARDED, "raw redis", 0.92, 0.98),
    Row("raw waits", Source.HOT),
    Row("waits", Source.HOT, "raw waits", 0.97, 1.10),
    Row("raw waits async", Source.HOT),
    Row("waits async", Source.HOT, "raw waits async", 0.97, 1.05),
    Row("raw computes", Source.FEW),
    Row("computes", Source.FEW, "raw computes", 1.80),
    Row("clean", Source.POISONED),
    Row("poison", Source.POISONED, "clean", 0.50, 0.70),
    Row("raw latency", Source.STEADY, figure=Figure.LATENCY),
    Row("latency", Source.STEADY, "raw latency", 0.3, 0.1, Figure.LATENCY),
    Row("raw memory", Source.KEYS, figure=Figure.MEMORY),
    Row("memory", Source.KEYS, "raw memory", 40.0, 25.0, Figure.MEMORY),
    Row("raw start", Source.ONE, figure=Figure.START),
    Row("start", Source.ONE, "raw start", 0.5, 0.25, Figure.START),
)
# From the bare client to the whole worker, each with one step more than the one before.
LADDER: Sequence[Row] = (
    Row("raw errors", Source.PLAIN, "raw"),
    Row("raw runs", Source.PLAIN, "raw"),
    Row("raw sizes", Source.PLAIN, "raw"),
)
STEPS: Mapping[str, str] = {
    "raw": "`consume(500)`, and a commit a second",
    "raw errors": "look for errors among the records",
    "raw runs": "part them by partition",
    "raw sizes": "count their bytes",
    "inline": "the whole worker, batches on the loop thread",
    "batch": "batches handed to a thread",
    "single": "a call for each record",
    "key": "16 lanes of keys",
}
QUEUES: Sequence[Row] = tuple(Row(f"batch queued {size}", Source.PLAIN, "raw") for size in (1000, 20_000, 100_000))
MUST_P99_MS, AIM_P99_MS = 1.5, 0.5  # above the row beside it
MUST_CPU, AIM_CPU = 1.5, 1.15  # of the batch row: CPU per record, of the row beside it
LATENCY_RATE = 500  # records/s
POISON_EVERY = 100


def chosen(names: Sequence[str], rows: Sequence[Row]) -> Sequence[Row]:
    """The rows called `names` with those beside them; all without names."""
    wanted = {*names, *(row.beside for row in rows if row.name in names)}
    return [row for row in rows if not names or row.name in wanted]
