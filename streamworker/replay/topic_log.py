"""The door to a consumer that reads parts of topics: dead letters, their states, the audit. It is no member of a group.

Decides nothing. Aborted transactions are not read. One thread at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as ClientPartition

from streamworker.client_log import ClientLogger
from streamworker.errors import ClientError, ConfigurationError
from streamworker.librdkafka import without_secrets
from streamworker.record import TopicPartition

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from confluent_kafka import Message

    from streamworker.clock import Clock

_MOST_AT_ONCE = 1000
_POLL_S = 0.5
_AT_END = KafkaError._PARTITION_EOF  # noqa: SLF001 - the client's name of it


class TopicLog:
    """Reads over a consumer with `settings`, librdkafka's options: `key_log_settings`."""

    def __init__(self, settings: Mapping[str, str | int | float | bool], clock: Clock) -> None:
        self._clock = clock
        try:
            self._consumer = Consumer(dict(settings), logger=ClientLogger())
        except KafkaException as error:
            reason = without_secrets(error.args[0].str(), settings)
            raise ConfigurationError(f"kafka.librdkafka: the consumer refuses its settings: {reason}") from error

    def bounds(self, partition: TopicPartition, timeout_s: float) -> tuple[int, int]:
        """The first offset that there is, and the one behind the last that can be read. Raises ClientError."""
        try:
            found = self._consumer.get_watermark_offsets(ClientPartition(*partition), timeout=timeout_s)
        except KafkaException as error:
            raise _client_error(error.args[0], str(partition)) from error
        if found is None:
            raise ClientError(f"{partition}: no answer within {timeout_s:g} s", code="_TIMED_OUT")
        return found

    def read(self, ranges: Mapping[TopicPartition, tuple[int, int]], timeout_s: float) -> Iterator[Sequence[Message]]:
        """All records from the first offset of each range to before the second, in batches of one partition or several.

        In order of offset within a partition. Raises ClientError if nothing comes for `timeout_s`. Until the iterator
        is at its end or closed, nothing else may be read.
        """
        left = {partition: end for partition, (start, end) in ranges.items() if start < end}
        self._consumer.assign([ClientPartition(*partition, ranges[partition][0]) for partition in left])
        until_s = self._clock.monotonic_s() + timeout_s
        try:
            while left:
                batch = self._take(left)
                if batch:
                    yield batch
                    until_s = self._clock.monotonic_s() + timeout_s
                elif left and self._clock.monotonic_s() > until_s:
                    waiting = ", ".join(map(str, sorted(left)))
                    raise ClientError(f"{waiting}: nothing was read for {timeout_s:g} s", code="_TIMED_OUT")
        finally:
            self._consumer.unassign()

    def close(self) -> None:
        """Idempotent."""
        self._consumer.close()

    def _take(self, left: dict[TopicPartition, int]) -> list[Message]:
        found: list[Message] = []
        for message in self._consumer.consume(_MOST_AT_ONCE, _POLL_S):
            partition = TopicPartition(str(message.topic()), message.partition() or 0)
            error, end = message.error(), left.get(partition)
            if error is not None and error.code() != _AT_END:
                if not error.retriable():
                    raise _client_error(error, str(partition))
            elif end is not None:
                reached = message.offset() or 0
                if error is None:
                    if reached < end:
                        found.append(message)
                    reached += 1
                if reached >= end:  # there may be nothing at the last offsets: what was aborted, marks of transactions
                    del left[partition]
        return found


def _client_error(error: KafkaError, about: str) -> ClientError:
    return ClientError(f"{about}: {error.str()}", code=error.name(), retriable=error.retriable())
