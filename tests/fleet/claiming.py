"""Handlers that claim their records in Redis and have an effect elsewhere, at a server that knows keys or does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fleet.apps import Ledger

from streamworker import Idempotency
from streamworker.sinks.http import HttpSink

if TYPE_CHECKING:
    from streamworker import Record


class Claims(Ledger):
    """The ledger is the effect, and nobody but Redis knows what was done."""

    idempotency = Idempotency.redis(lease_s=2.0, on_unavailable="pause")

    def handle(self, record: Record[bytes]) -> object:
        super().handle(record)
        self._idle.wait(self._work_s)  # as long as it was before the effect: whoever dies here repeats it
        return None


class Bills(Ledger):
    """The server knows keys."""

    idempotency = Idempotency.redis(lease_s=2.0, on_unavailable="pause")
    sink = HttpSink("billing", path="/{partition}/{offset}", method="POST", timeout_s=5.0)

    def handle(self, record: Record[bytes]) -> object:
        super().handle(record)
        return {"partition": record.partition, "offset": record.offset}
