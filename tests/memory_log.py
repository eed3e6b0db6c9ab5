"""A log in memory that is read as a `TopicLog` reads Kafka's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamworker.record import TopicPartition
from streamworker.testing.memory_broker import MemoryMessage

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from streamworker.record import Header, Message


class MemoryLog:
    """What was read is in `read_ranges`; an error in `errors` is raised where its partition is asked for."""

    def __init__(self, *, at_once: int = 100) -> None:
        self.read_ranges: list[Mapping[TopicPartition, tuple[int, int]]] = []
        self.errors: dict[TopicPartition, Exception] = {}
        self._at_once = at_once
        self._records: dict[TopicPartition, list[MemoryMessage]] = {}
        self._starts: dict[TopicPartition, int] = {}

    def append(
        self,
        topic: str,
        partition: int = 0,
        *,
        key: bytes | None = None,
        value: bytes | None = None,
        headers: Sequence[Header] = (),
        timestamp_ms: int = 0,
    ) -> int:
        """A record at the end of its partition, and where it is."""
        at = TopicPartition(topic, partition)
        records = self._records.setdefault(at, [])
        records.append(
            MemoryMessage(at, len(records), key=key, value=value, headers=headers, timestamp_ms=timestamp_ms)
        )
        return len(records) - 1

    def delete_before(self, topic: str, partition: int, offset: int) -> None:
        """As retention does."""
        self._starts[TopicPartition(topic, partition)] = offset

    def bounds(self, partition: TopicPartition, timeout_s: float) -> tuple[int, int]:
        del timeout_s
        if partition in self.errors:
            raise self.errors[partition]
        return self._starts.get(partition, 0), len(self._records.get(partition, ()))

    def read(self, ranges: Mapping[TopicPartition, tuple[int, int]], timeout_s: float) -> Generator[Sequence[Message]]:
        self.read_ranges.append(dict(ranges))
        for partition, (start, end) in ranges.items():
            first, _ = self.bounds(partition, timeout_s)
            found = self._records.get(partition, [])[max(start, first) : end]
            for begin in range(0, len(found), self._at_once):
                yield found[begin : begin + self._at_once]

    def close(self) -> None:
        """As of `TopicLog`."""
