"""The values of headers, which anybody may have written: what is believed of them, and which cannot be read.

Decided here: what a name, a place and a number have to look like, and how much of a text is kept. Nothing is raised.
Pure, any thread.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeVar

import msgspec

from streamworker.dlq.envelope import Attempt
from streamworker.dlq.lineage import MAX_COUNT, PARENT, REPLAY_ID, SHA256
from streamworker.record import Origin
from streamworker.replay.dead_record import Pointer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

T = TypeVar("T")

MAX_NAME_BYTES = 1_024  # of groups, handlers, classes, and of ids, which are made of a group and a topic
MAX_MESSAGE_CHARS = 4_096  # as many as a fingerprint is made of
MAX_STACKTRACE_CHARS = 65_536
MAX_DIGITS = 60  # zeros may lead
MAX_PARTITION = 2**31 - 1
MAX_OFFSET = 2**63 - 1

_MAX_JSON_BYTES = 16_384  # of attempt logs and pointers: ours have a tenth of it
_MAX_DAMAGED = 20  # names that are told of one letter
_TOPIC = re.compile(rb"[A-Za-z0-9._-]{1,249}")


class _Pointed(msgspec.Struct):
    topic: str
    partition: int
    offset: int
    sha256: str | None
    size: int | None


_read_log = msgspec.json.Decoder(tuple[Attempt, ...]).decode
_read_pointer = msgspec.json.Decoder(_Pointed).decode


class HeaderValues:
    """Headers by name. What is there and cannot be read is noted in `damaged`."""

    __slots__ = ("_by_name", "damaged")

    def __init__(self, by_name: Mapping[str, bytes | None], damaged: list[str]) -> None:
        self._by_name = by_name
        self.damaged = damaged

    def __contains__(self, header: str) -> bool:
        return header in self._by_name

    def raw(self, header: str) -> bytes | None:
        """Its bytes."""
        return self._by_name.get(header)

    def read(self, header: str, reader: Callable[[bytes | None], T | None]) -> T | None:
        """What `reader` makes of it; None is no answer of a reader."""
        if header not in self._by_name:
            return None
        found = reader(self._by_name[header])
        if found is None:
            self.note(header)
        return found

    def text(self, header: str, most_chars: int = MAX_MESSAGE_CHARS) -> str | None:
        """Any text, cut; what is not UTF-8 is replaced. A null is no damage: an exception may have no message."""
        value = self._by_name.get(header)
        if value is None:
            return None
        try:
            return value.decode()[:most_chars]
        except UnicodeDecodeError:
            self.note(header)
            return value.decode("utf-8", "replace")[:most_chars]

    def place(self, prefix: str) -> Origin | None:
        """Topic, partition and offset as text, under these names behind `prefix`."""
        return origin(
            self.read(f"{prefix}topic", as_topic),
            self.read(f"{prefix}partition", as_partition),
            self.read(f"{prefix}offset", as_digits),
        )

    def note(self, header: str) -> None:
        """It cannot be read."""
        if header not in self.damaged and len(self.damaged) < _MAX_DAMAGED:
            self.damaged.append(header)


def origin(topic: str | None, partition: int | None, offset: int | None) -> Origin | None:
    """A place of which everything is known."""
    return None if topic is None or partition is None or offset is None else Origin(topic, partition, offset)


def as_name(value: bytes | None) -> str | None:
    """A short text that is not empty."""
    try:
        return value.decode() or None if value is not None and len(value) <= MAX_NAME_BYTES else None
    except UnicodeDecodeError:
        return None


def as_topic(value: bytes | None) -> str | None:
    """A name that a topic can have."""
    return value.decode() if value and _TOPIC.fullmatch(value) and value not in {b".", b".."} else None


def as_parent(value: bytes | None) -> str | None:
    """The place of a letter: TOPIC/PARTITION/OFFSET."""
    return _as(PARENT, value)


def as_replay_id(value: bytes | None) -> str | None:
    """The id of a replay."""
    return _as(REPLAY_ID, value)


def as_sha256(value: bytes | None) -> str | None:
    """64 hexadecimal digits."""
    return _as(SHA256, value)


def _as(form: re.Pattern[str], value: bytes | None) -> str | None:
    text = as_name(value)
    return text if text is not None and form.fullmatch(text) else None


def as_digits(value: bytes | None, most: int = MAX_OFFSET) -> int | None:
    """A decimal number from 0 to `most`."""
    if value is None or len(value) > MAX_DIGITS or not value.isdigit():
        return None
    number = int(value)
    return number if number <= most else None


def as_partition(value: bytes | None) -> int | None:
    """A decimal number that a partition can have."""
    return as_digits(value, MAX_PARTITION)


def as_count(value: bytes | None) -> int | None:
    """A decimal number of attempts or replays."""
    return as_digits(value, MAX_COUNT)


def as_int32(value: bytes | None) -> int | None:
    """A number in four bytes as Java writes them, the most significant one first; not a negative one."""
    return _binary(value, 4)


def as_int64(value: bytes | None) -> int | None:
    """The same in eight."""
    return _binary(value, 8)


def as_int8_or_int32(value: bytes | None) -> int | None:
    """The same in four, or in one as in older versions of its writer."""
    return _binary(value, 1 if value is not None and len(value) == 1 else 4)


def _binary(value: bytes | None, size_bytes: int) -> int | None:
    if value is None or len(value) != size_bytes:
        return None
    number = int.from_bytes(value, "big", signed=True)
    return number if number >= 0 else None


def as_attempts(value: bytes | None) -> tuple[Attempt, ...] | None:
    """Our log of attempts."""
    try:
        return _read_log(value) if value is not None and len(value) <= _MAX_JSON_BYTES else None
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None


def as_pointer(value: bytes | None) -> Pointer | None:
    """Our note of a value that was left out."""
    try:
        found = _read_pointer(value) if value is not None and len(value) <= _MAX_JSON_BYTES else None
        at = None if found is None else origin(as_topic(found.topic.encode()), found.partition, found.offset)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    if found is None or at is None or min(found.partition, found.offset, found.size or 0) < 0:
        return None
    if found.sha256 is not None and not SHA256.fullmatch(found.sha256):
        return None
    return Pointer(found.sha256, found.size, at)
