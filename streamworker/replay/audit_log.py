"""Reads the audit topic: all of it for a check of its chains, its newest entries for people.

Decided here: how far back is read for the newest entries of all partitions. One thread at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from streamworker.errors import ConfigurationError
from streamworker.record import read_headers
from streamworker.replay.audit import Kept, audited, read
from streamworker.replay.topic_log import newest_first

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from streamworker.record import Message, TopicPartition
    from streamworker.replay.desk import Audited

    Ranges = Mapping[TopicPartition, tuple[int, int]]

_AT_ONCE = 500  # entries of a partition that are read for the newest ones


class Log(Protocol):
    """What is asked of a `TopicLog`."""

    def bounds(self, partition: TopicPartition, timeout_s: float) -> tuple[int, int]:
        """As of `TopicLog`."""

    def read(self, ranges: Ranges, timeout_s: float) -> Iterator[Sequence[Message]]:
        """As of `TopicLog`."""


class Place(NamedTuple):
    """Where an entry is among all of them, in order of time. Its text is a cursor for people and URLs."""

    at_ms: int
    writer: str
    sequence: int

    @classmethod
    def of(cls, entry: Audited) -> Place:
        """Of an entry."""
        return cls(entry.at_ms, entry.writer, entry.sequence)

    @classmethod
    def parse(cls, text: str) -> Place:
        """Read what `str()` writes; raises ConfigurationError."""
        at_ms, _, rest = text.partition(":")
        writer, _, sequence = rest.rpartition(":")
        if not (at_ms.isdecimal() and writer and sequence.isdecimal()):
            raise ConfigurationError(f"expected what a page of the audit says of the next one, got {text!r}")
        return cls(int(at_ms), writer, int(sequence))

    def __str__(self) -> str:
        return f"{self.at_ms}:{self.writer}:{self.sequence}"


class AuditLog:
    """The audit topic with `partitions`, read through `log`. Raises ClientError."""

    def __init__(self, log: Log, partitions: Sequence[TopicPartition], timeout_s: float) -> None:
        self._log = log
        self._partitions = partitions
        self._timeout_s = timeout_s

    def ranges(self) -> Ranges:
        """What there is now, by partition."""
        return {partition: self._log.bounds(partition, self._timeout_s) for partition in self._partitions}

    def kept(self, ranges: Ranges) -> Iterator[Kept]:
        """All records of these ranges; those of a partition in their order."""
        for batch in self._log.read(ranges, self._timeout_s):
            for message in batch:
                yield Kept(message.partition(), message.offset(), message.value(), read_headers(message))

    def newest(
        self, limit: int, *, before: Place | None = None, wanted: Callable[[Audited], bool] | None = None
    ) -> tuple[Sequence[Audited], str | None]:
        """The newest entries that are wanted, the newest first, and what `before` is for those behind them.

        None for the latter if there are no more. Each partition is read backwards until it has enough of them.
        """
        found: dict[Place, Audited] = {}
        for partition, bounds in self.ranges().items():
            mine: dict[Place, Audited] = {}
            for part in newest_first({partition: bounds}, _AT_ONCE):
                mine.update(self._entries(part, before, wanted))
                if len(mine) > limit:
                    break
            found.update(mine)
        places = sorted(found, reverse=True)
        return [found[place] for place in places[:limit]], str(places[limit - 1]) if len(places) > limit else None

    def _entries(
        self, part: Ranges, before: Place | None, wanted: Callable[[Audited], bool] | None
    ) -> Iterator[tuple[Place, Audited]]:
        for one in self.kept(part):
            entry = read(one.value)
            if entry is None:
                continue
            found = audited(entry)
            place = Place.of(found)
            if (before is None or place < before) and (wanted is None or wanted(found)):
                yield place, found
