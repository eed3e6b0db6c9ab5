"""The door to the topics with the notes of parked keys: a consumer that is no member of a group.

Decides nothing; what a note means is said in `key_notes.py`. The thread that made it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from streamworker.client_log import ClientLogger
from streamworker.dlq.key_notes import PARTITION
from streamworker.errors import ConfigurationError
from streamworker.librdkafka import without_secrets

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_MOST_AT_ONCE = 500
_log = logging.getLogger(__name__)


class KafkaKeyLog:
    """A `KeyLog` of `topics` over a consumer with `settings`, librdkafka's options."""

    def __init__(self, settings: Mapping[str, str | int | float | bool], topics: Sequence[str]) -> None:
        self._reached = dict.fromkeys(topics, 0)
        self._said: set[tuple[str, str]] = set()
        try:
            self._consumer = Consumer(dict(settings), logger=ClientLogger())
            # The log's beginning as a name costs the client half a second; where it is later it is found out again.
            self._consumer.assign([TopicPartition(topic, PARTITION, 0) for topic in topics])
        except KafkaException as error:
            reason = without_secrets(error.args[0].str(), settings)
            raise ConfigurationError(f"kafka.librdkafka: the consumer refuses its settings: {reason}") from error

    def poll(self, timeout_s: float = 0.0) -> Sequence[tuple[bytes | None, bytes | None]]:
        """As `KeyLog.poll`; waits up to `timeout_s` for the first.

        An error is said once until something is read again; the client tries again by itself.
        """
        notes = []
        for message in self._consumer.consume(_MOST_AT_ONCE, timeout_s):
            topic, offset, error = str(message.topic()), message.offset(), message.error()
            if error is None:
                notes.append((message.key(), message.value()))
                self._reached[topic] = (offset or 0) + 1
                self._said.clear()
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - the client's name of it
                self._reached[topic] = offset or 0
                self._said.clear()
            elif (topic, error.name()) not in self._said:
                self._said.add((topic, error.name()))
                _log.warning("the parked keys in %s cannot be read: %s", topic, error.str())
        return notes

    def reached(self, topic: str) -> int:
        """As `KeyLog.reached`: past the gaps that compaction leaves, as soon as the end is reached."""
        return self._reached[topic]

    def take_credentials(self, username: str, password: str) -> None:
        """Show these to brokers from the next connection on."""
        self._consumer.set_sasl_credentials(username, password)

    def close(self) -> None:
        """As `KeyLog.close`."""
        self._consumer.close()
