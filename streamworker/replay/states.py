"""What has become of dead letters: the records of `<dead-letter topic>.state`, and what they add up to.

The topic is compacted and has as many partitions as the dead-letter topic; what is said of a letter of partition p is
in its partition p, under the key `PARTITION:OFFSET`, and the last one holds. A letter of which nothing is said is
pending. A record is JSON, version 1. Decided here: the form; what is believed: an entry that was written for another
topic of the same name (`topic_id`), or of another payload (`payload_sha256`), is not; and what may follow what. Pure,
any thread.
"""

from __future__ import annotations

import enum
import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from streamworker.errors import ConfigurationError
from streamworker.replay.dead_record import LetterId

if TYPE_CHECKING:
    from collections.abc import Mapping

VERSION = 1


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

    v: int = 1  # left out while it is that
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


SENT = frozenset({State.REPLAYED, State.REPAIRED})
ONLY_PENDING = frozenset({State.PENDING})
AGAIN = frozenset({State.PENDING, State.REPLAYED, State.REPAIRED, State.DUPLICATE})  # what may be sent with `again`
RESTORABLE = frozenset({State.DISCARDED})
_SENDING = frozenset({*SENT, State.UNCERTAIN})  # of what is sent, without a transaction in two steps
# What may follow each state, if whoever writes it expects the letter to be in that state.
FOLLOWERS: Mapping[State, frozenset[State]] = {
    State.PENDING: frozenset(State),  # pending again: assigned, or snoozed
    State.REPLAYED: _SENDING,
    State.REPAIRED: _SENDING,
    State.DUPLICATE: _SENDING,
    State.DISCARDED: frozenset({State.PENDING}),
    State.UNCERTAIN: frozenset({*_SENDING, State.DISCARDED, State.PENDING}),
}

_NONE = bytes(8)
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Disposition)


class Standing(NamedTuple):
    """What counts of a disposition for what may follow it; small, because there is one for each letter.

    Of the topic's id, the payload's hash and the replay's id the first eight bytes of their hashes; zeros for None.
    """

    state: State
    topic: bytes
    payload: bytes
    replay: bytes

    @classmethod
    def of(cls, said: Disposition) -> Standing:
        """Of what was said."""
        return cls(said.state, _short_name(said.topic_id), _short(said.payload_sha256), _short(said.replay_id))

    def is_of(self, other: Standing) -> bool:
        """Whether both are of the same letter: of the same topic, as far as that is known, and the same payload."""
        unknown = _NONE in (self.topic, other.topic)
        return (unknown or self.topic == other.topic) and self.payload == other.payload


def state_now(last: Standing | None, then: Disposition) -> State:
    """The state that a letter is in, of which `then` is to be said next: what is said of others is not believed."""
    return State.PENDING if last is None or not last.is_of(Standing.of(then)) else last.state


def may_follow(last: Standing | None, then: Disposition, expected: frozenset[State]) -> bool:
    """Whether `then` may be said now of a letter that is expected to be in one of these states.

    The same replay is never made twice: its id tells it apart, also with `AGAIN`.
    """
    now = state_now(last, then)
    if last is not None and now in SENT and then.replay_id is not None and last.replay == _short(then.replay_id):
        return False
    return now in expected and then.state in FOLLOWERS[now]


def believed(said: Disposition, *, topic_id: str | None, payload_sha256: str | None) -> bool:
    """Whether what was said is of the letter that has this payload, in the topic with this id (None: not known)."""
    unknown = said.topic_id is None or topic_id is None
    return (unknown or said.topic_id == topic_id) and said.payload_sha256 == payload_sha256


def _short(text: str | None) -> bytes:
    return _NONE if text is None else hashlib.sha256(text.encode()).digest()[:8]


_short_name = lru_cache(16)(_short)  # of a topic: the same in nearly all that is said


def encode(disposition: Disposition) -> bytes:
    """The value of its record."""
    return _encoder.encode(disposition)


def decode(value: bytes) -> Disposition | None:
    """None for what is no such record, or one of a later version."""
    try:
        found = _decoder.decode(value)
    except msgspec.MsgspecError:
        return None
    return found if found.v == VERSION else None


def key_of(letter: LetterId) -> bytes:
    """The key of its records."""
    return b"%d:%d" % letter


def letter_of(key: bytes | None) -> LetterId | None:
    """The letter that a record with this key is of; None for a key that none has."""
    try:
        return LetterId.parse((key or b"").decode())
    except (ConfigurationError, UnicodeDecodeError):
        return None


def digest(value: bytes | None) -> str | None:
    """SHA-256 of a value in hexadecimal digits."""
    return None if value is None else hashlib.sha256(value).hexdigest()


def state_topic(dead_letter_topic: str) -> str:
    """The compacted topic beside a dead-letter topic."""
    return f"{dead_letter_topic}.state"
