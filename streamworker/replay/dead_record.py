"""What a dead letter says, whoever wrote it: the vocabulary of this room.

Values only, any thread. `families.py` makes them from records of the log.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from streamworker.errors import ConfigurationError

if TYPE_CHECKING:
    from streamworker.dlq.envelope import Attempt
    from streamworker.record import Headers, Origin

_ID = re.compile(r"([0-9]{1,9}):([0-9]{1,18})")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class LetterId(NamedTuple):
    """Where a dead letter is in its topic. Its text is `PARTITION:OFFSET`."""

    partition: int
    offset: int

    @classmethod
    def parse(cls, text: str) -> LetterId:
        """Read what `str()` writes; raises ConfigurationError."""
        found = _ID.fullmatch(text)
        if found is None:
            raise ConfigurationError(f"expected a dead letter as PARTITION:OFFSET, for instance 3:1042, got {text!r}")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.partition}:{self.offset}"


@dataclass(frozen=True, slots=True)
class Pointer:
    """Stands for a value that was too large for its dead letter. `sha256` is of the value, in hexadecimal digits."""

    sha256: str | None
    size_bytes: int | None
    at: Origin  # where the whole record is


class DeadRecord(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One record of a dead-letter topic. Times are milliseconds since the Unix epoch.

    What its headers do not say, or say in a way that cannot be read, is None; `damaged` names the latter. Nothing that
    is said of `origin`, `group` or the replays is more than a claim of who could write to the topic.

    A Struct, because a view makes millions of them, and a dataclass of this size costs several times as much. Nothing
    in it can hold it, so the garbage collector need not know it.
    """

    topic: str  # the dead-letter topic
    id: LetterId
    written_ms: int | None  # the record's own timestamp
    key: bytes | None  # of the record before it failed; some systems write their letters under another one
    value: bytes | None
    headers: Headers  # all, of the record and of who wrote the letter
    family: str  # whose headers they are: streamworker, spring, connect, …, or none
    own_headers: Headers  # those that the record had before it failed
    origin: Origin | None = None  # where the record was first
    origin_topic: str | None = None  # the same, also where the rest is not told
    origin_timestamp_ms: int | None = None
    delivered: Origin | None = None  # where it was delivered from when it failed
    group: str | None = None
    handler: str | None = None
    reason: str | None = None
    exception: str | None = None  # the class
    message: str | None = None
    stacktrace: str | None = None
    fingerprint: str | None = None  # the same for the same mistake
    attempts: int | None = None
    attempt_log: tuple[Attempt, ...] = ()  # the latest last
    sw_id: str | None = None  # the same for all letters that a crash wrote of one record
    parent: str | None = None  # the letter whose replay failed: TOPIC/PARTITION/OFFSET
    replay_id: str | None = None
    replay_count: int = 0  # replays in its line so far
    repaired_sha256: str | None = None  # of the value that was sent, in hexadecimal digits, if that was edited before
    parked_behind: int | None = None  # offset of the record of its key that it follows, where it was delivered from
    pointer: Pointer | None = None
    trimmed: tuple[str, ...] = ()  # what the letter was too large for: details, headers, value, key
    headers_lost: bool = False  # the record had some that could not be read when the letter was written
    damaged: tuple[str, ...] = ()  # names of headers; `*` stands for all of them

    @property
    def place(self) -> str:
        """`TOPIC/PARTITION/OFFSET`, as `parent` of what comes back names it."""
        return f"{self.topic}/{self.id.partition}/{self.id.offset}"

    @property
    def payload_sha256(self) -> str | None:
        """In hexadecimal digits, of the value, or of the one that a pointer stands for; None if it has neither."""
        if self.value is not None:
            return hashlib.sha256(self.value).hexdigest()
        told = None if self.pointer is None else self.pointer.sha256
        return told if told is not None and _SHA256.fullmatch(told) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """What lists say of a dead letter; the whole of it is in its topic. The names are those of `DeadRecord`.

    Long keys, names and messages are cut.
    """

    topic: str
    id: LetterId
    written_ms: int | None
    key: bytes | None
    size_bytes: int | None  # of the value, or of the one that a pointer stands for; None: there is none
    payload_sha256: str | None  # likewise, in hexadecimal digits
    family: str
    origin: Origin | None
    origin_topic: str | None
    group: str | None
    handler: str | None
    reason: str | None
    exception: str | None
    message: str | None
    fingerprint: str | None
    attempts: int | None
    sw_id: str | None
    parent: str | None
    replay_id: str | None
    replay_count: int

    @property
    def place(self) -> str:
        """As that of a `DeadRecord`."""
        return f"{self.topic}/{self.id.partition}/{self.id.offset}"
