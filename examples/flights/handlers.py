"""What a user of streamworker writes: flights from Kafka to SQLite, in order per aircraft.

Run by `streamworker run handlers:StoreFlights`, with the settings in streamworker.toml beside this file.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING
from zlib import crc32

from flight import AVRO, Flight
from store import Arrival, FlightStore, is_locked

from streamworker import (
    Batch,
    BatchFailed,
    BatchHandler,
    Breaker,
    DeadLetter,
    Ordering,
    PoisonError,
    Retry,
    RetryableError,
)

if TYPE_CHECKING:
    from streamworker import Context, Record, Records

# The demo gives each of its runs a topic of its own.
TOPIC = os.environ.get("FLIGHTS_TOPIC", "flights")
# One record in so many meets a failure that passes.
_FLAKY_ONE_IN = 250


class StoreFlights(BatchHandler[Flight]):
    """Stores flights that took place; those without departure, arrival or air time are poison."""

    topics = (TOPIC,)
    value = AVRO
    ordering = Ordering.KEY
    concurrency = 4
    batch = Batch(max_records=100, max_wait_s=0.1)
    retry = Retry(attempts=5, base_s=0.1, cap_s=1.0)
    # A write waits a second for a locked file, so a trial takes that long.
    breaker = Breaker("flights-db", counts=is_locked, open_s=0.5, max_open_s=2.0)
    dead_letter = DeadLetter(f"{TOPIC}.dlq")

    def open(self, context: Context) -> None:
        """Connect."""
        self._store = FlightStore(Path(str(context.app["database"])))
        self._worker = str(context.app["worker"])

    def handle(self, records: Records[Flight]) -> None:
        """Store what comes before the first failure, then say which record failed."""
        failed = _first_failure(records)
        good = records if failed is None else records[: failed.index]
        self._store.add([Arrival(one.topic, one.partition, one.offset, one.value) for one in good], self._worker)
        if failed is not None:
            raise failed

    def close(self) -> None:
        """Disconnect."""
        self._store.close()


def _first_failure(records: Records[Flight]) -> BatchFailed | None:
    for index, record in enumerate(records):
        missing = _what_is_missing(record.value)
        if missing is not None:
            return BatchFailed(index, PoisonError(missing))
        if record.attempt == 1 and _meets_a_failure(record):
            return BatchFailed(index, RetryableError("the aircraft register did not answer"))
    return None


def _what_is_missing(flight: Flight) -> str | None:
    if flight.dep_time is None:
        return "no departure time"
    if flight.arr_time is None:
        return "no arrival time"
    if flight.air_time is None:
        return "no air time"
    return None


def _meets_a_failure(record: Record[Flight]) -> bool:
    """Whether a call for this record is to fail the first time; the same in each run."""
    return crc32(f"{record.partition}/{record.offset}".encode()) % _FLAKY_ONE_IN == 0
