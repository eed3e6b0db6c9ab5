"""Sends the flights to Kafka at a steady pace, on a thread of its own, keyed by tail number."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Self

from confluent_kafka import KafkaError, Message, Producer
from flight import AVRO, Flight, as_flight, source_rows

if TYPE_CHECKING:
    from brokers import Topics

# Rows that are sent between two looks at the clock.
_BURST = 50
_FLUSH_TIMEOUT_S = 20.0


class Sender:
    """Sends the first `rows` rows from `start` on; leaving the `with` block ends it early.

    `sent`, `ends` (offset after the last record that was acknowledged, by partition) and `error` are written
    by its thread and read by others.
    """

    def __init__(self, topics: Topics, *, rows: int, rows_per_s: float) -> None:
        self.sent = 0
        self.ends: dict[int, int] = {}
        self.error: Exception | None = None
        self._topic = topics.flights
        self._rows = rows
        self._rows_per_s = rows_per_s
        self._producer = Producer(
            {"bootstrap.servers": topics.bootstrap_servers, "enable.idempotence": True, "linger.ms": 20, "log_level": 2}
        )
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sender", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def _run(self) -> None:
        try:
            self._send_all()
        except Exception as error:  # noqa: BLE001 - the top of a thread: the main thread raises it
            self.error = error

    def _send_all(self) -> None:
        began_s = time.monotonic()
        for row in source_rows(self._rows):
            self._send(as_flight(row))
            self.sent += 1
            if self.sent % _BURST == 0:
                self._producer.poll(0)
                if self._stopping.wait(began_s + self.sent / self._rows_per_s - time.monotonic()):
                    break
        self._producer.flush(_FLUSH_TIMEOUT_S)

    def _send(self, flight: Flight) -> None:
        key = None if flight.tailnum is None else flight.tailnum.encode()
        value = AVRO.encode(flight, self._topic)
        self._producer.produce(self._topic, value, key, on_delivery=self._acknowledged)

    def _acknowledged(self, error: KafkaError | None, message: Message) -> None:
        partition, offset = message.partition(), message.offset()
        if error is not None:
            self.error = RuntimeError(f"{self._topic}[{partition}] did not take a flight: {error}")
        elif partition is not None and offset is not None:
            self.ends[partition] = max(self.ends.get(partition, 0), offset + 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(_FLUSH_TIMEOUT_S)
