"""Handlers that store each record in a database with marks; a second effect would be a second row.

`app.pause_s` is how long an async handler waits in each call; STORE_LANES in the environment is the number of lanes.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import psycopg
from fleet.apps import Ledger, LedgerWithDeadLetters
from fleet.stored_once import IN_POSTGRES, IN_SQLITE

from streamworker import Breaker

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streamworker import Context, Record


def _row(record: Record[bytes]) -> Mapping[str, object]:
    key = None if record.raw_key is None else record.raw_key.decode()
    return {"part": record.partition, "at": record.offset, "key": key}


class StoreOnce(LedgerWithDeadLetters):
    """A row for each record, in PostgreSQL; a second effect would be a second row."""

    sink = IN_POSTGRES
    breaker = Breaker("store", open_s=0.5, max_open_s=1.0, counts=psycopg.OperationalError)
    lanes = int(os.environ.get("STORE_LANES", "8"))

    def handle(self, record: Record[bytes]) -> object:
        super().handle(record)
        return _row(record)


class StoreOnceInOrder(StoreOnce):
    """The same with one lane per partition."""

    ordering = "partition"
    lanes = None


class StoreOnceInProcesses(StoreOnce):
    """The same in child processes."""

    execution = "process"
    concurrency = 2


class StoreOnceAsync(StoreOnce):
    """The same on an event loop."""

    concurrency = 16

    def open(self, context: Context) -> None:
        super().open(context)
        self._pause_s = float(str(context.app["pause_s"]))

    async def handle(self, record: Record[bytes]) -> object:  # type: ignore[override]  # that is what it tests
        await asyncio.sleep(self._pause_s)
        Ledger.handle(self, record)
        return _row(record)


class StoreOnceInSqlite(StoreOnce):
    """The same in a file."""

    sink = IN_SQLITE
