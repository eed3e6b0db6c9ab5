"""Notes of parked keys: how they are written, and what they add up to.

With `on_exhausted="dlq_key"` later records of a key follow its dead letter. Which keys these are stands in partition 0
of the compacted topic beside the dead letters, and nowhere else: a key is parked once its note is read from there, and
released once the note is read that has no value. A note's key says group, topic, partition and key; its value, from
which offset on. Pure, any thread.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from streamworker.record import Letter, TopicPartition

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PARTITION = 0  # a single one, so that all notes have one order whatever the number of partitions becomes


class _Value(msgspec.Struct, frozen=True):
    first: int
    v: int = 1  # of this format


_decode_where = msgspec.json.Decoder(tuple[str, str, int]).decode
_decode_value = msgspec.json.Decoder(_Value).decode


class ParkedKey(NamedTuple):
    """A key of one partition, for one group."""

    group: str
    partition: TopicPartition
    key: bytes

    def encode(self) -> bytes:
        """The note's key: one line of JSON, then the bytes of the key."""
        return msgspec.json.encode((self.group, *self.partition)) + b"\n" + self.key


@dataclass(frozen=True, slots=True)
class Note:
    """`parked` is parked from offset `first` on; with None it is released."""

    parked: ParkedKey
    first: int | None


@dataclass(frozen=True, slots=True)
class NoteLetter:
    """A note on its way to `topic`; `source` and `offset` are those of the record that parks its key."""

    topic: str
    source: TopicPartition
    offset: int
    note: Note
    now_ms: int

    def letters(self, partition_count: int) -> Iterator[Letter]:  # noqa: ARG002 - as of an envelope
        """Its only form."""
        yield letter_of(self.note, self.topic, self.now_ms)


def letter_of(note: Note, topic: str, now_ms: int) -> Letter:
    """The record that is written."""
    value = None if note.first is None else msgspec.json.encode(_Value(note.first))
    return Letter(topic, PARTITION, note.parked.encode(), value, (), now_ms)


def read_note(key: bytes | None, value: bytes | None) -> Note | None:
    """The note that a record of the topic is; None if it is none that this version can read."""
    where, line_end, parked = (key or b"").partition(b"\n")
    try:
        group, topic, number = _decode_where(where)
        first = None if value is None else _decode_value(value).first
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return Note(ParkedKey(group, TopicPartition(topic, number), parked), first) if line_end else None


class ParkedKeys:
    """The parked keys of one group, by partition."""

    def __init__(self, group: str) -> None:
        self._group = group
        self._of: defaultdict[TopicPartition, dict[bytes, int]] = defaultdict(dict)

    def take(self, note: Note) -> int | None:
        """Take a note in; returns from where on its key was parked before, None if it was not.

        Of several that were written before a release the lowest offset counts, as far as compaction has left it.
        """
        if note.parked.group != self._group:
            return None
        keys, key = self._of[note.parked.partition], note.parked.key
        if note.first is None:
            return keys.pop(key, None)
        before = keys.get(key)
        keys[key] = note.first if before is None else min(before, note.first)
        return before

    def of(self, partition: TopicPartition) -> Mapping[bytes, int]:
        """The offset from which on each parked key of `partition` is, as it stands at any time."""
        return self._of[partition]
