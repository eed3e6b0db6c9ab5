"""What a user of streamworker writes: flights come in, are enriched by way of caches, and are stored once.

Run by `streamworker run handlers:EnrichFlights handlers:KeepPlanes`, with the settings in streamworker.toml beside this
file, and the URL of the database.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from model import Enriched, Flight, Plane, PlaneChange, enriched
from reference import Reference

from streamworker import (
    Batch,
    BatchFailed,
    BatchHandler,
    Breaker,
    DeadLetter,
    Handler,
    Json,
    PoisonError,
    PostgresSink,
    SqliteSink,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamworker import Context, Record, Records
    from streamworker.interfaces import Cache

# The demo gives each of its runs topics of its own.
TOPIC = os.environ.get("ENRICH_TOPIC", "flights")
PLANES_TOPIC = os.environ.get("ENRICH_PLANES_TOPIC", "planes")
# A sink is of one kind of database, and says so on the class; which URL it is at is in the configuration.
Sink = PostgresSink if os.environ.get("ENRICH_DATABASE") == "postgresql" else SqliteSink

ENRICHED = {
    "id": "bigint",
    "carrier": "text",
    "flight": "integer",
    "tailnum": "text",
    "origin": "text",
    "origin_carriers": "integer",
    "dest": "text",
    "dest_miles": "integer",
    "dest_carriers": "integer",
    "operator": "text",
    "base": "text",
    "revision": "integer",
}
_PLANES = {"tailnum": "text", "operator": "text", "base": "text", "revision": "integer"}


def _reference(context: Context) -> Reference:
    return context.shared("reference", lambda: Reference(context.connection("warehouse")))


def _planes(context: Context) -> Cache[str, Plane]:
    """The planes, as both handlers ask for them: it is one cache, because it has one name."""
    return context.cache("planes", load_many=_reference(context).planes, version=lambda plane: plane.sw_version)


class EnrichFlights(BatchHandler[Flight]):
    """Stores each flight with its airports and its plane.

    The table has no unique key on purpose: a second effect would be a second row, and only the mark prevents it.
    """

    topics = (TOPIC,)
    value = Json(Flight)
    ordering = "key"
    concurrency = 4
    batch = Batch(max_records=500, max_wait_s=0.05)
    sink = Sink("warehouse", table="enriched", mode="insert", guard="mark", columns=ENRICHED)
    breaker = Breaker("warehouse")
    dead_letter = DeadLetter(f"{TOPIC}.dlq")

    def open(self, context: Context) -> None:
        """Get the caches."""
        self._airports = context.cache("airports", load_many=_reference(context).airports)
        self._planes = _planes(context)

    def handle(self, records: Records[Flight]) -> Sequence[Enriched]:
        """Look up what all of them need at once; then say which flight cannot be enriched, if there is one."""
        flights = records.values()
        airports = self._airports.get_many({code for one in flights for code in (one.origin, one.dest)})
        planes = self._planes.get_many({one.tailnum for one in flights if one.tailnum is not None})
        rows = []
        for index, flight in enumerate(flights):
            if flight.tailnum is None:
                raise BatchFailed(index, PoisonError("no tail number"))
            if flight.tailnum not in planes:
                raise BatchFailed(index, PoisonError("the plane is not registered"))
            rows.append(enriched(flight, airports[flight.origin], airports[flight.dest], planes[flight.tailnum]))
        return rows


class KeepPlanes(Handler[PlaneChange]):
    """Keeps the table of planes, and the cache in front of it."""

    topics = (PLANES_TOPIC,)
    value = Json(PlaneChange)
    ordering = "key"
    concurrency = 2
    sink = Sink("warehouse", table="planes", key=("tailnum",), version=True, columns=_PLANES)
    breaker = Breaker("warehouse")
    dead_letter = DeadLetter(f"{TOPIC}.dlq")

    def open(self, context: Context) -> None:
        """Get the cache that flights are enriched from."""
        self._planes = _planes(context)

    def handle(self, record: Record[PlaneChange]) -> PlaneChange:
        """The row; once it is written, the cache has the plane, with the version that the row got."""
        change = record.value
        self._planes.put(change.tailnum, Plane(change.tailnum, change.operator, change.base, change.revision))
        return change
