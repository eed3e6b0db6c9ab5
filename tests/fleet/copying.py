"""A handler of real worker processes that copies its topic to another one; the header `source` says of what."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from fleet.apps import Ledger

from streamworker import DeadLetter, KafkaRecord, KafkaSink

if TYPE_CHECKING:
    from streamworker import Record


class Copies(Ledger):
    """Sixteen threads, each key in order; the copies go to the topic's name and `.copies`."""

    concurrency = 16
    sink = KafkaSink(os.environ["LEDGER_TOPIC"] + ".copies")
    dead_letter = DeadLetter(os.environ["LEDGER_TOPIC"] + ".dlq")

    def handle(self, record: Record[bytes]) -> KafkaRecord:  # type: ignore[override]  # what Ledger returns is for no sink
        super().handle(record)
        return KafkaRecord(record.value, headers={"source": f"{record.partition}@{record.offset}"})
