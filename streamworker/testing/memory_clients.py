"""What else a worker asks of a broker, of a `MemoryBroker`: the dead-letter producer, parked keys, and the log."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from streamworker.errors import ClientError
from streamworker.record import TopicPartition

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from streamworker.record import Letter
    from streamworker.testing.memory_broker import MemoryBroker

_WAY_THERE_S = 0.001  # of a letter


class MemoryOutbox:
    """An `Outbox` into the broker's topics."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker
        self._reports: list[tuple[Callable[[str | None], None], str | None]] = []
        self._under_way = 0

    def send(self, letter: Letter, done: Callable[[str | None], None]) -> None:
        """Hand over; acknowledged after the broker's latency."""
        refusal = self._broker.produce_unsent()
        if refusal is not None:
            raise refusal
        self._under_way += 1
        self._broker.time.call_in(self._broker.produce_latency_s, partial(self._arrive, letter, done))

    def poll(self) -> None:
        """Serve delivery reports."""
        reports, self._reports = self._reports, []
        for done, error in reports:
            done(error)

    def partitions(self, topic: str, timeout_s: float) -> int | None:  # noqa: ARG002 - known at once
        """Number of partitions of `topic`."""
        return len(self._broker.partitions(topic)) or None

    def flush(self, timeout_s: float) -> int:
        """Wait for what was handed over."""
        self._broker.time.wait(timeout_s, lambda: self._under_way == 0)
        self.poll()
        return self._under_way

    def _arrive(self, letter: Letter, done: Callable[[str | None], None]) -> None:
        self._under_way -= 1
        error = self._broker.produce_error(letter.topic)
        if error is None:
            self._broker.append(letter)
            error = self._broker.produce_unanswered(letter.topic)
        self._reports.append((done, error))


class MemoryKeyLog:
    """A `KeyLog` of the broker's `topics`."""

    def __init__(self, broker: MemoryBroker, topics: Sequence[str]) -> None:
        self._broker = broker
        self._reached = {TopicPartition(topic, 0): 0 for topic in topics}
        self._connected_s = broker.time.monotonic_s() + broker.notes_latency_s

    def poll(self) -> Sequence[tuple[bytes | None, bytes | None]]:
        """What came since."""
        notes: list[tuple[bytes | None, bytes | None]] = []
        now_s = self._broker.time.monotonic_s()
        readable = self._reached.keys() - self._broker.leaderless if now_s >= self._connected_s else ()
        for key in sorted(readable):
            found = self._broker.read(key, self._reached[key], 1 << 60) or ()
            there = [one for one in found if one.appended_s <= now_s - self._broker.notes_latency_s]
            notes += [(one.key(), one.value()) for one in there]
            if there:
                self._reached[key] = there[-1].offset() + 1
        return notes

    def reached(self, topic: str) -> int:
        """Up to where all was told."""
        return self._reached[TopicPartition(topic, 0)]

    def close(self) -> None:
        """Nothing to give back."""


class MemoryLog:
    """A `Log` over the broker's topics."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker

    def end_offsets(self, partitions: Sequence[TopicPartition], timeout_s: float) -> Mapping[TopicPartition, int]:  # noqa: ARG002 - known at once
        """Offset after the last record of each."""
        error = self._broker.ends_error()
        if error is not None:
            raise ClientError("the cluster does not answer", code=error)
        return {key: self._broker.end(key) for key in partitions}

    def offsets_at(
        self,
        partitions: Sequence[TopicPartition],
        timestamp_ms: int,
        timeout_s: float,  # noqa: ARG002 - known at once
    ) -> Mapping[TopicPartition, int]:
        """First offset at or after the time."""
        return {key: self._first_at(key, timestamp_ms) for key in partitions}

    def partitions(self, topic: str, timeout_s: float) -> Sequence[TopicPartition]:  # noqa: ARG002 - known at once
        """All partitions of `topic`."""
        return self._broker.partitions(topic)

    def topic_ids(self, topics: Sequence[str], timeout_s: float) -> Mapping[str, str]:  # noqa: ARG002 - known at once
        """What tells topics from others of their names."""
        return {topic: self._broker.topic_id(topic) for topic in topics}

    def _first_at(self, key: TopicPartition, timestamp_ms: int) -> int:
        later = [
            one.offset()
            for one in self._broker.read(key, self._broker.low(key), 1 << 60) or ()
            if one.timestamp()[1] >= timestamp_ms
        ]
        return later[0] if later else self._broker.end(key)
