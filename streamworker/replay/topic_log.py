"""The door to a consumer that reads parts of topics: dead letters, their states, the audit. It is no member of a group.

Decides nothing. What was aborted is not read. One thread at a time, in whose calls the client's callbacks run; a call
blocks, for as long as is said.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as ClientPartition

from streamworker.client_log import ClientLogger
from streamworker.errors import ClientError, ConfigurationError
from streamworker.librdkafka import without_secrets
from streamworker.record import TopicPartition

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping, Sequence

    from confluent_kafka import Message as ClientMessage

    from streamworker.clock import Clock
    from streamworker.record import Message

    Ranges = Mapping[TopicPartition, tuple[int, int]]
    _Key = tuple[str | None, int | None]  # a TopicPartition as the client may tell it

_MOST_AT_ONCE = 1000
_POLL_S = 0.1
_AT_END = KafkaError._PARTITION_EOF  # noqa: SLF001 - the client's name of it
# What waiting does not mend. All else may: leaders change, brokers come back.
_FINAL = frozenset(
    {
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError._UNKNOWN_TOPIC,  # noqa: SLF001 - as above, and below
        KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001
        KafkaError._FATAL,  # noqa: SLF001
    }
)


class TopicLog:
    """Reads over a consumer with `settings`, librdkafka's options: `topic_log_settings`.

    With `goes_on` a range of one partition that begins where the last one ended is read without asking for it anew:
    until something else is read, or it is closed, the client fetches what comes next.
    """

    def __init__(
        self, settings: Mapping[str, str | int | float | bool], clock: Clock, *, goes_on: bool = False
    ) -> None:
        self._clock = clock
        self._goes_on = goes_on
        self._rest: _Rest | None = None
        self._trouble: str | None = None  # what the client said last of its connections
        try:
            self._consumer = Consumer({**settings, "error_cb": self._note}, logger=ClientLogger())
        except KafkaException as error:
            reason = without_secrets(error.args[0].str(), settings)
            raise ConfigurationError(f"kafka.librdkafka: the consumer refuses its settings: {reason}") from error

    def bounds(self, partition: TopicPartition, timeout_s: float) -> tuple[int, int]:
        """The first offset that there is, and the one behind the last that can be read.

        What was committed a moment ago may still be behind it: its mark is written after the answer. Raises
        ClientError, with code UNKNOWN_TOPIC_OR_PART for a partition that does not exist. Not while something is read: a
        record could be lost to it.
        """
        until_s = self._clock.monotonic_s() + timeout_s
        self._trouble = None
        self._forget()
        while True:
            try:
                found = self._consumer.get_watermark_offsets(ClientPartition(*partition), timeout=self._left_s(until_s))
            except KafkaException as error:
                # Also said of a partition whose broker is away: the client knows of no leader then, and does not ask.
                self._insist_on(partition, self._left_s(until_s))
                if self._clock.monotonic_s() >= until_s:
                    raise self._lost(error.args[0], partition) from error
                self._consumer.poll(_POLL_S)
            else:
                if found is None:
                    raise ClientError(f"{partition}: no answer within {timeout_s:g} s", code="_TIMED_OUT")
                return found

    def _left_s(self, until_s: float) -> float:
        return max(until_s - self._clock.monotonic_s(), _POLL_S)

    def _insist_on(self, partition: TopicPartition, timeout_s: float) -> None:
        """Raises ClientError if the cluster says that there is no such partition, or nothing at all."""
        try:
            topic = self._consumer.list_topics(partition.topic, timeout=timeout_s).topics[partition.topic]
        except KafkaException as error:
            self._consumer.poll(0)  # brings what the client has to say
            raise self._lost(error.args[0], partition) from error
        if topic.error is not None and topic.error.code() in _FINAL:
            raise _client_error(topic.error, str(partition))
        if topic.error is None and partition.partition not in topic.partitions:
            raise ClientError(
                f"{partition}: the topic has {len(topic.partitions)} partitions", code="UNKNOWN_TOPIC_OR_PART"
            )

    def read(self, ranges: Ranges, timeout_s: float) -> Generator[Sequence[Message]]:
        """All records from the first offset of each range to before the second, in batches of one partition or several.

        In order of offset within a partition. What retention has taken meanwhile is left out, and so are offsets at
        which there is nothing. Raises ClientError if nothing comes for `timeout_s`, be it that a log ends before its
        range does. Until the iterator is at its end or closed, nothing else may be read.
        """
        reading = _Reading(ranges)
        starts = [ClientPartition(*partition, start) for partition, (start, end) in ranges.items() if start < end]
        self._trouble = None
        fetched = self._begun(starts)
        until_s = self._clock.monotonic_s() + timeout_s
        try:
            while reading.left:
                batch = reading.wanted(fetched)
                self._leave(reading)
                if batch:
                    yield batch
                    until_s = self._clock.monotonic_s() + timeout_s
                elif reading.left and self._clock.monotonic_s() > until_s:
                    nothing = f"{reading.missing}: nothing was read for {timeout_s:g} s"
                    raise ClientError(_with_reason(nothing, reading.trouble or self._trouble), code="_TIMED_OUT")
                if reading.left:
                    fetched = self._fetched()
        finally:
            if self._goes_on and len(ranges) == len(starts) == 1 and not reading.left:
                [(partition, (_, end))] = ranges.items()
                self._rest = _Rest((*partition, end), _beyond(end, fetched))
            else:
                self._consumer.unassign()

    def _begun(self, starts: Sequence[ClientPartition]) -> Sequence[ClientMessage]:
        """Have these fetched; returns what was fetched of them already."""
        rest, self._rest = self._rest, None
        if rest is not None and [(one.topic, one.partition, one.offset) for one in starts] == [rest.start]:
            return rest.fetched
        self._consumer.assign(list(starts))
        return []

    def _forget(self) -> None:
        if self._rest is not None:
            self._rest = None
            self._consumer.unassign()

    def _leave(self, reading: _Reading) -> None:
        """Have no more fetched of what is read while others are not."""
        if reading.ended and reading.left:
            self._consumer.incremental_unassign(reading.ended)
        reading.ended = []

    def close(self) -> None:
        """Idempotent."""
        self._consumer.close()

    def _note(self, error: KafkaError) -> None:
        if error.code() != KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001 - what a broker's own error said before says more
            self._trouble = error.str()

    def _lost(self, error: KafkaError, partition: TopicPartition) -> ClientError:
        return _client_error(error, str(partition), self._trouble)

    def _fetched(self) -> Sequence[ClientMessage]:
        """What there is, after a wait for the first: one `consume` would wait for as many as it may return."""
        first = self._consumer.poll(_POLL_S)
        return [] if first is None else [first, *self._consumer.consume(_MOST_AT_ONCE - 1, 0)]


@dataclass(frozen=True, slots=True)
class _Rest:
    """What was fetched from `start` on, and nobody has wanted yet; the client goes on behind it."""

    start: tuple[str, int, int]  # topic, partition, offset
    fetched: Sequence[ClientMessage]


def _beyond(end: int, fetched: Sequence[ClientMessage]) -> Sequence[ClientMessage]:
    """With the news that the log ends there, which the client tells once."""
    return [message for message in fetched if message.error() is not None or (message.offset() or 0) >= end]


class _Reading:
    """How far ranges are read: `left` has those that are not at their end."""

    def __init__(self, ranges: Ranges) -> None:
        self.left: dict[_Key, tuple[int, int]] = {(*one,): ends for one, ends in ranges.items() if ends[0] < ends[1]}
        self._ends: dict[_Key, int] = {}  # where the log ends, of those within their range
        self.trouble: str | None = None  # the error of a partition that was heard last
        self.ended: list[ClientPartition] = []  # since the last batch

    @property
    def missing(self) -> str:
        """What is waited for."""
        return "; ".join(map(self._missing, self.left))

    def _missing(self, partition: _Key) -> str:
        start, end = self.left[partition]
        ends = f", and the log ends at {self._ends[partition]}" if partition in self._ends else ""
        return f"{partition[0]}[{partition[1]}] from {start} to {end}{ends}"

    def wanted(self, messages: Sequence[ClientMessage]) -> Sequence[Message]:
        """Those within their ranges; raises ClientError."""
        found, left = [], self.left
        for message in messages:
            partition, error = (message.topic(), message.partition()), message.error()
            bounds = left.get(partition)
            if error is not None:
                self._hear(error, partition, message.offset() or 0)
            elif bounds is not None:
                offset = message.offset() or 0
                # From a start that is beyond the end of the log the client goes to its beginning.
                if bounds[0] <= offset < bounds[1]:
                    found.append(message)
                if offset + 1 >= bounds[1]:
                    self._end(partition)
        return cast("list[Message]", found)

    def _hear(self, error: KafkaError, partition: _Key, offset: int) -> None:
        if error.code() == _AT_END:
            # At the last offsets there may be nothing: what was aborted, and the marks of transactions.
            if partition in self.left and offset >= self.left[partition][1]:
                self._end(partition)
            self._ends[partition] = offset
        elif error.code() in _FINAL or error.fatal():
            raise _client_error(error, str(TopicPartition(str(partition[0]), partition[1] or 0)))
        else:
            self.trouble = error.str()

    def _end(self, partition: _Key) -> None:
        del self.left[partition]
        self.ended.append(ClientPartition(str(partition[0]), partition[1] or 0))


def newest_first(ranges: Ranges, chunk: int) -> Iterator[Ranges]:
    """Parts of `ranges` for one `read` after the other: the last `chunk` offsets of each, then those before them."""
    left = {partition: bounds for partition, bounds in ranges.items() if bounds[0] < bounds[1]}
    while left:
        part = {partition: (max(start, end - chunk), end) for partition, (start, end) in left.items()}
        yield part
        left = {partition: (left[partition][0], first) for partition, (first, _) in part.items()}
        left = {partition: bounds for partition, bounds in left.items() if bounds[0] < bounds[1]}


def _client_error(error: KafkaError, about: str, reason: str | None = None) -> ClientError:
    text = _with_reason(f"{about}: {error.str()}", reason)
    return ClientError(text, code=error.name(), retriable=error.retriable())


def _with_reason(text: str, reason: str | None) -> str:
    return text if reason is None else f"{text} ({reason})"
