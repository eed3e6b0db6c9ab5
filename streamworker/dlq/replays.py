"""A dead letter that is sent again: the headers of the copy, for who writes and who reads it, and its signature.

Decided here: what a copy says of itself, and when it is believed. On the replay topic of a group it is, because only
who may send replays has the right to write there. On a source topic anybody writes, so there a copy counts for one only
with a signature by the key that the workers have; without, it is a record like any other. Pure, any thread.

The signature is an HMAC-SHA256 over the topic, the key, the SHA-256 of the value and all headers of ours, in their
order. It holds for no other topic or value, and says nothing of the record's own headers, which whoever may write to
the topic could choose anyway.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

import msgspec

from streamworker.dlq.envelope import PREFIX, VERSION
from streamworker.dlq.lineage import (
    MAX_COUNT,
    PARENT,
    REPLAY_ID,
    SHA256,
    Lineage,
    lineage_of,
    number,
    origin_said,
)
from streamworker.record import Headers, Origin, Returned, read_headers

if TYPE_CHECKING:
    from collections.abc import Iterable

    from streamworker.record import Header, Message

SIGNATURE = "sw-signature"
_SIGNED_AS = b"streamworker replay 1"
_VERSION_HEADER = ("sw-version", VERSION.encode())


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """What the copy of a dead letter says of itself; raises ValueError for what nobody would read back."""

    group: str  # that is to handle it
    origin: Origin | None  # where the record was first; None: where the copy is
    origin_timestamp_ms: int | None  # its timestamp there, since the Unix epoch
    id: str  # of this replay; the same for the same letter of the same operation
    parent: str  # the dead letter: TOPIC/PARTITION/OFFSET
    count: int  # replays in its line with this one, from 1
    repaired: str | None = None  # SHA-256 of the value in hexadecimal digits, if it is not that of the origin

    def __post_init__(self) -> None:
        if not REPLAY_ID.fullmatch(self.id):
            raise ValueError(f"Replay.id: expected 1 to 128 of A-Z a-z 0-9 . _ : -, got {self.id!r}")
        if not PARENT.fullmatch(self.parent):
            raise ValueError(f"Replay.parent: expected TOPIC/PARTITION/OFFSET, got {self.parent!r}")
        if not 1 <= self.count <= MAX_COUNT:
            raise ValueError(f"Replay.count: expected 1 to {MAX_COUNT}, got {self.count}")
        if self.repaired is not None and not SHA256.fullmatch(self.repaired):
            raise ValueError(f"Replay.repaired: expected 64 hexadecimal digits, got {self.repaired!r}")

    @property
    def lineage(self) -> Lineage:
        """What of it is carried on where the record fails again."""
        return Lineage(parent=self.parent, replay_id=self.id, count=self.count, repaired=self.repaired)

    @property
    def headers(self) -> list[Header]:
        """As they are written, without signature."""
        headers: list[Header] = [_VERSION_HEADER]
        if self.origin is not None:
            topic, partition, offset = self.origin
            headers.append(("sw-origin-topic", topic.encode()))
            headers.append(("sw-origin-partition", b"%d" % partition))
            headers.append(("sw-origin-offset", b"%d" % offset))
        if self.origin_timestamp_ms is not None:
            headers.append(("sw-origin-timestamp", b"%d" % self.origin_timestamp_ms))
        headers += self.lineage.headers
        headers.append(("sw-target-group", self.group.encode()))
        return headers


class ReplayKey:
    """The secret that signs replays to source topics. Nothing shows it."""

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def __repr__(self) -> str:
        return "<ReplayKey>"

    def signature(self, topic: str, key: bytes | None, value: bytes | None, headers: Iterable[Header]) -> bytes:
        """The signature of a record with these, in hexadecimal digits; of `headers` only ours count."""
        parts = [_SIGNED_AS, topic.encode(), key, None if value is None else hashlib.sha256(value).digest()]
        for name, content in headers:
            if name.startswith(PREFIX) and name != SIGNATURE:
                parts += [name.encode("utf-8", "surrogatepass"), content]
        return hmac.new(self._secret, b"".join(map(_framed, parts)), hashlib.sha256).hexdigest().encode()

    def has_signed(self, message: Message, headers: Headers) -> bool:
        """Whether `message`, which has `headers`, is as it was signed for the topic that it is in."""
        claimed = headers.last(SIGNATURE)
        if claimed is None:
            return False
        expected = self.signature(message.topic(), message.key(), message.value(), headers)
        return hmac.compare_digest(claimed, expected)


def _framed(part: bytes | None) -> bytes:
    """With its length before it, so that no part can pass for another; null is none."""
    return b"\xff" * 8 if part is None else len(part).to_bytes(8, "big") + part


def replayed_headers(
    own: Iterable[Header],
    replay: Replay,
    *,
    topic: str,
    key: bytes | None,
    value: bytes | None,
    signed_by: ReplayKey | None = None,
) -> list[Header]:
    """The headers of a copy that goes to `topic`: the record's `own`, then ours, then the signature."""
    headers = [header for header in own if not header[0].startswith(PREFIX)]
    headers += replay.headers
    if signed_by is not None:
        headers.append((SIGNATURE, signed_by.signature(topic, key, value, headers)))
    return headers


def addressed_to(message: Message, key: ReplayKey | None) -> str | None:
    """The group that a record is for, and no other; None if it is for all that read its topic.

    With a `key` only what is signed by it is believed.
    """
    headers = read_headers(message)
    group = headers.last("sw-target-group") if headers else None
    if group is None or (key is not None and not key.has_signed(message, headers)):
        return None
    return group.decode("utf-8", "replace")


def replayed(message: Message) -> Returned:
    """A record that was sent again, and is believed: as it was first, due at once and without a call that was made."""
    headers = read_headers(message)
    return Returned(
        message,
        origin=origin_said(headers) or Origin(message.topic(), message.partition(), message.offset()),
        timestamp_ms=number(headers, "sw-origin-timestamp"),
        calls=0,
        due_ms=0,
        replayed=True,
        repaired=lineage_of(headers).repaired is not None,
    )
