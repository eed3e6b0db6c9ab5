"""The door to a consumer that reads one record at each of some offsets, for its time. It is no member of a group.

Decides nothing but when to give up. What was aborted is not read. One thread at a time, in whose calls the client's
callbacks run; a call blocks, for as long as is said.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as ClientPartition

from streamworker.client_log import ClientLogger
from streamworker.errors import ConfigurationError
from streamworker.librdkafka import without_secrets
from streamworker.record import TopicPartition

if TYPE_CHECKING:
    from collections.abc import Mapping

    from confluent_kafka import Message

    from streamworker.clock import Clock

_POLL_S = 0.1
_AT_END = KafkaError._PARTITION_EOF  # noqa: SLF001 - the client's name of it


class Nothing(enum.Enum):
    """Why there is no time."""

    TO_READ = "to read"  # from the offset to the end of the log there is no record: marks of transactions, or aborted
    TOLD = "told"  # the record has no time, or cannot be read


class Peeks:
    """Reads over a consumer with `settings`, librdkafka's options: `peek_settings`."""

    def __init__(self, settings: Mapping[str, str | int | float | bool], clock: Clock) -> None:
        self._clock = clock
        try:
            self._consumer = Consumer({**settings, "error_cb": lambda _error: None}, logger=ClientLogger())
        except KafkaException as error:
            reason = without_secrets(error.args[0].str(), settings)
            raise ConfigurationError(f"kafka.librdkafka: the consumer refuses its settings: {reason}") from error

    def written_ms(
        self, offsets: Mapping[TopicPartition, int], timeout_s: float
    ) -> Mapping[TopicPartition, int | Nothing]:
        """When the first record at or behind each offset was written, in milliseconds since the Unix epoch.

        A partition of which nothing came within `timeout_s` is not in it. Never raises for what brokers say.
        """
        found: dict[TopicPartition, int | Nothing] = {}
        until_s = self._clock.monotonic_s() + timeout_s
        self._consumer.assign([ClientPartition(*partition, offset) for partition, offset in offsets.items()])
        try:
            while len(found) < len(offsets) and (left_s := until_s - self._clock.monotonic_s()) > 0:
                message = self._consumer.poll(min(left_s, _POLL_S))
                partition = None if message is None else _partition(message)
                if message is None or partition is None or partition not in offsets or partition in found:
                    continue
                found[partition] = _told(message)
                self._consumer.incremental_unassign([ClientPartition(*partition)])
        finally:
            self._consumer.unassign()
        return found

    def close(self) -> None:
        """Idempotent."""
        self._consumer.close()


def _partition(message: Message) -> TopicPartition | None:
    topic, number = message.topic(), message.partition()
    return None if topic is None or number is None else TopicPartition(topic, number)


def _told(message: Message) -> int | Nothing:
    error = message.error()
    if error is not None:
        return Nothing.TO_READ if error.code() == _AT_END else Nothing.TOLD
    kind, written_ms = message.timestamp()
    return Nothing.TOLD if kind == TIMESTAMP_NOT_AVAILABLE else written_ms
