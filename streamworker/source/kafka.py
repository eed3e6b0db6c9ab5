"""The group member: the only door to the client's Consumer.

Everything behind it speaks our own types. Loop thread only, which is checked: the client lets
one thread at a time in, and a call from another one can block the loop for seconds. An exception inside a
client callback silently drops the records of that call, so callbacks never raise: they keep the
error, and the fetch that ran them raises it after its records are safe.
"""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, ParamSpec, cast

from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka import Message as ClientMessage
from confluent_kafka import TopicPartition as ClientPartition

from streamworker.client_log import ClientLogger
from streamworker.errors import ClientError, ConfigurationError, Misuse
from streamworker.interfaces import CommitAnswer, Fault, FaultKind, Fetched, OffsetMark
from streamworker.librdkafka import without_secrets
from streamworker.record import TopicPartition
from streamworker.source.statistics import StatisticsReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from streamworker.clock import Clock
    from streamworker.interfaces import ClientStatistics, Membership, Rebalance
    from streamworker.record import Message
    from streamworker.source.statistics import Reading

    Settings = Mapping[str, str | int | float | bool]

P = ParamSpec("P")

# librdkafka's names of the error events that come instead of records. What is not listed is dealt
# with by the client itself (brokers down, leaders that move) and only reported.
_FAULT_KINDS = {
    "_AUTO_OFFSET_RESET": FaultKind.OUT_OF_RANGE,
    "OFFSET_OUT_OF_RANGE": FaultKind.OUT_OF_RANGE,
    "_LOG_TRUNCATION": FaultKind.TRUNCATED,
    "_BAD_MSG": FaultKind.UNREADABLE,
    "_BAD_COMPRESSION": FaultKind.UNREADABLE,
    "INVALID_MSG": FaultKind.UNREADABLE,
    "TOPIC_AUTHORIZATION_FAILED": FaultKind.UNAUTHORIZED,
    "GROUP_AUTHORIZATION_FAILED": FaultKind.UNAUTHORIZED,
    "UNKNOWN_TOPIC_OR_PART": FaultKind.UNKNOWN_TOPIC,
    "_UNKNOWN_TOPIC": FaultKind.UNKNOWN_TOPIC,
    "_PARTITION_EOF": FaultKind.END_OF_PARTITION,
    "_MAX_POLL_EXCEEDED": FaultKind.MAX_POLL_EXCEEDED,
    "_FENCED": FaultKind.FENCED,
    "FENCED_INSTANCE_ID": FaultKind.FENCED,
    "UNRELEASED_INSTANCE_ID": FaultKind.UNRELEASED,
    "_FATAL": FaultKind.FATAL,
}
# The error callback is given fatal errors as `_FATAL`, with the reason in words alone.
_FATAL_REASONS = {
    KafkaError(KafkaError.FENCED_INSTANCE_ID).str(): FaultKind.FENCED,
    KafkaError(111).str(): FaultKind.UNRELEASED,
}


class KafkaSource:
    """A `Source` over confluent-kafka."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._clock = clock
        self._pid = os.getpid()
        self._thread = threading.get_ident()
        self._raised: list[BaseException] = []
        self._noted: list[Fault] = []
        self._answers: list[CommitAnswer] = []
        # With KIP-848 a member that has no partitions stays in its first state.
        joined = ("steady", "init") if settings.get("group.protocol") == "consumer" else ("steady",)
        self._statistics = StatisticsReader(joined)
        self._reading: Reading | None = None
        # By the number of a partition, all topics of which that one was ever assigned: nothing else is delivered.
        self._topics_of: defaultdict[int | None, set[str]] = defaultdict(set)
        self._rebalance: Rebalance | None = None
        self._closed = False
        self._consumer = self._new_consumer(settings)

    def subscribe(self, topics: Sequence[str], rebalance: Rebalance) -> None:
        """Join the group."""
        self._check_caller()
        self._rebalance = rebalance
        self._consumer.subscribe(
            list(topics),
            on_assign=self._guarded(self._on_assign),
            on_revoke=self._guarded(self._on_revoke),
            on_lost=self._guarded(self._on_lost),
        )

    def fetch(self, max_records: int, timeout_s: float) -> Fetched:
        """Wait for the first record, then take what else is there."""
        self._check_caller()
        if self._raised:
            raise self._raised.pop(0)
        batch = self._take(max_records) if timeout_s <= 0 and max_records else self._wait(max_records, timeout_s)
        if any(map(ClientMessage.error, batch)):
            batch = self._without_errors(batch)
        fetched = Fetched(self._runs(batch), self._noted, self._answers)
        self._noted, self._answers = [], []
        return fetched

    def committed(
        self, partitions: Sequence[TopicPartition], timeout_s: float
    ) -> Mapping[TopicPartition, OffsetMark | None]:
        """The group's offsets; a membership that is being renewed is waited for."""
        self._check_caller()
        until_s = self._clock.monotonic_s() + timeout_s
        while True:
            try:
                return self._committed(partitions, max(until_s - self._clock.monotonic_s(), 0.1))
            except ClientError as error:
                if not error.retriable or self._clock.monotonic_s() >= until_s:
                    raise

    def commit(self, marks: Mapping[TopicPartition, OffsetMark]) -> None:
        """Send a commit."""
        self._check_caller()
        try:
            self._consumer.commit(offsets=_client_offsets(marks), asynchronous=True)
        except KafkaException as error:
            raise _client_error(error) from error

    def commit_now(self, marks: Mapping[TopicPartition, OffsetMark]) -> Sequence[CommitAnswer]:
        """Commit and wait."""
        self._check_caller()
        try:
            answered = self._consumer.commit(offsets=_client_offsets(marks), asynchronous=False)
        except KafkaException as error:
            raise _client_error(error) from error
        return [_commit_answer(one, None) for one in answered or ()]

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        """Stop fetching these."""
        self._check_caller()
        self._consumer.pause([ClientPartition(*one) for one in partitions])

    def resume(self, partitions: Sequence[TopicPartition]) -> None:
        """Go on with these."""
        self._check_caller()
        self._consumer.resume([ClientPartition(*one) for one in partitions])

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Deliver from `offset` next."""
        self._check_caller()
        try:
            self._consumer.seek(ClientPartition(partition.topic, partition.partition, offset))
        except KafkaException as error:
            raise _client_error(error) from error

    def membership(self) -> Membership | None:
        """What the last statistics said of the group."""
        return None if self._reading is None else self._reading.membership

    def statistics(self) -> ClientStatistics | None:
        """What the last statistics said of the client itself."""
        return None if self._reading is None else self._reading.client

    def group_metadata(self) -> object:
        """Who the member is, as of now."""
        self._check_caller()
        return self._consumer.consumer_group_metadata()

    def positions(self) -> Mapping[TopicPartition, int]:
        """The next offset to be fetched of each by the last statistics."""
        return {} if self._reading is None else self._reading.positions

    def take_credentials(self, username: str, password: str) -> None:
        """Show these to brokers from the next connection on."""
        self._check_caller()
        self._consumer.set_sasl_credentials(username, password)

    def close(self) -> None:
        """Leave the group."""
        if not self._closed:
            self._check_caller()
            self._closed = True
            self._consumer.close()

    def _new_consumer(self, settings: Settings) -> Consumer:
        callbacks = {
            "on_commit": self._guarded(self._on_commit),
            "stats_cb": self._guarded(self._on_statistics),
            "error_cb": self._guarded(self._on_error),
        }
        try:
            return Consumer({**settings, **callbacks}, logger=ClientLogger())
        except KafkaException as error:
            reason = without_secrets(error.args[0].str(), settings)
            raise ConfigurationError(f"kafka.librdkafka: the consumer refuses its settings: {reason}") from error

    def _check_caller(self) -> None:
        if threading.get_ident() != self._thread:
            raise Misuse("the consumer belongs to the thread that made it; handlers cannot use it")
        if os.getpid() != self._pid:
            raise Misuse("the process was forked after the consumer was made; start workers by spawn, or fork first")

    def _wait(self, max_records: int, timeout_s: float) -> list[ClientMessage]:
        first = self._consumer.poll(timeout_s)
        if first is None:
            return []
        return [first, *self._take(max_records - 1)] if max_records > 1 else [first]

    def _take(self, max_records: int) -> list[ClientMessage]:
        try:
            return self._consumer.consume(max_records, 0)
        except KafkaException as error:
            self._raised.append(_client_error(error))
            return []

    def _runs(self, batch: Sequence[ClientMessage]) -> list[tuple[TopicPartition, Sequence[Message]]]:
        if not batch:
            return []
        numbers = list(map(ClientMessage.partition, batch))
        # Nearly always: the client hands out one fetch after another.
        alike = numbers.count(numbers[0]) == len(numbers)
        # To ask a record for its topic makes a string, and takes a twentieth of the time that a record costs in all.
        if alike and len(self._topics_of[numbers[0]]) == 1:
            return [(_partition_of(batch[0]), cast("Sequence[Message]", batch))]
        topics = list(map(ClientMessage.topic, batch))
        if alike and topics.count(topics[0]) == len(topics):
            return [(_partition_of(batch[0]), cast("Sequence[Message]", batch))]
        return [
            (_partition_of(run[0]), cast("Sequence[Message]", run))
            for run in (
                [message for _, _, message in group]
                for _, group in groupby(zip(topics, numbers, batch, strict=True), itemgetter(0, 1))
            )
        ]

    def _without_errors(self, batch: Iterable[ClientMessage]) -> list[ClientMessage]:
        records = []
        for message in batch:
            error = message.error()
            if error is None:
                records.append(message)
            else:
                self._noted.append(_fault(error, message))
        return records

    def _committed(
        self, partitions: Sequence[TopicPartition], timeout_s: float
    ) -> Mapping[TopicPartition, OffsetMark | None]:
        try:
            found = self._consumer.committed([ClientPartition(*one) for one in partitions], timeout=timeout_s)
        except KafkaException as error:
            raise _client_error(error) from error
        for one in found:
            if one.error is not None:
                raise _client_error(KafkaException(one.error))
        return {
            TopicPartition(one.topic, one.partition): OffsetMark(one.offset, one.metadata or "")
            if one.offset >= 0
            else None
            for one in found
        }

    def _guarded(self, callback: Callable[P, None]) -> Callable[P, None]:
        def call(*args: P.args, **kwargs: P.kwargs) -> None:
            try:
                callback(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001 - must not reach the client, which would drop records
                self._raised.append(error)

        return call

    def _on_assign(self, _consumer: Consumer, client_partitions: list[ClientPartition]) -> None:
        assert self._rebalance is not None
        partitions = [TopicPartition(one.topic, one.partition) for one in client_partitions]
        starts = self._rebalance.assigned(partitions)
        if not partitions:
            return
        for topic, number in partitions:
            self._topics_of[number].add(topic)
        self._consumer.incremental_assign([ClientPartition(*one, starts[one].offset) for one in partitions])
        # Told one by one what they are: the client's pause flag outlives an earlier assignment.
        self.pause([one for one in partitions if starts[one].paused])
        self.resume([one for one in partitions if not starts[one].paused])

    def _on_revoke(self, _consumer: Consumer, client_partitions: list[ClientPartition]) -> None:
        assert self._rebalance is not None
        self._rebalance.revoked([TopicPartition(one.topic, one.partition) for one in client_partitions])

    def _on_lost(self, _consumer: Consumer, client_partitions: list[ClientPartition]) -> None:
        assert self._rebalance is not None
        self._rebalance.lost([TopicPartition(one.topic, one.partition) for one in client_partitions])

    def _on_commit(self, error: KafkaError | None, client_partitions: list[ClientPartition]) -> None:
        self._answers += [_commit_answer(one, error) for one in client_partitions]

    def _on_statistics(self, text: str) -> None:
        self._reading = self._statistics.read(text, self._clock.monotonic_s())

    def _on_error(self, error: KafkaError) -> None:
        self._noted.append(_fault(error, None))


def _partition_of(message: ClientMessage) -> TopicPartition:
    return TopicPartition(str(message.topic()), int(message.partition() or 0))


def _client_offsets(marks: Mapping[TopicPartition, OffsetMark]) -> list[ClientPartition]:
    return [ClientPartition(*one, mark.offset, mark.metadata) for one, mark in marks.items()]


def _commit_answer(one: ClientPartition, error: KafkaError | None) -> CommitAnswer:
    failed = one.error or error
    return CommitAnswer(
        TopicPartition(one.topic, one.partition),
        OffsetMark(one.offset, one.metadata or ""),
        None if failed is None else failed.name(),
    )


def _client_error(raised: KafkaException) -> ClientError:
    error: KafkaError = raised.args[0]
    code = error.name()
    retriable = error.retriable() or code in ("STALE_MEMBER_EPOCH", "REBALANCE_IN_PROGRESS")
    return ClientError(error.str(), code=code, retriable=retriable)


def _fault(error: KafkaError, message: ClientMessage | None) -> Fault:
    code = error.name()
    kind = _FAULT_KINDS.get(code, FaultKind.PASSING)
    if kind is FaultKind.OUT_OF_RANGE and "truncation" in error.str():
        kind = FaultKind.TRUNCATED  # told by the same code, since nothing is left to reset to
    if kind is FaultKind.FATAL:
        kind = next((meant for reason, meant in _FATAL_REASONS.items() if reason in error.str()), kind)
    if error.fatal() and kind not in _FATAL_REASONS.values():
        kind = FaultKind.FATAL
    topic = None if message is None else message.topic()
    detail = f"{code}: {error.str()}"
    if message is None or topic is None:
        return Fault(kind, None, None, detail)
    return Fault(kind, _partition_of(message), message.offset(), detail)
