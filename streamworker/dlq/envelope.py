"""The form of a dead letter: the record as it was delivered, and headers that say where from and why.

Decides the names and limits of our headers, and what is left out when the whole is too large. Does not decide
whether a record is a dead letter, and sends nothing. Pure, any thread; the vocabulary and `interfaces` only.

Rules. Key and value are the bytes of the log, null stays null. The record's own headers come first, in order, with
duplicates and nulls; those whose names start with `sw-` are left out, because they would be taken for ours. Ours are
UTF-8 text. The letter's timestamp is the time of writing: with the original one, retention might delete the
letter at once. All text that comes from an error is cut, since it may hold megabytes.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from streamworker.dlq.lineage import lineage_of
from streamworker.fingerprint import class_name, cut, fingerprint_of, text_of
from streamworker.reason import Reason
from streamworker.record import (
    Letter,
    Origin,
    Returned,
    TopicPartition,
    calls_before,
    origin_of,
    read_headers,
    timestamp_ms_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from streamworker.record import Header, Headers, Message

PREFIX = "sw-"
VERSION = "1"

_MESSAGE_MAX_BYTES = 512
_LOG_MAX_BYTES = 1024
_LOG_MAX_ATTEMPTS = 10
_to_json = json.JSONEncoder(separators=(",", ":")).encode
# Record format v2 with every varint at its longest: 61 bytes of batch header, 36 of the record, 2 x 5 per header.
_RECORD_OVERHEAD_BYTES = 61 + 36
_HEADER_OVERHEAD_BYTES = 10

# What each form of a letter leaves out, from the whole copy to the barest. Without its value a letter is a pointer,
# and that has room for the details again.
_FORMS: tuple[tuple[str, ...], ...] = (
    (),
    ("details",),
    ("details", "headers"),
    ("headers", "value"),
    ("details", "headers", "value"),
    ("details", "headers", "value", "key"),
)
# A copy that is to be handled must be whole.
_WHOLE_FORMS = _FORMS[:2]
_POINTER_FORMS = tuple(form for form in _FORMS if "value" in form)


class Attempt(msgspec.Struct, frozen=True):
    """One failed call: milliseconds since the Unix epoch and the error's class."""

    at_ms: int
    error: str

    @classmethod
    def of(cls, at_ms: int, error: BaseException) -> Attempt:
        """The entry for `error`; does not keep it alive."""
        return cls(at_ms, class_name(error))


@dataclass(frozen=True, slots=True)
class ComesBack:
    """When a record that goes to a retry topic is due, in milliseconds since the Unix epoch; `level` counts from 1."""

    level: int
    due_ms: int

    @property
    def headers(self) -> Iterator[Header]:
        """As they are written."""
        yield _header("sw-retry-level", str(self.level))
        yield _header("sw-due", str(self.due_ms))


@dataclass(frozen=True, slots=True)
class Envelope:
    """A dead letter before it is known which form the topic takes. Made by `envelope`."""

    topic: str  # that it goes to
    source: TopicPartition  # that the record was delivered from
    offset: int
    message: Message
    copied: Sequence[Header]  # the record's own headers
    facts: Sequence[Header]  # ours, in every form
    details: Sequence[Header]  # ours, the first to go
    reason: Reason
    now_ms: int
    max_bytes: int
    whole: bool

    @property
    def fits(self) -> bool:
        """Whether one of its forms is small enough for the producer."""
        return _size_bytes(self._letter(self._forms[-1], 0)) <= self.max_bytes

    @property
    def _forms(self) -> tuple[tuple[str, ...], ...]:
        if self.whole:
            return _WHOLE_FORMS
        return _POINTER_FORMS if self.reason is Reason.SKIPPED else _FORMS

    def letters(self, partition_count: int) -> Iterator[Letter]:
        """The forms within `max_bytes`, each smaller than the one before; if none is, the barest.

        They go to partition `source % partition_count`, so letters of one source partition stay in order.
        """
        forms = self._forms
        partition = self.source.partition % partition_count
        bound = self.max_bytes + 1
        for left_out in forms:
            letter = self._letter(left_out, partition)
            size = _size_bytes(letter)
            none_fits = left_out is forms[-1] and bound > self.max_bytes
            if size < bound or none_fits:
                bound = size
                yield letter

    def _letter(self, left_out: Sequence[str], partition: int) -> Letter:
        return Letter(
            topic=self.topic,
            partition=partition,
            key=None if "key" in left_out else self.message.key(),
            value=None if "value" in left_out else self.message.value(),
            headers=list(self._headers(left_out)),
            timestamp_ms=self.now_ms,
            of=(self.source, self.offset),
        )

    def _headers(self, left_out: Sequence[str]) -> Iterator[Header]:
        if "headers" not in left_out:
            yield from self.copied
        yield from self.facts
        if "details" not in left_out:
            yield from self.details
        if left_out:
            yield _header("sw-trimmed", ",".join(left_out))
        if "value" in left_out:
            yield _header("sw-pointer", self._pointer())

    def _pointer(self) -> str:
        value = self.message.value()
        return json.dumps(
            {
                "sha256": None if value is None else hashlib.sha256(value).hexdigest(),
                "size": None if value is None else len(value),
                "topic": self.source.topic,
                "partition": self.source.partition,
                "offset": self.offset,
            }
        )


def envelope(
    message: Message,
    *,
    topic: str,
    group: str,
    handler: str,
    reason: Reason,
    error: BaseException,
    attempts: int,
    attempt_log: Sequence[Attempt],
    now_ms: int,
    max_bytes: int,
    comes_back: ComesBack | None = None,
    parked_behind: int | None = None,
) -> Envelope:
    """Put `message` into an envelope for dead-letter topic `topic`, or for a retry topic if it `comes_back`.

    `attempts` counts the calls that were made since it was delivered, `attempt_log` has the latest of them last.
    `max_bytes` is the largest record that the producer takes (`message.max.bytes`); `parked_behind` the offset of the
    record of its key that it follows. Nothing of `error` is kept alive.
    """
    source = TopicPartition(message.topic(), message.partition())
    headers = read_headers(message)
    return Envelope(
        topic=topic,
        source=source,
        offset=message.offset(),
        message=message,
        copied=[header for header in headers if not header[0].startswith(PREFIX)],
        facts=[
            _header("sw-version", VERSION),
            _header("sw-id", "/".join(map(str, (group, *origin_of(message))))),
            _header("sw-group", group),
            _header("sw-handler", handler),
            *_coordinates(message, headers),
            *(lineage_of(headers).headers if isinstance(message, Returned) else ()),
            _header("sw-reason", reason),
            _header("sw-exception", class_name(error)),
            _header("sw-fingerprint", fingerprint_of(error)),
            _header("sw-attempts", str(attempts + calls_before(message))),
            *(comes_back.headers if comes_back is not None else ()),
            *([_header("sw-parked-behind", str(parked_behind))] if parked_behind is not None else ()),
        ],
        details=[
            ("sw-message", cut(text_of(error), _MESSAGE_MAX_BYTES)),
            *_attempt_log(attempt_log[-_LOG_MAX_ATTEMPTS:]),
        ],
        reason=reason,
        now_ms=now_ms,
        max_bytes=max_bytes,
        whole=comes_back is not None,
    )


def _coordinates(message: Message, headers: Headers) -> Iterator[Header]:
    """Where the record was first, and where it was delivered from: the same unless it is `Returned`."""
    delivered = Origin(message.topic(), message.partition(), message.offset())
    for name, place in (("origin", origin_of(message)), ("from", delivered)):
        yield _header(f"sw-{name}-topic", place.topic)
        yield _header(f"sw-{name}-partition", str(place.partition))
        yield _header(f"sw-{name}-offset", str(place.offset))
    timestamp_ms = timestamp_ms_of(message)
    if timestamp_ms is not None:
        yield _header("sw-origin-timestamp", str(timestamp_ms))
    if not headers.readable or (isinstance(message, Returned) and headers.last("sw-headers-unreadable")):
        yield _header("sw-headers-unreadable", "1")


def _attempt_log(attempts: Sequence[Attempt]) -> Iterable[Header]:
    """The latest attempts that fit."""
    for first in range(len(attempts)):
        text = _to_json([msgspec.structs.asdict(attempt) for attempt in attempts[first:]])
        if len(text) <= _LOG_MAX_BYTES:
            return [_header("sw-attempt-log", text)]
    return []


def _header(name: str, text: str) -> Header:
    return name, text.encode("utf-8", "backslashreplace")


def _size_bytes(letter: Letter) -> int:
    """Size in the log, estimated from above."""
    payload = len(letter.key or b"") + len(letter.value or b"")
    headers = sum([len(name.encode()) + len(value or b"") for name, value in letter.headers])
    return _RECORD_OVERHEAD_BYTES + payload + headers + _HEADER_OVERHEAD_BYTES * len(letter.headers)
