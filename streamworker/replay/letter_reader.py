"""Reads single letters of a dead-letter topic with their values.

Decided here: which parts of the log are read for letters that lie far apart, and where the value of one is that was too
large for it. One thread at a time.
"""

from __future__ import annotations

import hashlib
from contextlib import closing
from itertools import chain
from typing import TYPE_CHECKING

from msgspec import structs

from streamworker.errors import ClientError
from streamworker.record import TopicPartition

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from streamworker.record import Message
    from streamworker.replay.dead_record import DeadRecord, LetterId, Pointer
    from streamworker.replay.topic_log import TopicLog

# What lies between two letters is read as well if it is no more than this: a new position costs as much.
_GAP = 200
_AT_ONCE_BYTES = 8 * 1024 * 1024  # of values that are held: nothing else can be read through the log meanwhile


class LetterReader:
    """Reads through `log`; `read_letter` makes a letter of a record of the topic."""

    def __init__(
        self, log: TopicLog, topic: str, read_letter: Callable[[str, Message], DeadRecord], timeout_s: float
    ) -> None:
        self._log = log
        self._topic = topic
        self._read_letter = read_letter
        self._timeout_s = timeout_s
        self._bounds: dict[
            TopicPartition, tuple[int, int]
        ] = {}  # as of the first look; what is deleted later is left out

    def read(self, ids: Sequence[LetterId]) -> Iterator[DeadRecord]:
        """Those of one partition that are still there, ascending; where a value is lost, its pointer stays.

        Raises ClientError.
        """
        if not ids:
            return
        partition = TopicPartition(self._topic, ids[0].partition)
        if partition not in self._bounds or ids[-1].offset >= self._bounds[partition][1]:
            self._bounds[partition] = self._log.bounds(partition, self._timeout_s)
        start, end = self._bounds[partition]
        offsets = [one.offset for one in ids if start <= one.offset < end]
        wanted = frozenset(offsets)
        for first, last in _stretches(offsets):
            left: int | None = first
            while left is not None:
                messages, left = self._part(partition, left, last + 1, wanted)
                for message in messages:
                    yield self._whole(self._read_letter(self._topic, message))

    def _part(
        self, partition: TopicPartition, start: int, end: int, wanted: Collection[int]
    ) -> tuple[Sequence[Message], int | None]:
        """What is wanted of a range, or the beginning of that if it is large, and from where the rest is to be read."""
        found: list[Message] = []
        size_bytes = 0
        with closing(self._log.read({partition: (start, end)}, self._timeout_s)) as batches:
            for message in chain.from_iterable(batches):
                if message.offset() not in wanted:
                    continue
                found.append(message)
                size_bytes += len(message.value() or b"")
                if size_bytes >= _AT_ONCE_BYTES:
                    rest = message.offset() + 1
                    return found, rest if rest < end else None
        return found, None

    def _whole(self, letter: DeadRecord) -> DeadRecord:
        """With the value that was too large for the letter, if its origin still has it."""
        if letter.pointer is None:
            return letter
        value = self._value_at(letter.pointer)
        return letter if value is None else structs.replace(letter, value=value, pointer=None)

    def _value_at(self, pointer: Pointer) -> bytes | None:
        origin = TopicPartition(pointer.at.topic, pointer.at.partition)
        offset = pointer.at.offset
        try:
            start, end = self._log.bounds(origin, self._timeout_s)
            if not start <= offset < end:
                return None
            batches = list(self._log.read({origin: (offset, offset + 1)}, self._timeout_s))
        except ClientError as error:
            if error.retriable:
                raise
            return None
        for message in (message for batch in batches for message in batch):
            value = message.value()
            if value is not None and hashlib.sha256(value).hexdigest() == pointer.sha256:
                return value
        return None


def _stretches(offsets: Sequence[int]) -> Iterator[tuple[int, int]]:
    """First and last of each run of offsets that lie close to one another."""
    if not offsets:
        return
    first = last = offsets[0]
    for offset in offsets[1:]:
        if offset - last > _GAP:
            yield first, last
            first = offset
        last = offset
    yield first, last
