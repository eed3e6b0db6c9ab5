"""What has become of dead letters: the records of `<dead-letter topic>.state`, and what they add up to.

The topic is compacted and has as many partitions as the dead-letter topic; what is said of a letter of partition p is
in its partition p, under the key `PARTITION:OFFSET`, and the last one holds. A letter of which nothing is said is
pending. A record is JSON, version 1. Decided here: the form, and what is believed: an entry that was written for
another topic of the same name (`topic_id`), or of another payload (`payload_sha256`), is not. Pure, any thread.
"""

from __future__ import annotations

import enum
import hashlib
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from streamworker.replay.dead_record import LetterId

VERSION = 1
AUDIT_TOPIC = "streamworker.audit"  # who did what, for all dead-letter topics of a cluster


class State(enum.StrEnum):
    """What has become of a dead letter."""

    PENDING = "pending"
    REPLAYED = "replayed"
    REPAIRED = "repaired"  # edited, then sent
    DISCARDED = "discarded"
    DUPLICATE = "duplicate"  # of another letter of the same record
    UNCERTAIN = "uncertain"  # meant to be sent, without a transaction, and not known to be


class Target(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a copy was sent to."""

    topic: str
    partition: int
    offset: int | None = None  # None: sent, and not known where


class Disposition(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One record of the state topic. Times are milliseconds since the Unix epoch.

    `assigned_to` and `snoozed_until_ms` are attributes of pending; all that sends or discards is `at_ms` by `actor`.
    """

    v: int = VERSION
    state: State
    op_id: str
    actor: str
    at_ms: int
    topic_id: str | None = None  # of the dead-letter topic; None where the cluster does not tell
    payload_sha256: str | None = None  # of the letter's value; None: it has none
    reason_code: str | None = None
    note: str | None = None
    target: Target | None = None
    replay_id: str | None = None
    edited_sha256: str | None = None  # of the value that was sent instead
    replay_count: int = 0  # with this one
    of: str | None = None  # duplicate: of PARTITION:OFFSET
    assigned_to: str | None = None
    snoozed_until_ms: int | None = None


_decoder = msgspec.json.Decoder(Disposition)


def encode(disposition: Disposition) -> bytes:
    """The value of its record."""
    return msgspec.json.encode(disposition)


def decode(value: bytes) -> Disposition | None:
    """None for what is no such record, or one of a later version."""
    try:
        found = _decoder.decode(value)
    except msgspec.MsgspecError:
        return None
    return found if found.v == VERSION else None


def key_of(letter: LetterId) -> bytes:
    """The key of its records."""
    return str(letter).encode()


def digest(value: bytes | None) -> str | None:
    """SHA-256 of a value in hexadecimal digits."""
    return None if value is None else hashlib.sha256(value).hexdigest()


def state_topic(dead_letter_topic: str) -> str:
    """The compacted topic beside a dead-letter topic."""
    return f"{dead_letter_topic}.state"
